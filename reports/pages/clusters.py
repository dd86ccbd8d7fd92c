"""A page per cluster: who lends it, what it is, what it brought back and what failed there, by whose fault."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from farm.analysis.rules import BLOCKS_NEEDED, SESSIONS_NEEDED
from reports.changes import changes
from reports.charts import ratio_chart
from reports.limits import KnownLimit
from reports.material import ClusterView, Figure, Material, plain
from reports.metrics import MeasuredMetric
from reports.pages import Page
from reports.pages.comparison import segments_sentence
from reports.pages.findings import FindingView
from reports.pages.revisions import count_outcomes
from reports.voids import voids_by_campaign


def cluster_pages(material: Material, findings: list[FindingView]) -> Iterator[Page]:
    cards = [cluster_card(material, view) for view in material.clusters.values()]
    yield Page("clusters/index.html", "clusters.html.j2", "clusters/index.html", {"cards": cards})
    for view in material.clusters.values():
        yield Page(view.path, "cluster.html.j2", "clusters/index.html", _content(material, view, findings))


def cluster_card(material: Material, view: ClusterView) -> dict[str, Any]:
    """What lists of clusters tell of one."""
    sessions = [session for session in material.sessions if session.cluster == view.name]
    return {
        "view": view,
        "fidelity": material.fidelity_of(view.name),
        "sessions": len(sessions),
        "answered": sum(session.id in material.answered for session in sessions),
        "facts": material.declared_facts(view.name),
    }


def _content(material: Material, view: ClusterView, findings: list[FindingView]) -> dict[str, Any]:
    outcomes = [row for row in material.outcomes if row.cluster == view.name]
    newest = material.newest_bundle(view.name)
    facts = (newest.facts or {}) if newest else {}
    samples = material.samples[material.samples["cluster"] == view.name]
    limits = material.limits(view.name)
    return {
        **cluster_card(material, view),
        "evidence": facts.get("fidelity", {}).get("evidence", []),
        "host_facts": facts.get("hosts", {}),
        "clock_bounds_s": facts.get("clock_bounds_s", {}),
        "runs": [session for session in material.sessions if session.cluster == view.name],
        "judged": any(item.row.cluster == view.name for item in material.judged_check_ins),
        "findings": [finding for finding in findings if finding.cluster == view],
        "samples": len(samples),
        "void": _void(samples),
        "failures": [row for row in count_outcomes(outcomes) if row["outcome"] in ("failed", "unsupported")],
        "outcomes": len(outcomes),
        "migrations": _migrations(outcomes),
        "changes": _changes(material, view),
        "limits": limits,
        "limits_chart": _limits_chart(view, limits),
        "reached": _reached(material, view),
        "voids": voids_by_campaign(samples),
        "segments": segments_sentence(material, view.name),
    }


def _changes(material: Material, view: ClusterView) -> list[dict[str, Any]]:
    """What was not as in the session before, newest first; sessions that found all as it was are left out."""
    measured = material.measured_on(view.name)
    found = []
    for before, after in pairwise(measured):
        then, now = ((material.answered[session.id].facts or {}).get("hosts", {}) for session in (before, after))
        found.append({"session": after, "lines": [plain(line) for line in changes(then, now)]})
    return [row for row in reversed(found) if row["lines"]]


def _limits_chart(view: ClusterView, limits: Sequence[KnownLimit]) -> Markup | None:
    """How far apart the probes of each place were; nothing to see before there are two of any."""
    if not any(limit.n > 1 for limit in limits):
        return None
    bars = tuple(limit.bar for limit in limits)
    described = f"{len(bars)} limits; the table has the numbers"
    return ratio_chart(f"limits-{view.name}", bars, "share of the best probe", described)


def _reached(material: Material, view: ClusterView) -> list[Figure]:
    """The newest figure of each metric: how much of what is possible it reached, or why that is not known."""
    newest: dict[MeasuredMetric, Figure] = {}
    for figure in material.figures:  # by check-in, oldest first
        if figure.cluster == view.name and figure.n and figure.checkin.revision not in material.twins:
            newest[figure.metric] = figure
    return sorted(newest.values(), key=lambda figure: (figure.reached is None, figure.metric))


def _void(samples: Any) -> list[dict[str, Any]]:
    void = samples[~samples["valid"]]
    counted = void.groupby(["scenario", "void_reason"], dropna=False).size()
    return [{"scenario": key[0], "reason": key[1] or "", "count": count} for key, count in counted.items()]


def _migrations(outcomes: list[Any]) -> dict[str, Any]:
    """Live migrations tried, and the failed ones by fault and reason, each with the session that saw it last."""
    mine = [row for row in outcomes if row.scenario == "live_migration"]
    failed = [row for row in mine if row.outcome == "failed"]
    counted = Counter((row.fault or "unknown", row.reason or "no reason was given") for row in failed)
    seen_in = {(row.fault or "unknown", row.reason or "no reason was given"): row.session for row in failed}
    blocks, sessions = {(row.session, row.block) for row in mine}, {row.session for row in mine}
    return {
        "tried": len(mine),
        "failed": [
            {"fault": key[0], "reason": plain(key[1]), "count": count, "session": seen_in[key]}
            for key, count in sorted(counted.items())
        ],
        "provisional": len(blocks) < BLOCKS_NEEDED or len(sessions) < SESSIONS_NEEDED,
    }
