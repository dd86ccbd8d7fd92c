"""The judgement's shell: everything is read, judged anew by pure functions, and written as one analysis."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd
from sqlalchemy import Engine

from farm.analysis.rules import ANALYSIS_VERSION
from farm.cluster_comparisons import compare_clusters
from farm.comparisons import PENDING, campaigns_of, compare_revisions, owner_of
from farm.culprits import look_inside
from farm.findings import environment_findings, product_findings
from farm.frames import Declared
from farm.inventory import Cluster
from farm.limits import held_samples
from farm.results import queries
from farm.results.queries import EVERYTHING
from farm.results.tables import Bundle, CheckIn, ComparisonRow, Finding, InsideCommit, OutcomeRow, Session
from farm.results.writing import write_analysis
from farm.settings import Settings
from farm.surroundings import Built, build_findings
from farm.void_rates import harness_findings
from scenarios.crossing import ResolvedBuild, digest_of
from scenarios.registry import SCENARIOS
from scenarios.strict import from_data


def declared_metrics() -> Declared:
    """What the scenarios declare, by scenario and metric."""
    return {(scenario.name, metric.name): metric for scenario in SCENARIOS.values() for metric in scenario.metrics}


def judge(
    engine: Engine,
    settings: Settings,
    inventory: Mapping[str, Cluster],
    now: datetime.datetime,
    declared: Declared | None = None,
) -> bool:
    """Judge all that clusters of the inventory brought; returns whether a new analysis was written.

    Nothing is done when neither the evidence nor the rules changed since the newest analysis. `declared` are
    the metrics to judge, by default those of the scenarios.
    """
    metrics = declared_metrics() if declared is None else declared
    bundles = queries.cause_digest(engine)  # first of all: what comes in meanwhile makes another analysis
    sessions = [row for row in queries.sessions(engine, EVERYTHING) if row.cluster in inventory]
    cause = _cause(bundles, sessions, metrics)
    newest = queries.newest_analysis(engine)
    if newest is not None and (newest.version, newest.cause) == (ANALYSIS_VERSION, cause):
        return False
    comparisons, findings = _judge_all(engine, sessions, metrics, now)
    write_analysis(
        engine, version=ANALYSIS_VERSION, cause=cause, made_at=now, comparisons=comparisons, findings=findings
    )
    return True


def _cause(bundles: str, sessions: Sequence[Session], declared: Declared) -> str:
    """Digest of all that decides: what came in, what is still to come, and what counts."""
    pending = [(row.id, row.state in PENDING) for row in sessions]  # that one begins changes no judgement
    metrics = [(scenario, asdict(metric)) for (scenario, _), metric in sorted(declared.items())]
    return digest_of({"bundles": bundles, "pending": pending, "metrics": metrics})


def _judge_all(
    engine: Engine, sessions: Sequence[Session], declared: Declared, now: datetime.datetime
) -> tuple[list[ComparisonRow], list[Finding]]:
    """Owner by owner: what is private or somebody else's never mixes with the rest."""
    check_ins = queries.check_ins(engine, EVERYTHING)
    inside = queries.inside_commits(engine, EVERYTHING)
    samples = held_samples(engine, EVERYTHING)
    outcomes = queries.outcomes(engine, EVERYTHING)
    accepted = {row.session: row for row in queries.bundles(engine, EVERYTHING) if row.accepted and row.session}
    facts = {session: (row.facts or {}).get("declared", {}) for session, row in accepted.items()}
    built = {session: _built(row) for session, row in accepted.items()}
    owners: dict[tuple[str, ...], list[Session]] = {}
    for session in sessions:
        owners.setdefault(tuple(owner_of(session).values()), []).append(session)
    comparisons: list[ComparisonRow] = []
    findings: list[Finding] = []
    for its in owners.values():
        names = {session.id for session in its}
        frame = samples[samples["session"].isin(names)]
        rows = [row for row in outcomes if row.session in names]
        found = _judge_owner(frame, rows, its, check_ins, inside, facts, built, declared, now)
        comparisons += found[0]
        findings += found[1]
    return comparisons, findings


def _judge_owner(
    samples: pd.DataFrame,
    outcomes: Sequence[OutcomeRow],
    sessions: Sequence[Session],
    check_ins: Sequence[CheckIn],
    inside: Sequence[InsideCommit],
    facts: Mapping[str, Mapping[str, str]],
    built: Built,
    declared: Declared,
    now: datetime.datetime,
) -> tuple[list[ComparisonRow], list[Finding]]:
    campaigns = campaigns_of(sessions, check_ins, inside)
    compared = compare_revisions(samples, campaigns, declared)
    comparisons = [one.row() for one in compared] + compare_clusters(samples, campaigns, declared)
    findings = product_findings(compared, outcomes, campaigns, check_ins, now)
    look_inside(findings, compared, outcomes, campaigns, inside)
    findings += harness_findings(outcomes, campaigns, now)
    measured = _in_time(samples, sessions)
    findings += environment_findings(samples, measured, facts, declared, now)
    findings += build_findings(measured, built, now)
    return comparisons, findings


def _in_time(samples: pd.DataFrame, sessions: Sequence[Session]) -> list[Session]:
    """The sessions that brought samples, in the order in which they measured."""
    first = samples.groupby("session")["taken_at"].min()
    return sorted((row for row in sessions if row.id in first.index), key=lambda row: (first[row.id], row.id))


def _built(bundle: Bundle) -> list[ResolvedBuild]:
    builds = (bundle.manifest or {}).get("builds", ())
    return [from_data(one, ResolvedBuild, source=f"bundle {bundle.sha256}") for one in builds]
