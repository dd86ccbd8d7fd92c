"""The results database: opened by URL, brought to the newest schema, read and written in transactions.

SQLite and PostgreSQL are the same to all callers. On SQLite a writing transaction takes the write lock at
its beginning (`BEGIN IMMEDIATE`): one that starts as a reader and writes later fails at once when somebody
else wrote in between, whatever the busy timeout. On PostgreSQL it is serialisable and tried again after a
conflict.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_S = 30.0
_RETRY_TIMEOUT_S = 30.0
_BACKENDS = ("sqlite", "postgresql")
_CONFLICTS = ("40001", "40P01")  # PostgreSQL: serialisation failure, deadlock
_MIGRATION_LOCK = 0x6661726D  # "farm": any number, the same in all our processes
_WRITES = "farm_writes"


class DatabaseUnusable(RuntimeError):
    """One line: the database cannot be opened, and what to do."""


def open_database(url: str) -> Engine:
    """Open the database and bring its schema up to date; several processes may do so at once.

    A migration happens whole or not at all. Raises DatabaseUnusable with one line.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in _BACKENDS:
            raise DatabaseUnusable(
                f"database: the URL cannot be used: {parsed.drivername}:// is not supported, write postgresql://… or "
                "sqlite:///FILE"
            )
        engine = _engine(url)
        if parsed.get_backend_name() == "sqlite":
            _use_write_ahead_log(engine)
        _migrate(engine)
    except ImportError as error:
        raise DatabaseUnusable(
            f"database: the URL cannot be used: {_first_line(error)}: this driver is yours to install into the venv"
        ) from None
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseUnusable(f"database: the URL cannot be used: {_first_line(error)}") from None
    except (DatabaseError, sqlite3.DatabaseError) as error:
        why = _first_line(getattr(error, "orig", None) or error)
        raise DatabaseUnusable(f"database {parsed.render_as_string()}: {why}") from None
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A read-only session on one snapshot: what others commit meanwhile is not seen."""
    snapshot = engine
    if engine.dialect.name != "sqlite":
        snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(snapshot, expire_on_commit=False) as session:
        yield session


def transact(engine: Engine, work: Callable[[Session], T]) -> T:
    """Run `work` in one writing transaction and commit; an exception rolls everything back.

    After a conflict with another writer `work` is run again from the start, so it must not act on anything
    but its session. Rows it returns stay readable after the commit.
    """
    give_up_at = time.monotonic() + _RETRY_TIMEOUT_S
    while True:
        try:
            with Session(_writer(engine), expire_on_commit=False) as session, session.begin():
                return work(session)
        except DBAPIError as error:
            if _conflict(error) not in _CONFLICTS or time.monotonic() > give_up_at:
                raise


def _writer(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_WRITES: True})
    return engine.execution_options(isolation_level="SERIALIZABLE")


def _conflict(error: DBAPIError) -> str | None:
    """The SQLSTATE, under the name that the driver gives it."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself: `begin` does
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _use_write_ahead_log(engine: Engine) -> None:
    """Readers then never wait for the writer. The mode stays with the file.

    Changing it does not wait for the busy timeout: two processes that make the file at once try again.
    """
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def _migrate(engine: Engine) -> None:
    if _schema_of(engine) == _newest_schema():
        return
    from alembic import command  # here: it would take every command as long to load as all else of a database
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    # The lock is held until the commit; whoever waited for it finds nothing left to do. On PostgreSQL not in
    # a serialisable transaction: its snapshot would be older than the lock
    locking = _writer(engine) if engine.dialect.name == "sqlite" else engine
    with locking.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            where = engine.url.render_as_string()
            why = f"was made by a newer farm ({_first_line(error)}): update this checkout"
            raise DatabaseUnusable(f"database {where}: {why}") from None


def _schema_of(engine: Engine) -> str | None:
    """The migration that the database stands at, where Alembic wrote it down; None for a new database."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def _newest_schema() -> str:
    """Migrations are files with their number in front."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("*.py")).partition("_")[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
