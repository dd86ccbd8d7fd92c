"""Real local clusters for tests, in a state folder of their own."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.local_clusters import FARM_HOME, planned_cluster, wait_for
from workers.hosts.namespaces import LocalCluster


@pytest.fixture(scope="module")
def local_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FARM_HOME without any cluster, with the downloaded software of the real one."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").symlink_to(FARM_HOME / "cache")
    return home


@pytest.fixture(scope="module")
def make_cluster(local_home: Path) -> Iterator[Callable[..., LocalCluster]]:
    """Makes local clusters, not up yet; all are taken down at the end, whatever a failed test left on them."""
    made = []

    def make(name: str, uri: str = "local:debian12", hosts: int = 2) -> LocalCluster:
        cluster = LocalCluster(local_home, planned_cluster(name, uri, hosts))
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        _take_down(cluster)


def _take_down(cluster: LocalCluster) -> None:
    for host in cluster.status():
        if host.pid is not None:
            os.kill(host.pid, signal.SIGKILL)
    assert wait_for(lambda: all(host.pid is None for host in cluster.status()))
    cluster.down()
