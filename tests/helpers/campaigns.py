"""Synthetic campaigns in a real results database: the rows that ingest would have written, without bundles."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from farm.frames import Declared
from farm.inventory import Cluster, load_inventory
from farm.judge import judge
from farm.results import queries
from farm.results.database import open_database, transact
from farm.results.queries import EVERYTHING
from farm.results.tables import (
    Bundle,
    CheckIn,
    ComparisonRow,
    Finding,
    InsideCommit,
    OutcomeRow,
    SampleRow,
    Series,
    Session,
)
from farm.settings import CHECKOUT, FarmFile, Settings
from scenarios.contract import Metric
from scenarios.crossing import ResolvedBuild, digest_of, revision_of, to_data

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
PUBLIC = {"tenant": "local", "account": "local", "visibility": "public"}
PRIVATE = {"tenant": "local", "account": "acme", "visibility": "private"}
BLOCKS = (1, 2, 2)


@dataclass(frozen=True)
class Kind:
    """A series to draw: what is measured, around which level, with which scatter (CV)."""

    scenario: str
    metric: Metric
    level: float
    variation: float
    params: tuple[tuple[str, str], ...] = ()


def _lower(name: str, unit: str, delta: float, judged: bool = True) -> Metric:
    return Metric(name, unit, "lower", delta, name, judged)


KINDS: Sequence[Kind] = (
    Kind("boot", _lower("answer_ms", "ms", 0.1), 2470, 0.05),
    Kind("boot", _lower("qemu_cpu_s", "s", 0.1), 2.4, 0.03),
    Kind("boot", _lower("vmm_ms", "ms", 0.5, judged=False), 180, 0.05),
    *(
        Kind("cow_start", metric, level, variation, (("method", method),))
        for method in ("overlay", "reflink", "copy")
        for metric, level, variation in (
            (_lower("create_ms", "ms", 0.5), 15, 0.3),
            (_lower("answer_ms", "ms", 0.1), 2700, 0.08),
            (_lower("first_write_us", "us", 0.25), 300, 0.09),
        )
    ),
    Kind("chunked_upload", Metric("goodput_mib_s", "MiB/s", "higher", 0.3, "goodput"), 101, 0.2),
    Kind("live_migration", _lower("total_ms", "ms", 0.25), 878, 0.11),
)
DECLARED: Declared = {(kind.scenario, kind.metric.name): kind.metric for kind in KINDS}

# what a revision does to a series: a factor on its level
Effect = Callable[[Kind], float]


def commit_at(number: int) -> str:
    return f"{number:040x}"


def revision_at(number: int) -> str:
    return revision_of({"example": commit_at(number)})


_NUMBERS = {revision_at(number): number for number in range(1, 200)}


@dataclass
class SyntheticFarm:
    """A farm whose check-ins do what `effects` says, from that number on. Time passes with each session."""

    engine: Engine
    settings: Settings
    inventory: Mapping[str, Cluster]
    effects: Mapping[int, Effect] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    now: datetime.datetime = START
    series: dict[tuple[str, Kind], int] = field(default_factory=dict)
    host_factor: float = 1.0  # the cluster itself becomes this much slower
    declared_facts: dict[str, str] = field(default_factory=lambda: {"kernel": "6.1.0"})
    lock: str = f"idna==3.9 --hash=sha256:{'1' * 64}\n"
    cores: str = "unknown"  # of its hosts
    like: dict[int, int] = field(default_factory=dict)  # a commit inside a merge → the check-in that it behaves like

    def see_check_ins(self, count: int) -> None:
        self._add(*(_check_in(number) for number in range(1, count + 1)))

    def bring(self, merge: int, parents: Mapping[int, Sequence[int]]) -> None:
        """The check-in is a merge of these commits, each with its parents."""
        self._add(*(_inside_commit(merge, number, parents[number]) for number in parents))

    def ask(
        self,
        campaign: str,
        numbers: Sequence[int],
        *,
        clusters: Sequence[str] = ("acorn", "birch"),
        owner: Mapping[str, str] = PUBLIC,
        canary: int = 1,
        blocks: Sequence[int] = BLOCKS,
    ) -> list[Session]:
        """Queue a campaign: two numbers are a subject and its base, more are a window."""
        window = len(numbers) > 2
        roles = {number: ["window"] if window else ["parent"] for number in numbers}
        if not window:
            roles[numbers[-1]] = ["subject"]
        roles.setdefault(canary, []).append("canary")
        builds = [
            {"revision": revision_at(number), "label": str(number), "roles": its, "commit": revision_at(number)[:40]}
            for number, its in roles.items()
        ]
        sessions = [
            _session(campaign, ordinal, cluster, count, builds, numbers, window, created_at=self.now, **owner)
            for ordinal, count in enumerate(blocks)
            for cluster in clusters
        ]
        self._add(*sessions)
        return sessions

    def measure(self, session: Session, *, broken: Sequence[int] = (), fault: str = "stack") -> None:
        """One session to its end; `broken` check-ins cannot boot, and whose fault that is."""
        numbers = [_NUMBERS[build["revision"]] for build in session.builds]
        bad = {number for number in numbers if number in broken}
        rows: list[Any] = [self._bundle(session)]
        for block in range(session.blocks):
            for kind in KINDS:
                mood = np.exp(self.rng.normal(0, 0.2)) * self.host_factor
                for order, number in enumerate(numbers):
                    if kind.scenario == "boot" and number in bad:
                        continue
                    value = self._draw(kind, number) * mood
                    rows.append(self._sample(session, kind, block, order, number, value))
            rows += [_outcome(session, block, number, fault if number in bad else None) for number in numbers]
        self.end(session, "done")
        self._add(*rows)

    def end(self, session: Session, state: str) -> None:
        """The session's state in the database becomes `state`; an hour passes."""
        self.now += datetime.timedelta(hours=1)
        transact(self.engine, lambda transaction: setattr(transaction.get(Session, session.id), "state", state))

    def judge(self) -> bool:
        return judge(self.engine, self.settings, self.inventory, self.now, DECLARED)

    def comparisons(self, **wanted: object) -> list[ComparisonRow]:
        rows = queries.comparisons(self.engine, EVERYTHING)
        return [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]

    def findings(self) -> list[Finding]:
        return queries.findings(self.engine, EVERYTHING)

    def _draw(self, kind: Kind, number: int) -> float:
        behaves = self.like.get(number, number)
        factor = float(np.prod([effect(kind) for since, effect in self.effects.items() if behaves >= since]))
        return kind.level * factor * float(np.exp(self.rng.normal(0, kind.variation)))

    def _sample(self, session: Session, kind: Kind, block: int, order: int, number: int, value: float) -> SampleRow:
        return SampleRow(
            session=session.id,
            series=self._series_id(session.cluster, kind),
            block=block,
            round=0,
            attempt=1,
            order=order,
            revision=revision_at(number),
            value=value,
            hosts={"host": "h1"},
            warm_up=False,
            valid=True,
            void_reason=None,
            taken_at=self.now,
            **owner_columns(session),
        )

    def _series_id(self, cluster: str, kind: Kind) -> int:
        if (cluster, kind) not in self.series:
            self.series[cluster, kind] = len(self.series) + 1
            self._add(_series(self.series[cluster, kind], cluster, kind))
        return self.series[cluster, kind]

    def built(self, revision: str) -> ResolvedBuild:
        return ResolvedBuild(revision, self.lock, "2" * 64, {}, "cpython-311-linux-x86_64")

    def _bundle(self, session: Session) -> Bundle:
        return Bundle(
            sha256=digest_of(["bundle", session.id]),
            session=session.id,
            attempt=1,
            accepted=True,
            manifest={"builds": [to_data(self.built(str(one["revision"]))) for one in session.builds]},
            facts={"declared": dict(self.declared_facts), "hosts": {"h1": {"cores": self.cores}}},
            fidelity="emulated",
            received_at=self.now,
            **owner_columns(session),
        )

    def _add(self, *rows: Any) -> None:
        transact(self.engine, lambda transaction: transaction.add_all(rows))


