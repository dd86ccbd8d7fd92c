"""From comparisons, outcomes and the canary to findings: what is said in public, and about whom.

A finding names one check-in on one cluster (kind product), or a time from which a cluster is another one (kind
environment). Metrics that moved together make one finding. Only what the stack under test did is held against
a check-in: a failure of the hypervisor, the donor or the farm never is.
"""

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from farm.analysis.canary import Step, strongest_step
from farm.analysis.clusters import session_values
from farm.analysis.multiplicity import holm
from farm.analysis.rules import FAMILY_ALPHA, SESSIONS_NEEDED, WATCH_ALPHA, Estimate, beyond, interval
from farm.comparisons import Compared, MeasuredCampaign, owner_of
from farm.frames import Declared, SeriesKey, SeriesTable, series_tables
from farm.results.tables import CheckIn, Finding, FindingState, OutcomeRow, Session
from scenarios.contract import Metric
from scenarios.crossing import canonical_json, digest_of

T = TypeVar("T")
K = TypeVar("K")

Entry = dict[str, Any]
Subject = tuple[str, str, str]  # repository, revision, cluster
_Cell = tuple[str, int, str]  # scenario, version, params as canonical JSON

_FAILS_AT_LEAST = 0.5  # share of the child's cells that must fail before a break is more than bad luck
_FAILURES_NEEDED = 2  # one failed cell may be chance


@dataclass(frozen=True)
class _Evidence:
    state: FindingState
    parent: str
    campaign: MeasuredCampaign
    entry: Entry


def product_findings(
    compared: Iterable[Compared],
    outcomes: Sequence[OutcomeRow],
    campaigns: Iterable[MeasuredCampaign],
    check_ins: Iterable[CheckIn],
    now: datetime.datetime,
) -> list[Finding]:
    """What check-ins did. Pairs that are not a check-in and its parent (tries) make no finding."""
    parents = {(row.repository, row.revision): row.parent_revision for row in check_ins}
    found: dict[Subject, list[_Evidence]] = {}

    def note(campaign: MeasuredCampaign, child: str, evidence: _Evidence) -> None:
        # the parent may have been one that could not be measured: then the evidence is of an earlier check-in
        if parents.get((campaign.repository, child)) == dict(campaign.pairs).get(child):
            found.setdefault((campaign.repository, child, campaign.cluster), []).append(evidence)

    for one in compared:
        state = state_of(one)
        if state is not None:
            note(one.campaign, one.child, _Evidence(state, one.parent, one.campaign, entry_of(one)))
    by_session: dict[str, list[OutcomeRow]] = {}
    for row in outcomes:
        by_session.setdefault(row.session, []).append(row)
    for campaign in campaigns:
        rows = [row for session in campaign.sessions for row in by_session.get(session.id, ())]
        for child, parent in campaign.pairs:
            for state, entry in breaks(rows, child, parent):
                if state == "watch" and campaign.complete:
                    continue  # what comes of a watch is known
                note(campaign, child, _Evidence(state, parent, campaign, entry))
    return [_product_finding(subject, evidence, now) for subject, evidence in found.items()]


def state_of(one: Compared) -> FindingState | None:
    """Whether a comparison is worth a finding.

    Beyond δ always; confirmed also needs the verdict "different", and agreement of two independent sessions
    and of the raw series; watch is what passes the looser test before all blocks are in.
    """
    found = one.difference
    if found is None or one.p_adjusted is None or not beyond(found.estimate.ratio, one.metric.delta):
        return None
    if one.ready:
        return "confirmed" if one.verdict == "different" and found.agrees else None
    return "watch" if not one.campaign.complete and one.p_adjusted <= WATCH_ALPHA else None


def direction_of(ratio: float, metric: Metric) -> str:
    """Which of "slower" and "faster" a ratio means, whichever way the metric counts."""
    return "slower" if (ratio > 1) == (metric.direction == "lower") else "faster"


def entry_of(one: Compared) -> Entry:
    assert one.difference is not None  # `_state` saw it
    estimate = one.difference.estimate
    return _figures(one.series, estimate, "block", direction_of(estimate.ratio, one.metric))


def _figures(series: SeriesKey, estimate: Estimate, replication: str, direction: str) -> Entry:
    low, high = interval(estimate) or (None, None)
    return {
        "scenario": series.scenario,
        "version": series.version,
        "metric": series.metric,
        "unit": series.unit,
        "params": json.loads(series.params),
        "ratio": estimate.ratio,
        "low": low,
        "high": high,
        "n": estimate.n,
        "replication": replication,
        "direction": direction,
    }


def breaks(rows: Sequence[OutcomeRow], child: str, parent: str) -> Iterator[tuple[FindingState, Entry]]:
    """Cells that held at the parent and that the stack fails at the child: in two sessions, or (watch) in one."""
    failed_before = {_cell(row) for row in rows if row.revision == parent and _failed(row)}
    held = [
        row for row in rows if row.revision == parent and row.outcome == "measured" and _cell(row) not in failed_before
    ]
    tried: dict[_Cell, list[OutcomeRow]] = {}
    for row in rows:
        asked = row.revision == child and _cell(row) not in failed_before
        if asked and (row.outcome == "measured" or _failed(row)) and any(_covers(row, one) for one in held):
            tried.setdefault(_cell(row), []).append(row)
    for cell, its_rows in tried.items():
        failed = [row for row in its_rows if _failed(row)]
        if len(failed) >= _FAILURES_NEEDED and len(failed) >= _FAILS_AT_LEAST * len(its_rows):
            sessions = len({row.session for row in failed})
            yield "confirmed" if sessions >= SESSIONS_NEEDED else "watch", _break_entry(cell, failed[0], sessions)


