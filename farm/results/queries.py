"""The read side: what analysis, command line and reports may know of the results.

Every function takes a `Scope`. `EVERYTHING` is for the farm's own work; what is published is read with
`public_scope(...)`, and `_visible` is the one place that says what that is. Rows come back detached: read
them, never change them.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Engine, Select, func, select, true
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.orm import Session as Transaction

from farm.inventory import Cluster
from farm.results.database import reading
from farm.results.tables import (
    Analysis,
    Bundle,
    CheckIn,
    ComparisonRow,
    Finding,
    InsideCommit,
    OutcomeRow,
    Owned,
    ProbeRow,
    SampleRow,
    Series,
    Session,
)
from scenarios.crossing import canonical_json, digest_of

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row", bound=Owned)

SAMPLE_COLUMNS = (
    *("session", "attempt", "block", "round", "order", "revision", "roles", "label"),
    *("repository", "cluster", "purpose", "campaign", "ordinal"),
    *("series", "scenario", "version", "metric", "unit", "params", "placement", "guest", "canary", "epoch"),
    *("value", "valid", "void_reason", "warm_up", "hosts", "taken_at", "fidelity"),
)

_SAMPLE_DATA = (
    *(getattr(SampleRow, name) for name in ("session", "attempt", "block", "round", "order", "revision", "series")),
    *(getattr(SampleRow, name) for name in ("value", "valid", "void_reason", "warm_up", "hosts", "taken_at")),
    *(getattr(Session, name) for name in ("repository", "cluster", "purpose", "campaign", "ordinal")),
    *(getattr(Series, name) for name in ("scenario", "version", "metric", "unit", "params", "placement")),
    *(getattr(Series, name) for name in ("guest", "canary", "epoch")),
    Bundle.fidelity,
)


@dataclasses.dataclass(frozen=True)
class Scope:
    """Which rows a reader may see. `clusters` are those whose donors permit publication."""

    public_only: bool
    clusters: frozenset[str] = frozenset()


EVERYTHING = Scope(public_only=False)


def public_scope(inventory: Mapping[str, Cluster]) -> Scope:
    """What anybody may see: public rows of clusters that permit publication."""
    return Scope(True, frozenset(name for name, cluster in inventory.items() if cluster.publish))


def _visible(scope: Scope, table: type[Owned], *clusters: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    """The condition that selects what `scope` may see of `table`, whose rows speak of `clusters`."""
    if not scope.public_only:
        return true()
    condition: ColumnElement[bool] = table.visibility == "public"
    for cluster in clusters:
        condition &= cluster.in_(scope.clusters) | cluster.is_(None)
    return condition


def check_ins(engine: Engine, scope: Scope, *, repository: str | None = None) -> list[CheckIn]:
    """Check-ins by repository and number, oldest first."""
    query = select(CheckIn).where(_visible(scope, CheckIn)).order_by(CheckIn.repository, CheckIn.number)
    return _rows(engine, query.where(CheckIn.repository == repository) if repository else query)


def inside_commits(engine: Engine, scope: Scope) -> list[InsideCommit]:
    """What merges among the check-ins brought, newest first within each."""
    return _rows(engine, select(InsideCommit).where(_visible(scope, InsideCommit)).order_by(InsideCommit.id))


def sessions(
    engine: Engine,
    scope: Scope,
    *,
    repository: str | None = None,
    cluster: str | None = None,
    states: Collection[str] | None = None,
) -> list[Session]:
    """Sessions in the order they were asked for, whatever their state."""
    query = select(Session).where(_visible(scope, Session, Session.cluster))
    query = _narrow(query, {Session.repository: repository, Session.cluster: cluster})
    if states is not None:
        query = query.where(Session.state.in_(states))
    query = query.order_by(Session.created_at, Session.campaign, Session.ordinal, Session.cluster)
    return _rows(engine, query)


def session(engine: Engine, scope: Scope, identity: str) -> Session | None:
    """One session by its id; None when there is none, or none to be seen."""
    query = select(Session).where(_visible(scope, Session, Session.cluster), Session.id == identity)
    return next(iter(_rows(engine, query)), None)


def samples(
    engine: Engine,
    scope: Scope,
    *,
    repository: str | None = None,
    cluster: str | None = None,
    scenario: str | None = None,
    metric: str | None = None,
    session: str | None = None,
    revision: str | None = None,
) -> "pd.DataFrame":
    """One row per sample in the order they were taken, void and warm-up ones included.

    Columns are SAMPLE_COLUMNS: `roles` is a tuple, the revision's roles in that session; `params` and `hosts`
    are canonical JSON text, so that one may group by them; `value` is in `unit`; `taken_at` is UTC; `order`
    is the revision's place in its block. Samples may be compared with each other within one `series`.
    """
    import pandas as pd  # here: who asks for rows alone need not wait for it

    query = (
        select(*_SAMPLE_DATA)
        .join(Series, SampleRow.series == Series.id)
        .join(Session, SampleRow.session == Session.id)
        .join(
            Bundle,
            (Bundle.session == SampleRow.session) & (Bundle.attempt == SampleRow.attempt) & Bundle.accepted,
        )
        .where(_visible(scope, SampleRow, Series.cluster), _visible(scope, Session))
        .order_by(SampleRow.taken_at, SampleRow.id)
    )
    wanted: dict[Any, str | None] = {
        Session.repository: repository,
        Series.cluster: cluster,
        Series.scenario: scenario,
        Series.metric: metric,
        SampleRow.session: session,
        SampleRow.revision: revision,
    }
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    with reading(engine) as transaction:
        found = transaction.execute(query).mappings().all()
        builds = _builds(transaction, query.with_only_columns(SampleRow.session).order_by(None))
    records = [_sample_record(row, builds[row["session"]].get(row["revision"], {})) for row in found]
    return pd.DataFrame(records, columns=list(SAMPLE_COLUMNS))


def _builds(transaction: Transaction, identities: Select[str]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Per session and revision, what the session planned to deploy."""
    found = transaction.execute(select(Session.id, Session.builds).where(Session.id.in_(identities)))
    return {row.id: {build["revision"]: build for build in row.builds} for row in found}


