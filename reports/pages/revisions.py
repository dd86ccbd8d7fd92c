"""A page per check-in: what it did to every metric on every cluster, and what came of the scenarios."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from farm.history import MOST_INSIDE
from reports.charts import ratio_chart
from reports.judged import Judged, verdict_counts
from reports.material import CheckInView, ClusterView, Material
from reports.metrics import MeasuredMetric
from reports.pages import Page
from reports.pages.findings import FindingView
from reports.stand_ins import stand_ins

OutcomeCount = dict[str, Any]


def revision_pages(material: Material, findings: list[FindingView]) -> Iterator[Page]:
    listed = [
        {
            "checkin": checkin,
            "findings": [finding for finding in findings if finding.checkin == checkin and finding.product],
            "sessions": sum(measured_in(session.builds, checkin.revision) for session in _done(material)),
        }
        for checkin in material.check_ins
    ]
    yield Page("revisions/index.html", "revisions.html.j2", "revisions/index.html", {"rows": listed})
    for checkin in material.revisions:
        content = {
            "checkin": checkin,
            "twin": checkin.revision in material.twins,
            "parent": material.revision(checkin.parent_revision) if checkin.parent_revision else None,
            "alone": _alone(checkin, material),
            "most_inside": MOST_INSIDE,
            "findings": [
                finding
                for finding in findings
                if finding.product and (finding.checkin == checkin or checkin in finding.culprits)
            ],
            "judged": any(item.row.revision == checkin.revision for item in material.judged_check_ins),
            "clusters": [_on_cluster(material, checkin, view) for view in material.clusters.values()],
            "stand_ins": stand_ins(material.answered.values(), checkin.revision),
            "sessions": [session for session in material.sessions if measured_in(session.builds, checkin.revision)],
        }
        yield Page(checkin.path, "revision.html.j2", "revisions/index.html", content)


def measured_in(builds: list[dict[str, Any]], revision: str) -> bool:
    return any(build["revision"] == revision for build in builds)


def count_outcomes(rows: list[Any]) -> list[OutcomeCount]:
    """Outcomes counted by scenario, parameters, outcome, fault and reason; whatever was measured first."""
    counted = Counter(
        (row.scenario, row.version, tuple(sorted(row.params.items())), row.outcome, row.fault or "", row.reason or "")
        for row in rows
    )
    keys = ("scenario", "version", "params", "outcome", "fault", "reason")
    return [{**dict(zip(keys, key, strict=True)), "count": count} for key, count in sorted(counted.items())]


def unsteady(rows: list[Any]) -> list[dict[str, Any]]:
    """Cells that the stack failed at least once: broken where it never held, flaky where it now holds and now fails."""
    cells: dict[tuple[Any, ...], Counter[str]] = {}
    for row in rows:
        if row.outcome == "measured" or (row.outcome == "failed" and row.fault == "stack"):
            cell = row.scenario, row.version, tuple(sorted(row.params.items()))
            cells.setdefault(cell, Counter())[row.outcome] += 1
    return [
        {
            **dict(zip(("scenario", "version", "params"), cell, strict=True)),
            "state": "flaky" if counts["measured"] else "broken",
            "held": counts["measured"],
            "of": counts.total(),
        }
        for cell, counts in sorted(cells.items())
        if counts["failed"]
    ]


def _done(material: Material) -> list[Any]:
    return [session for session in material.sessions if session.id in material.answered]


def _on_cluster(material: Material, checkin: CheckInView, view: ClusterView) -> dict[str, Any]:
    metrics = [
        metric
        for metric in material.metrics
        if metric not in material.only_swept and material.figure(metric, view.name, checkin.revision)
    ]
    rows = [_row(material, checkin, view, metric) for metric in metrics]
    outcomes = [row for row in material.outcomes if row.cluster == view.name and row.revision == checkin.revision]
    judged = [row["judged"] for row in rows if row["judged"] and row["metric"].may_be_judged]
    bars = tuple(bar for item in judged if (bar := item.bar(item.metric.title)))
    title = f"Revision {checkin.short} ÷ {_other(material, checkin)} on {view.donor}"
    described = f"{len(bars)} ratios with 95 % intervals; the table has the numbers"
    key = f"rev-{view.name}-{checkin.revision[:12]}"
    return {
        "view": view,
        "rows": rows,
        "headline": _headline(judged, _other(material, checkin), _alone(checkin, material)),
        "chart": ratio_chart(key, bars, title, described) if bars else None,
        "outcomes": count_outcomes(outcomes),
        "unsteady": unsteady(outcomes),
        "fidelity": material.fidelity_of(view.name),
    }


def _row(material: Material, checkin: CheckInView, view: ClusterView, metric: MeasuredMetric) -> dict[str, Any]:
    parent = checkin.parent_revision
    return {
        "metric": metric,
        "figure": material.figure(metric, view.name, checkin.revision),
        "parent_figure": material.figure(metric, view.name, parent) if parent else None,
        "judged": material.judged_at(metric, view.name, checkin.revision),
    }


def _alone(checkin: CheckInView, material: Material) -> bool:
    """Whether no verdict is to come: without a watched parent, and held against no other by anybody's wish."""
    compared = any(
        item.row.between == "revisions" and item.row.revision == checkin.revision for item in material.judged
    )
    return checkin.number is not None and checkin.parent_revision is None and not compared


def _headline(judged: list[Judged], other: str, alone: bool) -> str:
    if alone:
        return "There is nothing here to compare it with."
    if not judged:
        return "Nothing is judged here yet."
    return f"Against {other}, of {len(judged)} metrics: {verdict_counts(judged)}."


def _other(material: Material, checkin: CheckInView) -> str:
    """What the revision is compared with on its page."""
    return "the canary itself" if checkin.revision in material.twins else "its parent"
