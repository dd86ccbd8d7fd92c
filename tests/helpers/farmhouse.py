"""A farm for tests: a home of its own, the inventory of the checkout with real keys, and a real database."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from farm.inventory import Cluster, load_inventory
from farm.results.database import open_database, reading, transact
from farm.results.ingest import IngestResult, ingest
from farm.results.tables import Base, Bundle, OutcomeRow, ProbeRow, SampleRow, Series, Session
from farm.settings import CHECKOUT, FarmFile, Settings
from scenarios.crossing import Plan, digest_of, to_data
from tests.helpers.bundles import DECLARED, Draft, make_key

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Farmhouse:
    settings: Settings
    inventory: dict[str, Cluster]
    engine: Engine

    @property
    def incoming(self) -> Path:
        return self.settings.home / "incoming"

    def key(self, cluster: str = "acorn") -> Path:
        return self.settings.home / "keys" / cluster

    def issue(self, plan: Plan, **columns: Any) -> Plan:
        """Put a running session into the database, whose latest attempt has this plan."""
        transact(self.engine, lambda transaction: transaction.add(a_session(plan, **columns)))
        return plan

    def ingest(self, file: Path, now: datetime.datetime = NOON) -> IngestResult:
        return ingest(self.engine, self.settings, self.inventory, file, now, DECLARED)

    def pack(self, draft: Draft, cluster: str = "acorn", name: str = "bundle.tar.gz") -> Path:
        return draft.pack(self.key(cluster), self.incoming / name)

    def take_in(self, plan: Plan, draft: Draft | None = None, **columns: Any) -> IngestResult:
        """One session from its plan to its accepted bundle."""
        self.issue(plan, **columns)
        name = f"{plan.session}-{plan.attempt}.tar.gz"
        result = self.ingest(self.pack(draft or Draft(plan), plan.cluster.name, name))
        assert result.accepted, result.reason
        return result

    def count(self, table: type[Base]) -> int:
        return len(self._rows_of(table))

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that ingest writes, without the numbers that the database gives out."""
        tables = (Session, Bundle, Series, SampleRow, OutcomeRow, ProbeRow)
        return {table.__tablename__: self._rows_of(table) for table in tables}

    def _rows_of(self, table: type[Base]) -> list[dict[str, Any]]:
        with reading(self.engine) as transaction:
            found = transaction.execute(select(table.__table__)).mappings()
            rows = [{str(key): value for key, value in row.items() if key != "id"} for row in found]
            if table is SampleRow:
                keys = {row.id: row.key for row in transaction.scalars(select(Series))}
                rows = [{**row, "series": keys[row["series"]]} for row in rows]
        return sorted(rows, key=repr)


def build_farmhouse(home: Path, url: str | None = None) -> Farmhouse:
    inventory = load_inventory(CHECKOUT / "inventory")
    for name in inventory:
        make_key(home / "keys" / name)
    (home / "incoming").mkdir()
    settings = Settings(home, None, FarmFile(database=url or ""))
    return Farmhouse(settings, inventory, open_database(settings.database_url))


def a_session(plan: Plan, **columns: Any) -> Session:
    """The row of a running session with this plan; `columns` override."""
    given = {
        "id": plan.session,
        "key": digest_of(["key", plan.session]),
        "purpose": "check-in",
        "campaign": "check-in 1",
        "ordinal": 0,
        "repository": "example",
        "revision": plan.builds[0].revision,
        "base_revision": None,
        "cluster": plan.cluster.name,
        "blocks": plan.blocks,
        "rounds": plan.rounds,
        "builds": [to_data(build) for build in plan.builds],
        "priority": 0,
        "state": "running",
        "attempt": plan.attempt,
        "plan": to_data(plan),
        "plan_digest": digest_of(plan),
        "created_at": NOON,
        "tenant": "local",
        "account": "local",
        "visibility": "public",
    }
    return Session(**{**given, **columns})
