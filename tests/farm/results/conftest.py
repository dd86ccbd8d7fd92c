"""Every test of the results runs on SQLite and on PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.results.database import open_database
from scenarios.crossing import Plan
from tests.helpers.bundles import a_plan
from tests.helpers.farmhouse import Farmhouse, build_farmhouse
from tests.helpers.postgres import Postgres, running_postgres

DATABASES = ("sqlite", "postgresql")
_MIGRATED = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        open_database(server.create(_MIGRATED)).dispose()
        yield server


@pytest.fixture(params=DATABASES)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """An empty database, made anew for each test."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'farm.sqlite'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows; copying it is quicker than a hundred migrations."""
    file = tmp_path_factory.mktemp("migrated") / "farm.sqlite"
    open_database(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def farmhouse(request: pytest.FixtureRequest, backend: str, tmp_path: Path, migrated: Path) -> Iterator[Farmhouse]:
    if backend == "sqlite":
        shutil.copy(migrated, tmp_path)
        yield build_farmhouse(tmp_path)
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database(template=_MIGRATED) as url:
        yield build_farmhouse(tmp_path, url)


@pytest.fixture
def plan(farmhouse: Farmhouse) -> Plan:
    """The plan of a session that runs now on cluster acorn."""
    return farmhouse.issue(a_plan(farmhouse.inventory["acorn"]))
