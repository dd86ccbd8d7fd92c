"""Local clusters for real: up, down, repair after kill -9 of any part, walls, and respect for what is not ours."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from scenarios.contract import Failed, WorkNotProven
from tests.helpers.local_clusters import CHECKOUT, libvirt_of, planned_cluster, start_bare_guest, wait_for
from workers import processes
from workers.agent import LinkDead
from workers.hosts.base import ClusterHosts, Host
from workers.hosts.init import GUEST_UID
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.sweep import sweep

pytestmark = pytest.mark.machine

MakeCluster = Callable[..., LocalCluster]
REFUSED, NO_ROUTE = "111", "101"  # errno: ECONNREFUSED (somebody is there), ENETUNREACH


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster) -> LocalCluster:
    return make_cluster("oak")


@pytest.fixture
def up(cluster: LocalCluster) -> ClusterHosts:
    return cluster.up()


def connect_probe(address: str) -> list[str]:
    program = f"import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('{address}', 1)))"
    return ["/usr/bin/python3", "-c", program]


def reached_from(host: Host, address: str) -> str:
    with host.agent("test-session") as agent:
        return agent.run(connect_probe(address), timeout_s=10).strip()


def reached_from_storage(up: ClusterHosts, address: str) -> str:
    command = ["nsenter", f"--net={up.storage.network_namespace}", *connect_probe(address)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def network_is_whole(up: ClusterHosts) -> bool:
    """Neighbours that had been asked for in vain are asked for again only after a while."""
    first, second = up.hosts
    return wait_for(
        lambda: (
            reached_from(first, second.address) == REFUSED
            and reached_from(second, up.observer.address) == REFUSED
            and reached_from_storage(up, first.address) == REFUSED
        )
    )


def pids(cluster: LocalCluster) -> list[int | None]:
    return [host.pid for host in cluster.status()]


def libvirtd_of(pid: int | None) -> int:
    assert pid is not None
    namespace = processes.pid_namespace(pid)
    named = {p: processes.command_line(p)[:1] for p in processes.all_pids()}  # nothing for one that has just ended
    daemons = [p for p, name in named.items() if name and name[0].endswith("/libvirtd")]
    return next(daemon for daemon in daemons if processes.pid_namespace(daemon) == namespace)


def holder_of(cluster: LocalCluster, node: str) -> int:
    return next(pid for pid in processes.marked("FARM_NODE", [node]) if belongs_to(pid, cluster))


def belongs_to(pid: int, cluster: LocalCluster) -> bool:
    known = next(host.pid for host in cluster.status() if host.pid is not None)
    return processes.environment(pid)["FARM_CLUSTER"] == processes.environment(known)["FARM_CLUSTER"]


def kill(pid: int | None) -> None:
    """Returns when it has ended: what is still ending may be found, and be gone a moment later."""
    assert pid is not None
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([handle], [], [], 10)[0], f"process {pid} does not end"
    finally:
        os.close(handle)


def traces_of(folder: Path) -> list[str]:
    """Processes, mounts (of any mount namespace) and loop devices of this machine that tell of `folder`."""
    found = []
    for pid in processes.all_pids():
        if str(folder) in " ".join([*processes.command_line(pid), *processes.environment(pid).values()]):
            found.append(f"process {pid}")
        try:
            mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        except OSError:
            continue
        if str(folder) in mounts:
            found.append(f"mount in {pid}")
    loops = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in loops.splitlines() if str(folder) in line]


def named_namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("uri", ["local:debian12", "local:backports"])
def test_hosts_come_up_at_once_and_go_without_a_trace(make_cluster: MakeCluster, uri: str) -> None:
    before = Path("/proc/self/mountinfo").read_text(), named_namespaces()
    cluster = make_cluster(f"elm-{uri[6:]}", uri)
    up = cluster.up()
    assert [host.answers for host in cluster.status()] == [True, True]
    assert network_is_whole(up)
    holders = [pid for pid in processes.marked("FARM_NODE", ["switch", "storage"]) if belongs_to(pid, cluster)]
    assert (Path("/proc/self/mountinfo").read_text(), named_namespaces()) == before
    assert traces_of(cluster.folder)
    cluster.down()
    assert pids(cluster) == [None, None]
    assert not any(map(processes.environment, holders))
    assert traces_of(cluster.folder) == []
    cluster.down()  # once more, of nothing


def test_each_release_brings_its_own_software(make_cluster: MakeCluster) -> None:
    def versions(uri: str) -> tuple[int, int]:
        with libvirt_of(make_cluster("yew-" + uri[6:], uri, hosts=1).up().hosts[0]) as connection:
            return connection.getLibVersion() // 1_000_000, connection.getVersion() // 1_000_000

    assert versions("local:debian12") == (9, 7)
    assert versions("local:backports") == (11, 10)


def test_up_again_changes_nothing(cluster: LocalCluster, up: ClusterHosts) -> None:
    before = pids(cluster), holder_of(cluster, "switch"), holder_of(cluster, "storage")
    cluster.up()
    assert (pids(cluster), holder_of(cluster, "switch"), holder_of(cluster, "storage")) == before


def test_a_killed_host_is_made_anew_with_its_disk(cluster: LocalCluster, up: ClusterHosts) -> None:
    first, second = pids(cluster)
    with up.hosts[0].agent("test-session") as agent:
        agent.run(["sh", "-c", "echo base > /srv/work/base && sync"], timeout_s=10)
    kill(first)
    again = cluster.up()
    assert pids(cluster)[0] not in (None, first)
    assert pids(cluster)[1] == second
    assert network_is_whole(again)
    with again.hosts[0].agent("test-session") as agent:
        assert agent.call("basics.read_text", timeout_s=10, path="/srv/work/base") == "base\n"


def test_a_killed_libvirtd_comes_back_and_its_guests_stay(cluster: LocalCluster, up: ClusterHosts) -> None:
    with SessionMark(up.folder, "11111111aaaa") as mark:
        start_bare_guest(up.hosts[0], f"{mark.guest_prefix}still-here")
        before = pids(cluster)
        kill(libvirtd_of(before[0]))
        again = cluster.up()
        assert pids(cluster) == before
        with libvirt_of(again.hosts[0]) as connection:
            assert connection.lookupByName(f"{mark.guest_prefix}still-here").isActive()
    sweep(again)


@pytest.mark.parametrize("node", ["switch", "storage"])
def test_a_killed_network_is_laid_anew_under_living_hosts(cluster: LocalCluster, up: ClusterHosts, node: str) -> None:
    before = pids(cluster)
    kill(holder_of(cluster, node))
    again = cluster.up()
    assert pids(cluster) == before
    assert network_is_whole(again)


@pytest.mark.parametrize("after_s", [0.2, 0.4, 0.7])
def test_an_interrupted_up_is_taken_up_where_it_stood(
    make_cluster: MakeCluster, local_home: Path, after_s: float
) -> None:
    cluster = make_cluster("box")
    planned = json.dumps(asdict(planned_cluster("box")))
    command = [sys.executable, "-m", "workers", "hosts", "up", "--home", str(local_home), "--cluster", planned]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    time.sleep(after_s)
    process.kill()
    process.wait()
    assert network_is_whole(cluster.up())
    cluster.down()
    assert traces_of(cluster.folder) == []


@pytest.mark.parametrize(
    "breakage", ["link set eth0 nomaster", "link delete eth0", "address flush dev br0", "link set br0 down"]
)
def test_a_half_laid_network_is_mended(cluster: LocalCluster, up: ClusterHosts, breakage: str) -> None:
    with up.hosts[0].agent("test-session") as agent:
        agent.run(["ip", *breakage.split()], timeout_s=10)
    assert network_is_whole(cluster.up())


def test_the_storage_network_has_no_way_out(up: ClusterHosts) -> None:
    assert reached_from_storage(up, "192.0.2.1") == NO_ROUTE
    assert reached_from(up.hosts[0], "192.0.2.1") == NO_ROUTE


def test_no_daemon_of_a_host_listens_on_the_test_network(up: ClusterHosts) -> None:
    with up.hosts[0].agent("test-session") as agent:
        sockets = agent.call("basics.read_text", timeout_s=10, path="/proc/net/tcp")
    assert sockets.splitlines()[1:] == []


def test_a_host_sees_its_own_work_and_nothing_of_the_farm(up: ClusterHosts, local_home: Path) -> None:
    host = up.hosts[0]
    with host.agent("test-session") as agent:
        seen = agent.run(["find", "/", "-xdev", "-maxdepth", "1"], timeout_s=10).split()
        assert str(local_home) not in agent.call("basics.read_text", timeout_s=10, path="/etc/passwd")
        assert not {"/home", "/old", "/boot"} & set(seen)
        assert (
            agent.run(["sh", "-c", f"ls {local_home} 2>&1 || true"], timeout_s=10)
            .strip()
            .endswith("No such file or directory")
        )
        assert agent.run(["stat", "-f", "-c", "%T", str(host.work_dir)], timeout_s=10).strip() == "xfs"
        agent.run(["sh", "-c", "cd /srv/work; echo x > a; cp --reflink=always a b"], timeout_s=10)
        agent.run(["touch", f"{host.shared_dir}/from-first"], timeout_s=10)
    with up.hosts[1].agent("test-session") as agent:
        agent.run(["test", "-e", f"{host.shared_dir}/from-first"], timeout_s=10)


def test_guests_run_unprivileged(up: ClusterHosts) -> None:
    host = up.hosts[0]
    with SessionMark(up.folder, "22222222bbbb") as mark, host.agent(mark.session) as agent:
        start_bare_guest(host, f"{mark.guest_prefix}u")
        (vmm,) = agent.call("basics.guests", timeout_s=10)[f"{mark.guest_prefix}u"]
        status = agent.call("basics.read_text", timeout_s=10, path=f"/proc/{vmm}/status")
        assert agent.call("basics.guest_cpu_s", timeout_s=10, guest=f"{mark.guest_prefix}u") > 0
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert fields["Uid"] == fields["Gid"] == [str(GUEST_UID)] * 4
    assert fields["CapEff"] == ["0000000000000000"]
    sweep(up)


def test_a_guests_vmm_cannot_speak_to_libvirt(up: ClusterHosts) -> None:
    program = """if True:
        import glob, socket
        for path in glob.glob('/run/libvirt/*-sock*') + glob.glob('/srv/peers/*/*-sock*'):
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                print('reached', path)
            except PermissionError:
                print('denied')"""
    user = ["setpriv", f"--reuid={GUEST_UID}", f"--regid={GUEST_UID}", "--clear-groups"]
    with up.hosts[0].agent("test-session") as agent:
        answers = agent.run([*user, "/usr/bin/python3", "-c", program], timeout_s=10).splitlines()
    assert len(answers) >= 6
    assert set(answers) == {"denied"}


def test_what_is_not_ours_survives_a_sweep_and_keeps_the_cluster_up(cluster: LocalCluster, up: ClusterHosts) -> None:
    host = up.hosts[0]
    with SessionMark(up.folder, "33333333cccc") as mark:
        start_bare_guest(host, f"{mark.guest_prefix}ours")
    start_bare_guest(host, "web-1")
    start_bare_guest(host, "farm-animals-1")  # a name that only looks like ours
    with libvirt_of(host) as connection:
        connection.networkCreateXML("<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/></network>")
        connection.storagePoolCreateXML(
            "<pool type='dir'><name>images</name><target><path>/srv</path></target></pool>", 0
        )
        connection.defineXML("<domain type='qemu'><name>off</name><memory>1</memory><os><type>hvm</type></os></domain>")
        swept = sweep(up)
        assert swept.guests == (f"h1: {mark.guest_prefix}ours",)
        assert sorted(domain.name() for domain in connection.listAllDomains()) == ["farm-animals-1", "off", "web-1"]
        assert [network.name() for network in connection.listAllNetworks()] == ["lan"]
        assert [pool.name() for pool in connection.listAllStoragePools()] == ["images"]
        with pytest.raises(
            Failed,
            match="stays up, not ours: guest farm-animals-1 on h1, guest web-1 on h1, network lan on h1, pool images on h1",
        ):
            cluster.down()
        assert connection.lookupByName("web-1").isActive()
        for name in ("web-1", "farm-animals-1"):
            connection.lookupByName(name).destroy()
        connection.networkLookupByName("lan").destroy()
        connection.storagePoolLookupByName("images").destroy()
    assert wait_for(lambda: cluster.status()[0].guests == ())
    cluster.down()
    assert pids(cluster) == [None, None]
    with libvirt_of(cluster.up().hosts[0]) as connection:
        connection.lookupByName("off").undefine()  # what somebody defined outlives even that


def test_a_cluster_in_use_stays_up(cluster: LocalCluster, up: ClusterHosts) -> None:
    with SessionMark(up.folder, "44444444dddd"), pytest.raises(Failed, match="in use by session 44444444dddd"):
        cluster.down()
    assert None not in pids(cluster)
    sweep(up)


def test_a_changed_plan_makes_its_hosts_anew_unless_they_run_what_is_not_ours(
    make_cluster: MakeCluster, local_home: Path
) -> None:
    old = make_cluster("fir", "local:debian12", hosts=1)
    host = old.up().hosts[0]
    start_bare_guest(host, "db-1")
    new = LocalCluster(local_home, planned_cluster("fir", "local:backports", hosts=1))
    with pytest.raises(Failed, match="host h1 was made for another plan and runs guest db-1"):
        new.up()
    with libvirt_of(host) as connection:
        connection.lookupByName("db-1").destroy()
    assert wait_for(lambda: old.status()[0].guests == ())
    with libvirt_of(new.up().hosts[0]) as connection:
        assert connection.getVersion() // 1_000_000 == 10


def test_a_host_that_cannot_be_made_says_why(make_cluster: MakeCluster, local_home: Path) -> None:
    with pytest.raises(Failed, match="host h1: uri 'ssh://x' is neither 'local:debian12' nor 'local:backports'"):
        LocalCluster(local_home, planned_cluster("ash", "ssh://x", hosts=1))
    broken = make_cluster("ash", hosts=1)
    (broken.folder / "hosts" / "h1").mkdir(parents=True)
    (broken.folder / "hosts" / "h1" / "work.img").write_bytes(bytes(4096))
    with pytest.raises(Failed, match="host h1 of cluster ash cannot be made: mount: .*/srv/work: ") as caught:
        broken.up()
    assert caught.value.fault == "farm"
    assert "\n" not in str(caught.value)


def test_a_hanging_libvirtd_is_the_donors_fault(
    cluster: LocalCluster, up: ClusterHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.hosts.namespaces._DAEMON_TIMEOUT_S", 1.0)
    daemon = libvirtd_of(pids(cluster)[0])
    os.kill(daemon, signal.SIGSTOP)
    try:
        with pytest.raises(Failed, match="libvirtd of host h1: no answer within") as caught:
            cluster.up()
        assert caught.value.fault == "donor"
    finally:
        os.kill(daemon, signal.SIGCONT)


def test_a_link_that_is_cut_comes_back_whoever_is_killed(up: ClusterHosts) -> None:
    first, second = up.hosts
    with first.agent("test-session") as agent:
        agent.call("hosts.wire.cut", timeout_s=10, interface=first.wire, limit_s=60)
        assert reached_from(second, first.address) != REFUSED
        with pytest.raises(LinkDead):
            agent.run(["sh", "-c", "kill -9 $PPID"], timeout_s=10)
        assert wait_for(lambda: reached_from(second, first.address) == REFUSED)
    with first.agent("test-session") as agent:
        agent.call("hosts.wire.cut", timeout_s=10, interface=first.wire, limit_s=0.1)
        assert wait_for(lambda: reached_from(second, first.address) == REFUSED)
        with pytest.raises(WorkNotProven, match="by itself"):
            agent.call("hosts.wire.mend", timeout_s=10, interface=first.wire)


@pytest.mark.parametrize(
    "harm", ["ip link set eth0 down", "tc qdisc add dev eth0 root tbf rate 1mbit burst 32kb latency 50ms"]
)
def test_a_link_that_was_left_harmed_is_mended(cluster: LocalCluster, up: ClusterHosts, harm: str) -> None:
    with up.hosts[0].agent("test-session") as agent:
        agent.run(harm.split(), timeout_s=10)
        assert network_is_whole(cluster.up())
        assert "tbf" not in agent.run(["tc", "qdisc", "show", "dev", "eth0"], timeout_s=10)