def _break_entry(cell: _Cell, failed: OutcomeRow, sessions: int) -> Entry:
    """Like the entry of a metric, named "outcome", without a ratio and with the reason of the first failure."""
    scenario, version, params = cell
    return {
        "scenario": scenario,
        "version": version,
        "metric": "outcome",
        "unit": "",
        "params": json.loads(params),
        "ratio": None,
        "low": None,
        "high": None,
        "n": sessions,
        "replication": "session",
        "direction": "broken",
        "reason": failed.reason,
    }


def _covers(row: OutcomeRow, held: OutcomeRow) -> bool:
    """Whether a row is of the same cell, or of a scenario that could not even begin to measure such cells."""
    same = (row.scenario, row.version) == (held.scenario, held.version)
    return same and row.params.items() <= held.params.items()


def _failed(row: OutcomeRow) -> bool:
    return row.outcome == "failed" and row.fault == "stack"


def _cell(row: OutcomeRow) -> _Cell:
    return row.scenario, row.version, canonical_json(row.params)


def _product_finding(subject: Subject, evidence: Sequence[_Evidence], now: datetime.datetime) -> Finding:
    """One finding of the strongest state there is, with what reached it; the first campaign to see a thing tells it."""
    repository, revision, cluster = subject
    state: FindingState = "confirmed" if any(one.state == "confirmed" for one in evidence) else "watch"
    entries: dict[tuple[str, int, str, str], Entry] = {}
    for one in evidence:
        if one.state == state:
            entries.setdefault(_about(one.entry), one.entry)
    owner = evidence[0].campaign.owner
    # a watch may go away again: nobody is named in public before it is confirmed
    seen_by = owner if state == "confirmed" else {**owner, "visibility": "private"}
    identity = {"kind": "product", "repository": repository, "revision": revision, "cluster": cluster}
    return Finding(
        key=digest_of({**identity, **owner}),
        kind="product",
        state=state,
        cluster=cluster,
        repository=repository,
        revision=revision,
        last_good=evidence[0].parent,
        direction=_overall(entry["direction"] for entry in entries.values()),
        metrics=list(entries.values()),
        found_at=now,
        **seen_by,
    )


def _about(entry: Entry) -> tuple[str, int, str, str]:
    return entry["scenario"], entry["version"], entry["metric"], canonical_json(entry["params"])


def _overall(directions: Iterable[str]) -> str:
    """What all together are: "broken" outweighs the rest; "slower" and "faster" make "both"."""
    seen = set(directions)
    if "broken" in seen:
        return "broken"
    return seen.pop() if len(seen) == 1 else "both"


def environment_findings(
    samples: pd.DataFrame,
    sessions: Sequence[Session],
    facts: Mapping[str, Mapping[str, str]],
    declared: Declared,
    now: datetime.datetime,
) -> list[Finding]:
    """Where a cluster's canary changed its level. `sessions` in the order they were measured.

    `facts` are the declared facts per session: what changed between the two sides of the step is told with it.
    """
    found: list[Finding] = []
    for (repository, cluster), its in _grouped(sessions, lambda s: (s.repository, s.cluster)).items():
        canary = _canary(its[-1])
        frame = samples[(samples["repository"] == repository) & (samples["cluster"] == cluster)]
        steps = _confirmed_steps(frame, [session.id for session in its], canary, declared)
        by_start = _grouped(steps, lambda step: step[0])
        for (before, start), group in by_start.items():
            entries = [entry for _, entry in group]
            changed = _changed(facts.get(before, {}), facts.get(start, {}))
            found.append(_environment_finding(its[-1], canary, start, entries, changed, now))
    return found


def _confirmed_steps(
    frame: pd.DataFrame, order: Sequence[str], canary: str, declared: Declared
) -> list[tuple[tuple[str, str], Entry]]:
    """Steps of one cluster's canary that pass the corrected test: last session before, first after, evidence."""
    steps: list[tuple[SeriesTable, list[str], Step]] = []
    for series in series_tables(frame, declared):
        values = session_values(series.table, canary)
        names = [name for name in order if name in values]
        step = strongest_step([values[name] for name in names]) if series.metric.judged else None
        if step is not None:
            steps.append((series, names, step))
    adjusted = holm([step.p_value for *_, step in steps])
    found = []
    for (series, names, step), p_adjusted in zip(steps, adjusted, strict=True):
        ratio = step.estimate.ratio
        if p_adjusted <= FAMILY_ALPHA and beyond(ratio, series.metric.delta):
            entry = _figures(series.key, step.estimate, "session", direction_of(ratio, series.metric))
            found.append(((names[step.index - 1], names[step.index]), entry))
    return found


def _environment_finding(
    session: Session,
    canary: str,
    start: str,
    entries: Sequence[Entry],
    changed: Mapping[str, list[str | None]],
    now: datetime.datetime,
) -> Finding:
    identity = {"kind": "environment", "repository": session.repository, "cluster": session.cluster, "since": start}
    return Finding(
        key=digest_of({**identity, "canary": canary, **owner_of(session)}),
        kind="environment",
        state="confirmed",
        cluster=session.cluster,
        repository=session.repository,
        revision=canary,
        last_good=None,
        direction=_overall(entry["direction"] for entry in entries),
        metrics=[{**entry, "since": start, "changed": changed} for entry in entries],
        found_at=now,
        **owner_of(session),
    )


def _canary(session: Session) -> str:
    """The revision that plays the canary in a session; empty where none does."""
    return next((str(build["revision"]) for build in session.builds if "canary" in build["roles"]), "")


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str | None]]:
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
