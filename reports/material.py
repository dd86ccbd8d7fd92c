"""All that the pages are made of, read once, through the one function that selects what is public."""

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from sqlalchemy import Engine

from farm.analysis.noise import Noise
from farm.inventory import Cluster
from farm.limits import held_samples
from farm.results import queries
from farm.results.tables import Analysis, Bundle, CheckIn, ComparisonRow, Finding, OutcomeRow, ProbeRow, Session
from farm.verdicts import DECLARED_NOT_JUDGED
from reports.judged import Judged, count_text
from reports.limits import KnownLimit, Reached, limits_of, reached_by, reasons_of
from reports.metrics import MeasuredMetric
from reports.noise import NoisePlace, noises
from reports.summaries import SERIES, summarise
from scenarios.crossing import PlannedScenario, canonical_json, revision_of, to_data

# characters that would turn a line of text around or hide in it
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def plain(text: str) -> str:
    """Somebody else's text as one visible line: no control characters, no turning of the writing's direction."""
    return _UNSEEN.sub(" ", text).strip()


@dataclass(frozen=True)
class CheckInView:
    """A check-in as pages name it; one that is no public check-in (a session's own build) has number None."""

    repository: str
    number: int | None
    revision: str
    commit: str
    parent_revision: str | None
    subject: str
    author: str
    committed_at: datetime.datetime | None
    brought: int = 0  # commits, by a merge

    @property
    def short(self) -> str:
        return (self.commit or self.revision)[:7]

    @property
    def path(self) -> str:
        return f"revisions/{self.revision[:12]}.html"


@dataclass(frozen=True)
class ClusterView:
    """A cluster with its brand. `logo` is a path in the site, None where there is no harmless one."""

    inventory: Cluster
    logo: str | None
    url: str | None

    @property
    def name(self) -> str:
        return self.inventory.name

    @property
    def donor(self) -> str:
        return plain(self.inventory.donor.name)

    @property
    def article(self) -> str:
        return "an" if self.donor[:1].upper() in tuple("AEIO") else "a"

    @property
    def path(self) -> str:
        return f"clusters/{self.name}.html"


@dataclass(frozen=True)
class Figure:
    """One raw figure of a revision on a cluster: geometric mean over `n` blocks."""

    metric: MeasuredMetric
    cluster: str
    checkin: CheckInView
    value: float
    low: float | None
    high: float | None
    n: int
    sessions: int
    void: int
    fidelity: str
    provisional: bool
    reached: Reached | None  # None where no limit is known
    no_limit: str  # and why

    @property
    def unit(self) -> str:
        return self.metric.unit

    @property
    def unit_text(self) -> str:
        return self.metric.unit_text

    @property
    def short(self) -> str:
        return self.checkin.short

    @property
    def standing(self) -> str:
        """Why nothing may be concluded from it, in a word; nothing where it was judged."""
        if not self.metric.may_be_judged:
            return DECLARED_NOT_JUDGED
        return "provisional" if self.provisional else ""

    @property
    def told(self) -> str:
        counted = f"{count_text(self.n, 'block')} in {count_text(self.sessions, 'session')}"
        told = f"{counted}, {self.fidelity}, revision {self.short}"
        if self.low is not None and self.high is not None:
            told = f"95 % interval {self.low:.4g} to {self.high:.4g} {self.unit}, {told}"
        told += f", {self.reached.told}" if self.reached else f", no limit: {self.no_limit}"
        return f"{told}, {self.standing}" if self.standing else told


