"""Physical limits, probed on real hosts: what is found, what is left behind, and what happens where nothing can be."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scenarios.crossing import Probe
from scenarios.probes import KINDS, OBSERVER, STORAGE
from tests.workers.test_agent import start_link
from workers.agent import OperationFailed
from workers.hosts.namespaces import LocalCluster
from workers.hypervisors.qemu import QemuCluster
from workers.limits import Limits

SESSION = "limits-a1b2c3d4"
DISK = ("disk write", "flush", "disk read")


@pytest.fixture(scope="module")
def hypervisors(make_cluster: Callable[..., LocalCluster], local_home: Path) -> Iterator[QemuCluster]:
    with QemuCluster(make_cluster("limits").up(), local_home, SESSION) as hypervisors:
        yield hypervisors


def limits_of(hypervisors: QemuCluster, folder: Path, log: list[str]) -> Limits:
    return Limits(
        hypervisors.links,
        hypervisors.observer,
        hypervisors.cluster.storage,
        folder=folder,
        work_dir=hypervisors.work_dir,
        log=log.append,
    )


def places(probes: list[Probe]) -> set[tuple[str, str, str | None]]:
    return {(probe.kind, probe.at, probe.to) for probe in probes}


NETWORK = {("network", "h1", "h2"), ("network", "h2", "h1"), ("network", OBSERVER, STORAGE)}
OF_HOSTS = {(kind, host, None) for kind in (*DISK, "memory copy") for host in ("h1", "h2")}
OF_STORE = {(kind, STORAGE, None) for kind in DISK}


@pytest.mark.machine
def test_every_limit_of_the_cluster_is_probed_and_nothing_stays_behind(hypervisors: QemuCluster) -> None:
    folder = hypervisors.cluster.folder / "sessions" / SESSION
    folder.mkdir(parents=True)
    log: list[str] = []
    found = limits_of(hypervisors, folder, log).probe(2)

    assert log == []
    assert places(found) == OF_HOSTS | OF_STORE | NETWORK
    assert all(probe.value > 0 and probe.block == 2 for probe in found)
    assert list(folder.iterdir()) == []
    for link in hypervisors.links:
        assert link.agent.run(["ls", str(hypervisors.work_dir(link.host))], timeout_s=10) == ""


@pytest.mark.machine
def test_what_cannot_be_probed_has_no_limit_and_says_why(hypervisors: QemuCluster) -> None:
    log: list[str] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        found = limits_of(hypervisors, Path(elsewhere), log).probe(0)
    assert places(found) == OF_HOSTS | NETWORK
    assert len(log) == 1
    assert log[0].startswith("no limit is known of the disks of the store: they lie on another disk than /dev/shm/")


@pytest.mark.machine
def test_a_link_that_is_down_has_no_limit_and_holds_nothing_up(hypervisors: QemuCluster) -> None:
    folder = hypervisors.cluster.folder / "sessions" / SESSION
    folder.mkdir(parents=True, exist_ok=True)
    log: list[str] = []
    second = hypervisors.links[1].agent
    second.run(["ip", "link", "set", "eth0", "down"], timeout_s=10)
    try:
        found = limits_of(hypervisors, folder, log).probe(0)
    finally:
        second.run(["ip", "link", "set", "eth0", "up"], timeout_s=10)
    assert places(found) == OF_HOSTS | OF_STORE | {("network", OBSERVER, STORAGE)}
    assert [line.partition(":")[0] for line in log] == [
        "no limit is known of the network from h1 to h2",
        "no limit is known of the network from h2 to h1",
    ]


def test_a_probe_of_a_disk_leaves_no_file(tmp_path: Path) -> None:
    with start_link() as agent:
        found = agent.call("probes.disk", timeout_s=30, path=str(tmp_path / "probe"), limit_s=0.1)
        assert set(found) == set(DISK) <= set(KINDS)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "file").touch()
        with pytest.raises(OperationFailed, match="NotADirectoryError|FileExistsError"):
            agent.call("probes.disk", timeout_s=30, path=str(tmp_path / "file" / "probe"), limit_s=0.1)
