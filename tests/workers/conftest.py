"""Real local clusters for tests, in a state folder of their own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scenarios.crossing import PlannedCluster, PlannedHost
from workers.hosts.namespaces import LocalCluster

CHECKOUT = Path(__file__).resolve().parents[2]
FARM_HOME = Path(os.environ.get("FARM_HOME", CHECKOUT / "var"))


def planned_cluster(name: str, uri: str = "local:debian12", hosts: int = 2) -> PlannedCluster:
    return PlannedCluster(
        name=name,
        driver="qemu",
        hosts=tuple(PlannedHost(f"h{number}", uri, "here/room-1") for number in range(1, hosts + 1)),
        storage_disks=2,
        storage_disk_mib=512,
    )


@pytest.fixture(scope="module")
def test_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FARM_HOME without any cluster, with the downloaded software of the real one."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").symlink_to(FARM_HOME / "cache")
    return home


@pytest.fixture(scope="module")
def make_cluster(test_home: Path) -> Iterator[Callable[..., LocalCluster]]:
    """Makes local clusters, not up yet; whatever they run at the end is ended with them."""
    made = []

    def make(name: str, uri: str = "local:debian12", hosts: int = 2) -> LocalCluster:
        cluster = LocalCluster(test_home, planned_cluster(name, uri, hosts))
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.down()
