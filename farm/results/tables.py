"""The farm's tables. Every row that could ever be shown carries tenant, account and visibility.

Times are timezone-aware UTC. `farm/results/migrations` makes and changes these tables; nothing else does.
"""

import datetime
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import JSON, ForeignKey, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime, TypeDecorator

from scenarios.probes import ProbeName

SessionState = Literal["queued", "reserved", "running", "done", "failed", "cancelled"]
Purpose = Literal["check-in", "history", "culprit", "a/a", "comparison", "on demand", "sweep"]
Visibility = Literal["public", "private"]
FindingKind = Literal["product", "harness", "environment"]
FindingState = Literal["watch", "confirmed"]


class UtcTime(TypeDecorator[datetime.datetime]):
    """A point in time; SQLite forgets the zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Any) -> datetime.datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("times must carry a zone")
        return None if value is None else value.astimezone(datetime.UTC)

    def process_result_value(self, value: datetime.datetime | None, dialect: Any) -> datetime.datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


class Base(DeclarativeBase):
    # constraints have names, so that later migrations can speak of them
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, datetime.datetime: UtcTime}


class Owned:
    """Who a row belongs to and who may see it."""

    tenant: Mapped[str] = mapped_column(String(64))
    account: Mapped[str] = mapped_column(String(64))
    visibility: Mapped[str] = mapped_column(String(16))


@dataclass(frozen=True)
class Owner:
    """The values of `Owned` for rows that are made together: `**owner.columns`."""

    tenant: str
    account: str
    visibility: Visibility = "public"

    @property
    def columns(self) -> dict[str, str]:
        return {"tenant": self.tenant, "account": self.account, "visibility": self.visibility}


class CheckIn(Owned, Base):
    """One step of the first-parent history of a watched branch, numbered when seen."""

    __tablename__ = "check_in"
    __table_args__ = (UniqueConstraint("repository", "number"), UniqueConstraint("repository", "revision"))

    id: Mapped[int] = mapped_column(primary_key=True)
    repository: Mapped[str] = mapped_column(String(64))
    number: Mapped[int]
    revision: Mapped[str] = mapped_column(String(64), index=True)
    commit: Mapped[str] = mapped_column(String(64))
    parent_revision: Mapped[str | None] = mapped_column(String(64))
    subject_line: Mapped[str] = mapped_column(String(200))
    author: Mapped[str] = mapped_column(String(200))
    committed_at: Mapped[datetime.datetime]
    seen_at: Mapped[datetime.datetime]
    brought: Mapped[int | None]  # commits that came with a merge, of whatever number; None where nobody counted


class InsideCommit(Owned, Base):
    """A commit that a merge among the check-ins brought; measured only when a search for a culprit enters the merge."""

    __tablename__ = "inside_commit"
    __table_args__ = (UniqueConstraint("repository", "merge", "commit"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    repository: Mapped[str] = mapped_column(String(64))
    merge: Mapped[str] = mapped_column(String(64), index=True)  # the check-in's revision
    revision: Mapped[str] = mapped_column(String(64), index=True)
    commit: Mapped[str] = mapped_column(String(64))
    parents: Mapped[list[Any]]  # their commits, first parent first
    subject_line: Mapped[str] = mapped_column(String(200))
    author: Mapped[str] = mapped_column(String(200))
    committed_at: Mapped[datetime.datetime]


class Session(Owned, Base):
    """A session asked for: the farm's queue and its record. `key` makes asking twice change nothing."""

    __tablename__ = "session"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    purpose: Mapped[str] = mapped_column(String(16))
    campaign: Mapped[str] = mapped_column(String(64), index=True)
    ordinal: Mapped[int]
    repository: Mapped[str] = mapped_column(String(64))
    revision: Mapped[str] = mapped_column(String(64))
    base_revision: Mapped[str | None] = mapped_column(String(64))
    cluster: Mapped[str] = mapped_column(String(64), index=True)
    blocks: Mapped[int]
    rounds: Mapped[int]
    builds: Mapped[list[Any]]  # of crossing.PlannedBuild
    scenarios: Mapped[list[Any] | None]  # of crossing.PlannedScenario; None: as the settings say
    priority: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # attempts that went wrong: too many end the session
    top_up: Mapped[bool] = mapped_column(default=False)  # makes up for blocks that the campaign lost
    build_request: Mapped[int | None]  # Buildbot's, of the latest attempt
    plan: Mapped[dict[str, Any] | None]  # crossing.Plan of the latest attempt
    plan_digest: Mapped[str | None] = mapped_column(String(64))
    progress: Mapped[dict[str, Any] | None]  # crossing.Progress
    message: Mapped[str | None]  # why it failed or was cancelled, one line
    fault: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime.datetime]
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class Bundle(Owned, Base):
    """What a session brought back, accepted or rejected whole. `sha256` is of the uploaded file."""

    __tablename__ = "bundle"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    session: Mapped[str | None] = mapped_column(String(32), index=True)
    attempt: Mapped[int | None]
    accepted: Mapped[bool]
    reason: Mapped[str | None]
    manifest: Mapped[dict[str, Any] | None]
    facts: Mapped[dict[str, Any] | None]
    fidelity: Mapped[str | None] = mapped_column(String(16))
    received_at: Mapped[datetime.datetime]