class Material:
    """The public rows of the farm and the figures made of them, with every cross-reference resolved."""

    def __init__(self, engine: Engine, inventory: Mapping[str, Cluster], clusters: Mapping[str, ClusterView]) -> None:
        scope = queries.public_scope(inventory)
        self.clusters = {name: clusters[name] for name in sorted(scope.clusters)}
        self.analysis: Analysis | None = queries.newest_analysis(engine)
        self.sessions: list[Session] = queries.sessions(engine, scope)
        self.bundles: list[Bundle] = queries.bundles(engine, scope)
        self.probes: list[ProbeRow] = queries.probes(engine, scope)
        self.outcomes: list[OutcomeRow] = queries.outcomes(engine, scope)
        self.findings: list[Finding] = queries.findings(engine, scope)
        self.samples = _prepared(held_samples(engine, scope))
        self._inside = {row.revision: row for row in queries.inside_commits(engine, scope)}
        self._check_in_rows: list[CheckIn] = queries.check_ins(engine, scope)
        self._comparison_rows: list[ComparisonRow] = queries.comparisons(engine, scope)

    @cached_property
    def check_ins(self) -> list[CheckInView]:
        """Public check-ins, newest first within their repository."""
        return [
            CheckInView(
                row.repository,
                row.number,
                row.revision,
                row.commit,
                row.parent_revision,
                plain(row.subject_line),
                plain(row.author),
                row.committed_at,
                row.brought or 0,
            )
            for row in sorted(self._check_in_rows, key=lambda row: (row.repository, -row.number))
        ]

    @cached_property
    def _by_revision(self) -> dict[str, CheckInView]:
        known = {item.revision: item for item in self.check_ins}
        for session in self.sessions:
            for build in session.builds:
                if build["revision"] not in known:
                    known[build["revision"]] = self._no_check_in(session.repository, build)
        return known

    def _no_check_in(self, repository: str, build: Mapping[str, Any]) -> CheckInView:
        """A session's own build: a commit inside a merge, or what somebody asked for."""
        revision, commit = build["revision"], build["commit"]
        row = self._inside.get(revision)
        if row is None:
            return CheckInView(repository, None, revision, commit, None, plain(build["label"]), "", None)
        parent = revision_of({repository: row.parents[0]}) if row.parents else None
        subject, author = plain(row.subject_line), plain(row.author)
        return CheckInView(repository, None, revision, commit, parent, subject, author, row.committed_at)

    @property
    def revisions(self) -> list[CheckInView]:
        """All revisions that have a page: the check-ins, then what sessions measured besides."""
        return list(self._by_revision.values())

    def revision(self, revision: str) -> CheckInView | None:
        return self._by_revision.get(revision)

    @cached_property
    def judged(self) -> list[Judged]:
        """The newest analysis' comparisons, of revisions that pages may name."""
        return [self._judged(row) for row in self._comparison_rows if self.revision(row.revision)]

    def _judged(self, row: ComparisonRow) -> Judged:
        other = self.revision(row.other_revision) if row.other_revision else None
        if row.between == "clusters":
            against = f"the same build on {row.other_cluster}"
        else:
            against = f"its parent {other.short}" if other else "its parent"
        return Judged(row, MeasuredMetric.of(vars(row)), self._by_revision[row.revision].short, against)

    @cached_property
    def judged_check_ins(self) -> list[Judged]:
        """Revisions against their parents that got a verdict."""
        return [item for item in self.judged if item.row.between == "revisions" and not item.provisional]

    @cached_property
    def figures(self) -> list[Figure]:
        """Every raw figure, by metric, cluster and check-in."""
        judged = {
            (item.metric, item.row.cluster, revision)
            for item in self.judged_check_ins
            for revision in (item.row.revision, item.row.other_revision)
        }
        return self._figures(self.samples, judged)

    def sweeps_of(self, cells: Sequence[PlannedScenario]) -> list[Session]:
        """The sessions that asked exactly this: what another one measured of it was another hour's."""
        asked = canonical_json([to_data(cell) for cell in cells])
        swept = (session for session in self.sessions if session.purpose == "sweep")
        return [session for session in swept if canonical_json(session.scenarios) == asked]

    def figures_of_sessions(self, sessions: Sequence[Session]) -> list[Figure]:
        """What these sessions alone measured, not judged."""
        return self._figures(self.samples[self.samples["session"].isin({row.id for row in sessions})], frozenset())

    @cached_property
    def only_swept(self) -> frozenset[MeasuredMetric]:
        """What sweeps alone have measured: pages of check-ins do not list it."""
        keys = ["scenario", "version", "metric", "params", "unit"]
        swept, others = (
            {MeasuredMetric.of_record(row) for row in part[keys].drop_duplicates().to_dict("records")}
            for part in (
                self.samples[self.samples["purpose"] == "sweep"],
                self.samples[self.samples["purpose"] != "sweep"],
            )
        )
        return frozenset(swept - others)

    def _figures(
        self, samples: pd.DataFrame, judged: Collection[tuple[MeasuredMetric, str, str | None]]
    ) -> list[Figure]:
        fidelity = samples.groupby(["cluster", "revision"])["fidelity"].agg(
            lambda words: " and ".join(sorted(set(words)))
        )
        reached, reasons = reached_by(samples), reasons_of(samples)
        figures = []
        for row in summarise(samples).to_dict("records"):
            checkin = self.revision(row["revision"])
            if checkin is None:
                continue
            metric, key = MeasuredMetric.of_record(row), tuple(row[name] for name in (*SERIES, "revision"))
            figures.append(
                Figure(
                    metric,
                    row["cluster"],
                    checkin,
                    row["value"],
                    _number(row["low"]),
                    _number(row["high"]),
                    row["n"],
                    row["sessions"],
                    row["void"],
                    fidelity[row["cluster"], row["revision"]],
                    (metric, row["cluster"], row["revision"]) not in judged,
                    reached.get(key),
                    reasons.get(key, ""),
                )
            )
        return sorted(
            figures, key=lambda item: (item.metric, item.cluster, item.checkin.repository, item.checkin.number or 0)
        )

    @cached_property
    def _figure_at(self) -> dict[tuple[MeasuredMetric, str, str], Figure]:
        return {(item.metric, item.cluster, item.checkin.revision): item for item in self.figures}

    def figure(self, metric: MeasuredMetric, cluster: str, revision: str) -> Figure | None:
        return self._figure_at.get((metric, cluster, revision))

    def figures_of(self, metric: MeasuredMetric) -> list[Figure]:
        return self._figures_by_metric.get(metric, [])

    @cached_property
    def _figures_by_metric(self) -> dict[MeasuredMetric, list[Figure]]:
        found: dict[MeasuredMetric, list[Figure]] = {}
        for figure in self.figures:
            found.setdefault(figure.metric, []).append(figure)
        return found

    @cached_property
    def _samples_by_metric(self) -> dict[MeasuredMetric, pd.DataFrame]:
        keys = ["scenario", "version", "metric", "params", "unit"]
        return {
            MeasuredMetric.of_record(dict(zip(keys, key, strict=True))): group
            for key, group in self.samples.groupby(keys)
        }

    def samples_of(self, metric: MeasuredMetric) -> pd.DataFrame:
        return self._samples_by_metric[metric]

    def judged_at(self, metric: MeasuredMetric, cluster: str, revision: str) -> Judged | None:
        """The revision against its parent."""
        return self._judged_at.get((metric, cluster, revision))

    @cached_property
    def _judged_at(self) -> dict[tuple[MeasuredMetric, str, str], Judged]:
        found: dict[tuple[MeasuredMetric, str, str], Judged] = {}
        for item in sorted(self.judged, key=lambda item: item.weight):
            if item.row.between == "revisions":
                found[item.metric, item.row.cluster, item.row.revision] = item
        return found

    @cached_property
    def metrics(self) -> list[MeasuredMetric]:
        return sorted({item.metric for item in self.figures})

    @cached_property
    def noise(self) -> Mapping[NoisePlace, Noise]:
        """How noisy each metric is, where enough was measured to tell anything."""
        return noises(self.samples)

    def limits(self, cluster: str) -> list[KnownLimit]:
        """What is possible on the cluster in its present epoch."""
        return limits_of(row for row in self.probes if row.cluster == cluster)

    @cached_property
    def twins(self) -> frozenset[str]:
        """Revisions that are the canary deployed once more: noise is told from them, and no level."""
        return frozenset(session.revision for session in self.sessions if session.purpose == "a/a")

    @cached_property
    def answered(self) -> dict[str, Bundle]:
        """Session → its accepted bundle."""
        return {str(bundle.session): bundle for bundle in self.bundles if bundle.accepted}

    def measured_on(self, cluster: str) -> list[Session]:
        """The cluster's sessions that brought an accepted bundle, in the order in which they began."""
        answered = [row for row in self.sessions if row.cluster == cluster and row.id in self.answered]
        return sorted(answered, key=lambda row: (row.started_at.timestamp() if row.started_at else 0.0, row.id))

    def fidelity_of(self, cluster: str) -> str:
        """As concluded by the cluster's own bundles."""
        sessions = {session.id for session in self.sessions if session.cluster == cluster}
        words = {bundle.fidelity for name, bundle in self.answered.items() if name in sessions and bundle.fidelity}
        return " and ".join(sorted(words)) or "unknown"

    def newest_bundle(self, cluster: str) -> Bundle | None:
        """The accepted bundle that the cluster brought back last."""
        sessions = {session.id for session in self.sessions if session.cluster == cluster}
        found = [bundle for name, bundle in self.answered.items() if name in sessions]
        return max(found, key=lambda bundle: (bundle.received_at, bundle.sha256), default=None)

    def declared_facts(self, cluster: str) -> dict[str, str]:
        """The facts that open an epoch, as the newest bundle tells them."""
        bundle = self.newest_bundle(cluster)
        declared = (bundle.facts or {}).get("declared", {}) if bundle else {}
        return {plain(str(name)): plain(str(value)) for name, value in sorted(declared.items())}

    def has_session(self, session: str) -> bool:
        return any(row.id == session for row in self.sessions)

    def session_path(self, session: str) -> str:
        return f"sessions/{session}.html"

    @cached_property
    def as_of(self) -> datetime.datetime | None:
        """When the newest of all this came to be: pages carry no other time, so the same data give the same site."""
        times = [row.seen_at for row in self._check_in_rows] + [bundle.received_at for bundle in self.bundles]
        for session in self.sessions:
            times += [when for when in (session.created_at, session.started_at, session.finished_at) if when]
        if self.analysis:
            times.append(self.analysis.made_at)
        return max(times, default=None)


def _prepared(samples: pd.DataFrame) -> pd.DataFrame:
    return samples.astype({"valid": bool, "warm_up": bool, "version": int, "block": int, "value": float})


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