def build_synthetic_farm(home: Path, effects: Mapping[int, Effect] | None = None, seed: int = 1) -> SyntheticFarm:
    settings = Settings(home, None, FarmFile())
    inventory = load_inventory(CHECKOUT / "inventory")
    engine = open_database(settings.database_url)
    return SyntheticFarm(engine, settings, inventory, effects or {}, np.random.default_rng(seed))


def owner_columns(session: Session) -> dict[str, str]:
    return {"tenant": session.tenant, "account": session.account, "visibility": session.visibility}


def _check_in(number: int) -> CheckIn:
    return CheckIn(
        repository="example",
        number=number,
        revision=revision_at(number),
        commit=commit_at(number),
        parent_revision=revision_at(number - 1) if number > 1 else None,
        subject_line=f"Change {number}",
        author="somebody",
        committed_at=START,
        seen_at=START,
        **PUBLIC,
    )


def _inside_commit(merge: int, number: int, parents: Sequence[int]) -> InsideCommit:
    return InsideCommit(
        repository="example",
        merge=revision_at(merge),
        revision=revision_at(number),
        commit=commit_at(number),
        parents=[commit_at(parent) for parent in parents],
        subject_line=f"Inside {number}",
        author="somebody",
        committed_at=START,
        **PUBLIC,
    )


def _session(
    campaign: str,
    ordinal: int,
    cluster: str,
    blocks: int,
    builds: list[dict[str, Any]],
    numbers: Sequence[int],
    window: bool,
    **columns: Any,
) -> Session:
    key = digest_of([campaign, ordinal, cluster])
    return Session(
        id=key[:16],
        key=key,
        purpose="history" if window else "check-in",
        campaign=campaign,
        ordinal=ordinal,
        repository="example",
        revision=revision_at(numbers[-1]),
        base_revision=revision_at(numbers[0]),
        cluster=cluster,
        blocks=blocks,
        rounds=1,
        builds=builds,
        priority=20,
        state="queued",
        **columns,
    )


def _series(identity: int, cluster: str, kind: Kind) -> Series:
    return Series(
        id=identity,
        key=digest_of([cluster, kind.scenario, kind.metric.name, kind.params]),
        stack="example",
        cluster=cluster,
        scenario=kind.scenario,
        version=1,
        metric=kind.metric.name,
        unit=kind.metric.unit,
        params=dict(kind.params),
        placement="one host",
        guest="g",
        canary="c",
        epoch="e",
        **PUBLIC,
    )


def _outcome(session: Session, block: int, number: int, fault: str | None) -> OutcomeRow:
    return OutcomeRow(
        session=session.id,
        cluster=session.cluster,
        revision=revision_at(number),
        scenario="boot",
        version=1,
        params={},
        block=block,
        round=0,
        outcome="failed" if fault else "measured",
        fault=fault,
        reason="no answer from the guest within 60 s" if fault else None,
        evidence=[],
        **owner_columns(session),
    )