class Build(Owned, Base):
    """What a revision became on one platform, as the first session told that built it (crossing.ResolvedBuild)."""

    __tablename__ = "build"
    __table_args__ = (UniqueConstraint("tenant", "account", "revision", "platform", "surroundings"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision: Mapped[str] = mapped_column(String(64), index=True)
    platform: Mapped[str] = mapped_column(String(64))
    surroundings: Mapped[str] = mapped_column(String(64))  # digest of the stack's recipe and lock, where the farm's
    digest: Mapped[str] = mapped_column(String(64))
    resolved: Mapped[dict[str, Any]]
    session: Mapped[str] = mapped_column(ForeignKey("session.id"))
    built_at: Mapped[datetime.datetime]


class Series(Owned, Base):
    """One metric on one cluster over check-ins, under the same declared facts (an epoch)."""

    __tablename__ = "series"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)  # digest of all that follows
    stack: Mapped[str] = mapped_column(String(64))  # the watched repository's name
    cluster: Mapped[str] = mapped_column(String(64), index=True)
    scenario: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    metric: Mapped[str] = mapped_column(String(64))
    unit: Mapped[str] = mapped_column(String(16))
    params: Mapped[dict[str, Any]]
    placement: Mapped[str] = mapped_column(String(64))  # class of hosts by role, such as "same host"
    guest: Mapped[str] = mapped_column(String(64))  # digest of the canary's guest image, see ingest
    canary: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[str] = mapped_column(String(64))  # digest of the declared facts


class SampleRow(Owned, Base):
    """One measured value with all that identifies it; void ones are kept and counted, and in no figure."""

    __tablename__ = "sample"
    __table_args__ = (
        Index("sample_of_revision", "revision", "series"),
        UniqueConstraint("session", "attempt", "block", "round", "warm_up", "revision", "series"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[str] = mapped_column(ForeignKey("session.id"), index=True)
    series: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    block: Mapped[int]
    round: Mapped[int]
    attempt: Mapped[int]
    order: Mapped[int]
    revision: Mapped[str] = mapped_column(String(64))
    value: Mapped[float]
    hosts: Mapped[dict[str, Any]]
    warm_up: Mapped[bool]
    valid: Mapped[bool]
    void_reason: Mapped[str | None]
    taken_at: Mapped[datetime.datetime]


class OutcomeRow(Owned, Base):
    """What came of one cell: measured, unsupported, not applicable or failed, and whose fault."""

    __tablename__ = "outcome"

    id: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[str] = mapped_column(ForeignKey("session.id"), index=True)
    cluster: Mapped[str] = mapped_column(String(64))
    revision: Mapped[str] = mapped_column(String(64), index=True)
    scenario: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    params: Mapped[dict[str, Any]]
    block: Mapped[int]
    round: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))
    fault: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None]
    evidence: Mapped[list[Any]]


