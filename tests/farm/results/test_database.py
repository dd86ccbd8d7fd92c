"""The schema is what the tables say, made by migrations, however many processes come at once."""

import datetime
import multiprocessing
import os
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Transaction

from farm.results import tables
from farm.results.database import DatabaseUnusable, open_database, reading, transact
from tests.helpers.farmhouse import NOON


def an_analysis(version: int = 1) -> tables.Analysis:
    return tables.Analysis(version=version, cause="0" * 64, made_at=NOON)


def versions(engine: Engine) -> list[int]:
    with reading(engine) as transaction:
        return list(transaction.scalars(select(tables.Analysis.version).order_by(tables.Analysis.version)))


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    with open_database(database_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, tables.Base.metadata)

    assert differences == [], "the tables changed: say so in a migration, see farm/results/migrations/README.md"


def test_opening_again_keeps_what_is_there(database_url: str) -> None:
    transact(open_database(database_url), lambda transaction: transaction.add(an_analysis(7)))

    assert versions(open_database(database_url)) == [7]


def open_and_write(url: str, version: int) -> None:
    transact(open_database(url), lambda transaction: transaction.add(an_analysis(version)))
    os._exit(0)


def test_several_processes_may_open_an_empty_database_at_once(database_url: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=open_and_write, args=(database_url, version)) for version in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)

    assert [process.exitcode for process in processes] == [0] * 6
    assert versions(open_database(database_url)) == [0, 1, 2, 3, 4, 5]


def test_migration_that_is_cut_off_leaves_the_database_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alembic.op.create_index", cut_off)
    with pytest.raises(KeyboardInterrupt):
        open_database(database_url)
    monkeypatch.undo()

    assert set(inspect(open_database(database_url)).get_table_names()) == {
        *tables.Base.metadata.tables,
        "alembic_version",
    }


def test_database_of_a_newer_farm_is_left_alone(database_url: str) -> None:
    with open_database(database_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(DatabaseUnusable, match=r"made by a newer farm .*9999.*: update this checkout"):
        open_database(database_url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("farm.sqlite", "the URL cannot be used: Could not parse"),
        ("oracel://x", "the URL cannot be used: oracel:// is not supported"),
        ("sqlite:////no/such/folder/farm.sqlite", "unable to open database file"),
        (
            "postgresql://farm@/farm?host=/no/such/folder",
            "database postgresql://farm@/farm?host=%2Fno%2Fsuch%2Ffolder: ",
        ),
    ],
)
def test_unusable_database_is_one_clear_line(url: str, reason: str) -> None:
    with pytest.raises(DatabaseUnusable) as refusal:
        open_database(url)

    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "farm.sqlite").write_bytes(b"no database " * 1000)

    with pytest.raises(DatabaseUnusable, match="file is not a database"):
        open_database(f"sqlite:///{tmp_path / 'farm.sqlite'}")


def test_exception_rolls_everything_back(database_url: str) -> None:
    engine = open_database(database_url)

    def work(transaction: Transaction) -> None:
        transaction.add(an_analysis())
        transaction.flush()
        raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError):
        transact(engine, work)
    assert versions(engine) == []


def count_up(url: str) -> None:
    engine = open_database(url)

    def work(transaction: Transaction) -> None:
        row = transaction.scalars(select(tables.Analysis)).one()
        row.version += 1

    for _ in range(25):
        transact(engine, work)
    os._exit(0)


def test_read_then_write_loses_no_update(database_url: str) -> None:
    """What a reader that turns writer would do: overwrite, or fail with 'database is locked'."""
    transact(open_database(database_url), lambda transaction: transaction.add(an_analysis(0)))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(database_url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)

    assert [process.exitcode for process in processes] == [0] * 4
    assert versions(open_database(database_url)) == [100]


def test_reader_keeps_its_snapshot_and_does_not_hold_up_the_writer(database_url: str) -> None:
    engine = open_database(database_url)
    count = select(tables.Analysis.version)
    with reading(engine) as transaction:
        assert transaction.scalars(count).all() == []
        transact(engine, lambda other: other.add(an_analysis()))
        assert transaction.scalars(count).all() == []
    assert versions(engine) == [1]


def test_references_must_hold(database_url: str) -> None:
    lost = tables.OutcomeRow(
        session="nobody's", cluster="acorn", revision="0", scenario="boot", version=1, params={}, block=0, round=0,
        outcome="measured", evidence=[], tenant="local", account="local", visibility="public",
    )  # fmt: skip

    with pytest.raises(IntegrityError):
        transact(open_database(database_url), lambda transaction: transaction.add(lost))


def test_times_come_back_as_utc_and_must_have_a_zone(database_url: str) -> None:
    engine = open_database(database_url)
    cet = datetime.timezone(datetime.timedelta(hours=1))
    row = tables.Analysis(version=1, cause="0" * 64, made_at=NOON.astimezone(cet))
    transact(engine, lambda transaction: transaction.add(row))

    with reading(engine) as transaction:
        (made_at,) = transaction.scalars(select(tables.Analysis.made_at)).all()
    assert (made_at, made_at.tzinfo) == (NOON, datetime.UTC)
    with pytest.raises(Exception, match="times must carry a zone"):
        transact(engine, lambda transaction: transaction.add(tables.Analysis(
            version=1, cause="0" * 64, made_at=NOON.replace(tzinfo=None))))  # fmt: skip
