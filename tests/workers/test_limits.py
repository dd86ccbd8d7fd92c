"""Physical limits, probed on real hosts: what is found, what is left behind, and what happens where nothing can be."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest

from scenarios.crossing import Probe
from scenarios.probes import KINDS, OBSERVER, OF_LINKS, STORAGE
from tests.workers.test_agent import start_link
from workers.agent import OperationFailed
from workers.hosts.namespaces import LocalCluster
from workers.hypervisors.qemu import QemuCluster
from workers.limits import Limits

SESSION = "limits-a1b2c3d4"
DISK = ("disk write", "flush", "small write", "small read", "disk read")


@pytest.fixture(scope="module")
def hypervisors(make_cluster: Callable[..., LocalCluster], local_home: Path) -> Iterator[QemuCluster]:
    with QemuCluster(make_cluster("limits").up(), local_home, SESSION) as hypervisors:
        yield hypervisors


def limits_of(hypervisors: QemuCluster, folder: Path, log: list[str]) -> Limits:
    return Limits(
        hypervisors.links,
        hypervisors.observer,
        hypervisors.cluster.observer.address,
        hypervisors.cluster.storage,
        folder=folder,
        work_dir=hypervisors.work_dir,
        log=log.append,
    )


def places(probes: list[Probe]) -> set[tuple[str, str, str | None]]:
    return {(probe.kind, probe.at, probe.to) for probe in probes}


TO_STORE = {(kind, *ends) for kind in OF_LINKS for ends in ((OBSERVER, STORAGE), (STORAGE, OBSERVER))}
TO_FIRST = {(kind, OBSERVER, "h1") for kind in OF_LINKS}
TO_SECOND = {(kind, *ends) for kind in OF_LINKS for ends in (("h1", "h2"), ("h2", "h1"), (OBSERVER, "h2"))}
NETWORK = TO_STORE | TO_FIRST | TO_SECOND
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
    assert places(found) == OF_HOSTS | OF_STORE | TO_STORE | TO_FIRST
    assert {line.partition(":")[0] for line in log} == {
        "no limit is known of the network from h1 to h2",
        "no limit is known of the network from h2 to h1",
        f"no limit is known of the network from {OBSERVER} to h2",
    }


@pytest.mark.machine
def test_links_of_many_hosts_take_turns(make_cluster: Callable[..., LocalCluster], local_home: Path) -> None:
    """Three hosts: nine links, of which a probing takes eight; after two all were there, in both directions."""
    with QemuCluster(make_cluster("many", hosts=3).up(), local_home, SESSION) as hypervisors:
        folder = hypervisors.cluster.folder / "sessions" / SESSION
        folder.mkdir(parents=True)
        log: list[str] = []
        limits = limits_of(hypervisors, folder, log)
        first, second = ({(at, to) for _, at, to in places(limits.probe(block)) if to} for block in (0, 1))
    hosts, to_store = ("h1", "h2", "h3"), {(OBSERVER, STORAGE), (STORAGE, OBSERVER)}
    assert log == []
    assert len(first) == len(second) == 8 + len(to_store)
    assert first | second == {*permutations(hosts, 2), *((OBSERVER, host) for host in hosts), *to_store}


@pytest.mark.machine
def test_the_kernel_counts_what_the_probes_claim(hypervisors: QemuCluster) -> None:
    """What went over the wire and onto the device, as the host's kernel counted it; and dd, which is not ours."""
    folder = hypervisors.cluster.folder / "sessions" / SESSION
    folder.mkdir(parents=True, exist_ok=True)
    first = hypervisors.links[0]
    work_dir = hypervisors.work_dir(first.host)
    first.agent.run(["mkdir", "-p", str(work_dir)], timeout_s=10)

    def counted_mib() -> tuple[float, float]:
        """Written to the device, and sent."""
        written = first.agent.call("volumes.device.written_bytes", timeout_s=10, folder=str(work_dir))
        sent = first.agent.call("hosts.wire.sent_bytes", timeout_s=10, interface=first.host.wire)
        return written / (1 << 20), sent / (1 << 20)

    before = counted_mib()
    found = {(one.kind, one.at, one.to): one.value for one in limits_of(hypervisors, folder, []).probe(0)}
    on_device_mib, on_wire_mib = (now - then for then, now in zip(before, counted_mib(), strict=True))
    assert on_device_mib > 256, "two passes over 128 MiB and more"
    assert on_wire_mib > found["network", "h1", "h2"] * 0.2, "a quarter of a second at that speed"
    assert found["small write", "h1", None] <= found["flush", "h1", None], "a flush is a write and more"
    assert found["round trip", "h1", "h2"] < 100_000

    target = str(work_dir / "dd.probe")
    dd = ["dd", "if=/dev/urandom", f"of={target}", "bs=1M", "count=128", "oflag=direct", "conv=fdatasync"]
    first.agent.run(dd, timeout_s=60)
    again = ["dd", f"if={target}", f"of={target}.copy", "bs=4M", "iflag=direct", "oflag=direct", "conv=fdatasync"]
    began = time.monotonic()
    first.agent.run(again, timeout_s=60)
    copied_mib_s = 128 / (time.monotonic() - began)
    first.agent.run(["rm", target, f"{target}.copy"], timeout_s=10)
    assert found["disk write", "h1", None] > copied_mib_s / 1.1, "dd reads and writes by turns, and is no quicker"


def test_a_probe_of_a_disk_leaves_no_file(tmp_path: Path) -> None:
    with start_link() as agent:
        found = agent.call("probes.disk", timeout_s=30, path=str(tmp_path / "probe"), limit_s=0.1)
        assert set(found) == set(DISK) <= set(KINDS)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "file").touch()
        with pytest.raises(OperationFailed, match="NotADirectoryError|FileExistsError"):
            agent.call("probes.disk", timeout_s=30, path=str(tmp_path / "file" / "probe"), limit_s=0.1)
