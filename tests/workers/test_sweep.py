"""The sweep, for real: all that a killed session leaves, and nothing of one that lives."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.helpers.local_clusters import CHECKOUT, guests_of, planned_cluster, start_bare_guest, wait_for
from workers import processes
from workers.hosts.base import ClusterHosts
from workers.hosts.namespaces import LocalCluster
from workers.loops import loops_of
from workers.marks import SessionMark, known_sessions, live_sessions
from workers.sweep import sweep

pytestmark = pytest.mark.machine

KILLED, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    return make_cluster("oak")


@pytest.fixture
def up(cluster: LocalCluster) -> ClusterHosts:
    return cluster.up()


def start_session(home: Path, session: str) -> subprocess.Popen[str]:
    """A session in a process of its own, that has made one of everything."""
    planned = json.dumps(asdict(planned_cluster("oak")))
    command = [sys.executable, "-m", "tests.helpers.marked_session", str(home), planned, session]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def files_of(up: ClusterHosts, session: str) -> list[str]:
    found = []
    for host in up.hosts:
        with host.agent("look") as agent:
            found += agent.run(["find", "/srv", "/var/log/libvirt", "-name", f"*{session[:12]}*"], timeout_s=10).split()
    return found


def test_a_living_session_is_left_alone_and_a_killed_one_leaves_nothing(up: ClusterHosts, local_home: Path) -> None:
    session = start_session(local_home, KILLED)
    made = guests_of(up)
    assert made == [f"farm-{KILLED[:12]}-{number}" for number in (1, 2, 3)]
    running = set(processes.marked("FARM_LEASE", [KILLED]))

    assert sweep(up, own=OTHER).clean
    assert guests_of(up) == made
    assert set(processes.marked("FARM_LEASE", [KILLED])) >= running
    assert session.poll() is None

    session.kill()
    session.wait()
    swept = sweep(up, own=OTHER)
    assert swept.failures == ()
    assert swept.sessions == (KILLED,)
    assert swept.guests == tuple(f"{host}: {name}" for host, name in zip(("h1", "h2", "h2"), made, strict=True))
    assert len(swept.loops) == 1  # the storage's; the image's went with its mount
    assert len(swept.mounts) == 2
    assert guests_of(up) == []
    assert processes.marked("FARM_LEASE", [KILLED]) == {}
    assert files_of(up, KILLED) == []
    assert loops_of(up.folder / "storage") == []
    assert str(up.folder / "sessions") not in Path("/proc/self/mountinfo").read_text()
    assert not (up.folder / "sessions" / KILLED).exists()
    assert sweep(up, own=OTHER).clean


def test_only_leased_hosts_are_swept(up: ClusterHosts) -> None:
    with SessionMark(up.folder, OTHER) as mark:
        for host in up.hosts:
            start_bare_guest(host, f"{mark.guest_prefix}g")
        assert sweep(up, own=OTHER, hosts=["h2"]).guests == (f"h2: {mark.guest_prefix}g",)
        assert guests_of(up) == [f"{mark.guest_prefix}g"]
        assert sweep(up, own=OTHER).guests == (f"h1: {mark.guest_prefix}g",)


def test_what_a_session_wrote_takes_no_room_after_it(up: ClusterHosts) -> None:
    def held_mib() -> int:
        return sum((up.folder / "hosts" / host.name / "work.img").stat().st_blocks * 512 for host in up.hosts) >> 20

    sweep(up, own=OTHER)
    before = held_mib()
    with SessionMark(up.folder, KILLED):
        for host in up.hosts:
            with host.agent(OTHER) as agent:
                folder = host.work_dir / "sessions" / KILLED
                agent.run(["mkdir", "-p", str(folder)], timeout_s=10)
                agent.run(
                    ["dd", "if=/dev/urandom", f"of={folder}/large", "bs=1M", "count=64", "conv=fsync"], timeout_s=60
                )
    assert held_mib() >= before + 120
    assert sweep(up, own=OTHER).failures == ()
    # XFS frees what was deleted in its own time: at the latest the sweep before the next session finds it free
    assert wait_for(lambda: held_mib() <= before + 8 or sweep(up, own=OTHER).failures != (), timeout_s=60)
    assert held_mib() <= before + 8


def test_an_ended_session_is_known_until_all_hosts_are_swept(up: ClusterHosts) -> None:
    with SessionMark(up.folder, KILLED) as mark:
        for host in up.hosts:
            start_bare_guest(host, f"{mark.guest_prefix}g")
    assert sweep(up, own=OTHER, hosts=["h1"]).guests == (f"h1: {mark.guest_prefix}g",)
    assert KILLED in known_sessions(up.folder)
    assert sweep(up, own=OTHER).guests == (f"h2: {mark.guest_prefix}g",)
    assert KILLED not in known_sessions(up.folder)


def test_a_session_sweeps_itself_but_keeps_its_folder_and_agents(up: ClusterHosts) -> None:
    with SessionMark(up.folder, OTHER) as mark, up.hosts[0].agent(OTHER) as agent, up.observer.agent(OTHER) as observer:
        payload = mark.folder / "payload"
        payload.write_text("kept")
        left = subprocess.Popen(["sleep", "600"], env={**mark.environment, "PATH": "/usr/bin:/bin"})
        swept = sweep(up, own=OTHER)
        assert left.wait(10) == -signal.SIGTERM
        assert [item for item in swept.processes if f"{left.pid} sleep 600" in item] == list(swept.processes)
        assert payload.read_text() == "kept"
        assert live_sessions(up.folder) == [OTHER]
        assert agent.call("basics.clock_ns", timeout_s=10) > 0
        assert observer.call("basics.clock_ns", timeout_s=10) > 0
    assert sweep(up).sessions == (OTHER,)


def test_a_hanging_libvirtd_is_told_and_keeps_no_guest_alive(
    up: ClusterHosts, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sweep._LIBVIRT_TIMEOUT_S", 1.0)
    with SessionMark(up.folder, KILLED) as mark:
        for host in up.hosts:
            start_bare_guest(host, f"{mark.guest_prefix}g")
    first = cluster.status()[0].pid
    assert first is not None
    inside = [pid for pid in processes.all_pids() if processes.pid_namespace(pid) == processes.pid_namespace(first)]
    daemon = next(pid for pid in inside if processes.command_line(pid)[0].endswith("/libvirtd"))
    os.kill(daemon, signal.SIGSTOP)
    try:
        swept = sweep(up)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert [(failure.fault, str(failure)) for failure in swept.failures] == [
        ("donor", "libvirtd of host h1: no answer within 1 s")
    ]
    assert f"h2: {mark.guest_prefix}g" in swept.guests
    assert all(host.guests == () for host in cluster.status())
    assert wait_for(lambda: guests_of(up) == [])
    assert KILLED in known_sessions(up.folder)
    assert sweep(up).failures == ()
    assert KILLED not in known_sessions(up.folder)
