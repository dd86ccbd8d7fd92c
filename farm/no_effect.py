"""Whether A/A sessions show that a change of the farm's own code changed no figure: evidence for `scenarios.versions`.

The canary is one frozen build, and the version of a scenario says what its figures mean. So the canary's level under
the changed code must be its level under the code before, on the same cluster under the same declared facts: the
ratio's interval must lie within δ, for every metric that anybody is judged by. The unit is the session.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from farm.analysis.clusters import session_values, welch
from farm.analysis.rules import CLUSTER_SESSIONS_NEEDED, EQUIVALENCE_LEVEL, beyond, interval
from farm.frames import SeriesTable, series_tables
from farm.results.tables import Bundle, Session
from scenarios import versions
from scenarios.contract import Scenario
from scenarios.crossing import harness_digest
from scenarios.versions import Equivalence, Evidence, Measured


class NoEvidence(ValueError):
    """Why these sessions show nothing: one line for people."""


def evidence(
    session: str,
    scenario: Scenario,
    sessions: Iterable[Session],
    bundles: Iterable[Bundle],
    samples: pd.DataFrame,
    checkout: Path,
) -> Evidence:
    """What the A/A session `session`, and all like it, show of the checkout's code; raises NoEvidence.

    `samples` are as `farm.limits.held_samples` gives them.
    """
    answered = {str(row.session): row for row in bundles if row.accepted}
    own = {row.id: row for row in sessions if row.purpose == "a/a" and row.id in answered}
    if session not in own:
        raise NoEvidence(f"{session} is no A/A session that brought back a bundle")
    harness = _harness(answered[session])
    if harness != harness_digest(checkout):
        raise NoEvidence(f"session {session} ran other code ({harness[:12]}) than this checkout's")
    mine = samples[(samples["scenario"] == scenario.name) & (samples["version"] == scenario.version)]
    alike = mine[mine["session"].isin(_alike(own[session], own.values()))]
    epochs = set(alike[alike["session"] == session]["epoch"])
    alike = alike[alike["epoch"].isin(epochs)]
    measured = {name: _harness(answered[name]) for name in alike["session"].unique()}
    new, old = ([name for name, its in measured.items() if (its == harness) is same] for same in (True, False))
    if min(len(new), len(old)) < CLUSTER_SESSIONS_NEEDED:
        raise NoEvidence(
            f"{len(new)} A/A sessions of this code and {len(old)} of other code measured {scenario.name} "
            f"{scenario.version} here under the same facts: {CLUSTER_SESSIONS_NEEDED} of each are needed"
        )
    declared = {(scenario.name, metric.name): metric for metric in scenario.metrics if metric.judged}
    tables = series_tables(alike, declared)
    canary = str(own[session].base_revision)
    return Evidence(
        scenario=scenario.name,
        version=scenario.version,
        digest=versions.digest_of(checkout, scenario.name),
        cluster=own[session].cluster,
        old=tuple(Measured(name, measured[name], answered[name].sha256) for name in old),
        new=tuple(Measured(name, harness, answered[name].sha256) for name in new),
        level=EQUIVALENCE_LEVEL,
        metrics=tuple(_equivalence(table, canary, new, old) for table in tables),
        absent=tuple(sorted({name for _, name in declared} - set(alike["metric"]))),
    )


def _alike(session: Session, others: Iterable[Session]) -> list[str]:
    """A/A sessions of the same canary on the same cluster."""
    same = (session.cluster, session.repository, session.base_revision)
    return [row.id for row in others if (row.cluster, row.repository, row.base_revision) == same]


def _harness(bundle: Bundle) -> str:
    manifest: Mapping[str, object] = bundle.manifest or {}
    return str(manifest.get("harness"))


def _equivalence(series: SeriesTable, canary: str, new: Sequence[str], old: Sequence[str]) -> Equivalence:
    """One value per session; sessions whose samples are void have none."""
    values = session_values(series.table, canary)
    ours, before = ([values[name] for name in names if name in values] for names in (new, old))
    if not ours or not before:
        raise NoEvidence(f"{series.key.metric} {series.key.params} has no valid sample on one side")
    estimate = welch(ours, before)
    within = interval(estimate, EQUIVALENCE_LEVEL)
    if within is None:
        raise NoEvidence(f"{series.key.metric} {series.key.params} was measured in too few sessions")
    low, high = within
    delta = series.metric.delta
    return Equivalence(
        metric=series.key.metric,
        params=series.key.params,
        placement=series.key.placement,
        delta=delta,
        new=tuple(ours),
        old=tuple(before),
        ratio=estimate.ratio,
        low=low,
        high=high,
        shown=not beyond(low, delta) and not beyond(high, delta),
    )