class ProbeRow(Owned, Base):
    """One physical limit as a session found it between its blocks, in the unit of its kind (scenarios.probes)."""

    __tablename__ = "probe"
    __table_args__ = (
        UniqueConstraint("session", "kind", "at", "to", "block"),
        Index("probe_of_cluster", "cluster", "epoch"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[str] = mapped_column(ForeignKey("session.id"), index=True)
    cluster: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[str] = mapped_column(String(64))
    kind: Mapped[ProbeName] = mapped_column(String(16))
    at: Mapped[str] = mapped_column(String(64))
    to: Mapped[str | None] = mapped_column(String(64))  # the other end of a link
    value: Mapped[float]
    block: Mapped[int]  # how many were measured before it
    taken_at: Mapped[datetime.datetime]


class Analysis(Base):
    """One run of the judgement. Superseded, never rewritten: pages read the newest of each scope."""

    __tablename__ = "analysis"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]  # of the judging code
    cause: Mapped[str] = mapped_column(String(64))  # digest of the bundles that went in
    made_at: Mapped[datetime.datetime]


class ComparisonRow(Owned, Base):
    """A judged difference: revision against its parent on one cluster, or one cluster against another."""

    __tablename__ = "comparison"

    id: Mapped[int] = mapped_column(primary_key=True)
    analysis: Mapped[int] = mapped_column(ForeignKey("analysis.id"), index=True)
    between: Mapped[str] = mapped_column(String(16))  # "revisions" or "clusters"
    cluster: Mapped[str] = mapped_column(String(64))
    other_cluster: Mapped[str | None] = mapped_column(String(64))  # the one compared against
    repository: Mapped[str] = mapped_column(String(64))
    revision: Mapped[str] = mapped_column(String(64), index=True)
    other_revision: Mapped[str | None] = mapped_column(String(64))  # the parent
    scenario: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    metric: Mapped[str] = mapped_column(String(64))
    unit: Mapped[str] = mapped_column(String(16))
    params: Mapped[dict[str, Any]]
    level: Mapped[float | None]  # between clusters: of `cluster`, in the matched sessions that the ratio is of
    other_level: Mapped[float | None]  # of `other_cluster`, in the same; their quotient is the ratio
    ratio: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]
    replication: Mapped[str] = mapped_column(String(16))  # "block" or "session"
    sessions: Mapped[int]
    p_value: Mapped[float | None]
    p_adjusted: Mapped[float | None]
    delta: Mapped[float]
    verdict: Mapped[str] = mapped_column(String(32))  # or "not judged"
    fidelity: Mapped[str] = mapped_column(String(16))


class Finding(Owned, Base):
    """A change with its evidence and state. One row for one check-in, cluster and kind; `metrics` says which.

    A later analysis writes a row of its own under the same `key`; `found_at` stays the first one's.
    """

    __tablename__ = "finding"
    __table_args__ = (UniqueConstraint("analysis", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    cluster: Mapped[str] = mapped_column(String(64))
    repository: Mapped[str] = mapped_column(String(64))
    revision: Mapped[str] = mapped_column(String(64), index=True)
    last_good: Mapped[str | None] = mapped_column(String(64))
    direction: Mapped[str] = mapped_column(String(16))  # "slower", "faster", "both", "broken", "void"
    metrics: Mapped[
        list[Any]
    ]  # [{scenario, version, metric, unit, params, ratio, low, high, n, replication, direction}]
    inside: Mapped[dict[str, Any] | None]  # of a merge: how far the search among its commits is, see farm.culprits
    analysis: Mapped[int] = mapped_column(ForeignKey("analysis.id"))
    found_at: Mapped[datetime.datetime]


class Reservation(Owned, Base):
    """A promise of one resource to one holder for a time. Rows of one `booking` were made or refused together."""

    __tablename__ = "reservation"
    __table_args__ = (Index("reservation_of_resource", "resource", "until"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    booking: Mapped[str] = mapped_column(String(32), index=True)
    resource: Mapped[str] = mapped_column(String(128))  # "machine:this", "host:acorn/h1", "storage:acorn"
    holder: Mapped[str] = mapped_column(String(128))  # "session:<id>", "user:<account>"
    token: Mapped[int]  # grows with every booking: the fencing token
    since: Mapped[datetime.datetime]
    until: Mapped[datetime.datetime]
    released_at: Mapped[datetime.datetime | None]
