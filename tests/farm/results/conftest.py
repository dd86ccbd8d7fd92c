import shutil
from pathlib import Path

import pytest

from farm.results.database import open_database
from scenarios.crossing import Plan
from tests.helpers.bundles import a_plan
from tests.helpers.farmhouse import Farmhouse, build_farmhouse

DATABASES = ("sqlite",)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, made anew for each test."""
    return f"{request.param}:///{tmp_path / 'farm.sqlite'}"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows; copying it is quicker than a hundred migrations."""
    file = tmp_path_factory.mktemp("migrated") / "farm.sqlite"
    open_database(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def farmhouse(tmp_path: Path, database_url: str, migrated: Path) -> Farmhouse:
    if database_url.startswith("sqlite"):
        shutil.copy(migrated, tmp_path)
    return build_farmhouse(tmp_path, database_url)


@pytest.fixture
def plan(farmhouse: Farmhouse) -> Plan:
    """The plan of a session that runs now on cluster acorn."""
    return farmhouse.issue(a_plan(farmhouse.inventory["acorn"]))