def _sample_record(row: Mapping[Any, Any], build: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "roles": tuple(build.get("roles", ())),
        "label": build.get("label", ""),
        "params": canonical_json(row["params"]),
        "hosts": canonical_json(row["hosts"]),
    }


def outcomes(
    engine: Engine,
    scope: Scope,
    *,
    cluster: str | None = None,
    session: str | None = None,
    revision: str | None = None,
) -> list[OutcomeRow]:
    """What came of every cell, in the order of sessions, blocks and rounds."""
    query = select(OutcomeRow).where(_visible(scope, OutcomeRow, OutcomeRow.cluster)).order_by(OutcomeRow.id)
    wanted: dict[Any, str | None] = {
        OutcomeRow.cluster: cluster,
        OutcomeRow.session: session,
        OutcomeRow.revision: revision,
    }
    return _rows(engine, _narrow(query, wanted))


def probes(engine: Engine, scope: Scope) -> list[ProbeRow]:
    """Physical limits as accepted bundles brought them, in the order in which they were found."""
    query = select(ProbeRow).where(_visible(scope, ProbeRow, ProbeRow.cluster))
    return _rows(engine, query.order_by(ProbeRow.taken_at, ProbeRow.id))


def bundles(engine: Engine, scope: Scope, *, session: str | None = None) -> list[Bundle]:
    """Bundles as received, rejected ones included; those of no known session are never public."""
    query = select(Bundle).outerjoin(Session, Bundle.session == Session.id)
    query = query.where(_visible(scope, Bundle, Session.cluster))
    if scope.public_only:
        query = query.where(Session.id.is_not(None))
    query = _narrow(query, {Bundle.session: session})
    return _rows(engine, query.order_by(Bundle.received_at, Bundle.sha256))


def newest_analysis(engine: Engine) -> Analysis | None:
    """The analysis that stands; None before the first."""
    with reading(engine) as transaction:
        return transaction.scalars(select(Analysis).order_by(Analysis.id.desc()).limit(1)).first()


def comparisons(engine: Engine, scope: Scope) -> list[ComparisonRow]:
    """All comparisons of the newest analysis, as it wrote them."""
    visible = _visible(scope, ComparisonRow, ComparisonRow.cluster, ComparisonRow.other_cluster)
    query = select(ComparisonRow).where(visible, ComparisonRow.analysis == _newest())
    return _rows(engine, query.order_by(ComparisonRow.id))


def findings(engine: Engine, scope: Scope) -> list[Finding]:
    """All findings of the newest analysis, those found last first."""
    query = select(Finding).where(_visible(scope, Finding, Finding.cluster), Finding.analysis == _newest())
    return _rows(engine, query.order_by(Finding.found_at.desc(), Finding.id))


def cause_digest(engine: Engine) -> str:
    """Digest of all accepted bundles: what an analysis is made of.

    Read it before the samples: a bundle that comes in between then makes another analysis, and is not missed.
    """
    with reading(engine) as transaction:
        accepted = transaction.scalars(select(Bundle.sha256).where(Bundle.accepted).order_by(Bundle.sha256))
        return digest_of(list(accepted))


def publication_digest(engine: Engine, scope: Scope) -> str:
    """Digest of whatever the public pages show: check-ins, sessions' states, bundles and the newest analysis.

    The progress inside a running session is not in it: pages need not be written anew for that. Asked every
    second on machines that measure, so it reads the columns that count and leaves plans and manifests alone.
    """
    parts = {
        "check-ins": select(CheckIn.repository, CheckIn.number, CheckIn.revision)
        .where(_visible(scope, CheckIn))
        .order_by(CheckIn.repository, CheckIn.number),
        "sessions": select(Session.id, Session.state, Session.attempt)
        .where(_visible(scope, Session, Session.cluster))
        .order_by(Session.id),
        "bundles": select(Bundle.sha256, Bundle.accepted)
        .join(Session, Bundle.session == Session.id)
        .where(_visible(scope, Bundle, Session.cluster))
        .order_by(Bundle.sha256),
        "analysis": select(func.max(Analysis.id)),
    }
    with reading(engine) as transaction:
        return digest_of({name: [list(row) for row in transaction.execute(query)] for name, query in parts.items()})


def _newest() -> Any:
    return select(func.max(Analysis.id)).scalar_subquery()


def _narrow(query: Select[Any], wanted: Mapping[Any, str | None]) -> Select[Any]:
    return query.where(*(column == value for column, value in wanted.items() if value is not None))


def _rows(engine: Engine, query: Select[Any]) -> list[Any]:
    with reading(engine) as transaction:
        return list(transaction.scalars(query))
