"""Lent machines, reached through a real sshd: a whole session, what a killed one leaves, and hosts that are not well."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scenarios.contract import Failed
from scenarios.crossing import PlannedHost, PlannedScenario
from scenarios.registry import SCENARIOS
from tests.helpers.local_clusters import CHECKOUT, guests_of, wait_for
from tests.helpers.ssh_hosts import SshHosts, make_key, ssh_hosts, standing_in
from tests.workers.test_session import NAME, Worker, marked, read_bundle
from workers import processes
from workers.commands.session import DONOR_FAULT
from workers.hosts.base import Host
from workers.hosts.ssh import SshCluster
from workers.marks import guest_prefix
from workers.sweep import sweep

pytestmark = pytest.mark.machine

KILLED, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHosts]:
    with ssh_hosts(tmp_path_factory.mktemp("lent"), name=NAME) as made, standing_in(made.switch):
        yield made
        SshCluster(made.home, made.planned).down()


@pytest.fixture(scope="module")
def worker(lent: SshHosts) -> Worker:
    made = Worker(lent.home)
    made.cluster = replace(lent.planned, storage_disks=3)
    return made


def on(host: Host, *command: str) -> list[str]:
    with host.agent("look") as agent:
        return agent.run(command, timeout_s=20).split()


def test_a_session_deploys_measures_and_leaves_nothing_on_lent_machines(worker: Worker) -> None:
    small = PlannedScenario("chunked_upload", SCENARIOS["chunked_upload"].version, {"size_mib": 4, "segment_mib": 1})
    plan = worker.plan(session="over-ssh")
    assert worker.run(replace(plan, scenarios=(*plan.scenarios, small))) == (0, "")
    manifest, samples, _ = read_bundle(worker.bundle)
    assert {(o.scenario, o.outcome, o.reason) for o in manifest.outcomes} == {
        ("boot", "measured", None),
        ("chunked_upload", "measured", None),
    }
    assert all(sample["valid"] for sample in samples)
    up = SshCluster(worker.home, worker.cluster).up()
    for host in up.hosts:
        assert on(host, "find", "/srv", "-path", f"*{plan.session}*") == []
        assert on(host, "find", "/root", "/tmp", "/opt", "-newer", "/root/sshd", "-name", "*.py*") == []
    assert not marked(plan.session)


def test_a_killed_session_leaves_nothing_after_the_sweep(worker: Worker) -> None:
    planned = json.dumps(asdict(worker.cluster))
    command = [sys.executable, "-m", "tests.helpers.marked_session", str(worker.home), planned, KILLED]
    session = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert session.stdout is not None
    assert session.stdout.readline() == "ready\n"
    up = SshCluster(worker.home, worker.cluster).up()
    assert len(guests_of(up)) == 3
    assert sweep(up, own=OTHER).guests == ()  # it lives

    os.kill(session.pid, signal.SIGKILL)
    session.wait()
    swept = sweep(up, own=OTHER)
    assert swept.failures == ()
    assert swept.guests == tuple(f"{host}: {guest_prefix(KILLED)}{n}" for host, n in (("h1", 1), ("h2", 2), ("h2", 3)))
    assert guests_of(up) == []
    assert not marked(KILLED)
    for host in up.hosts:
        assert on(host, "find", "/srv", "/var/log/libvirt", "-name", f"*{KILLED[:12]}*") == []
    assert sweep(up, own=OTHER).clean


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"uri": "ssh://root@10.77.0.1:2"}, "Connection refused"),
        ({"host_key": "another"}, "Host key verification failed"),
        ({"uri": "ssh://root@10.77.0.1:2222"}, "Permission denied"),
    ],
    ids=["nobody-there", "another-machine", "a-key-that-is-refused"],
)
def test_a_host_that_is_not_well_is_named_and_costs_the_others_nothing(
    lent: SshHosts, tmp_path: Path, change: dict[str, str], told: str
) -> None:
    well, ill = lent.planned.hosts[1], replace(lent.planned.hosts[0], **change)
    if "another" in change.values():
        ill = replace(ill, host_key=make_key(tmp_path / "another"))
    if change.get("uri", "").endswith(":2222"):
        ill = replace(ill, host_key=lent.start_sshd(lent.hosts[0], 2222, make_key(tmp_path / "users")))
    up = _of(lent, ill, well).up()
    swept = sweep(up, own=OTHER)
    assert {(failure.fault, "h1" in str(failure)) for failure in swept.failures} == {("donor", True)}
    assert all(told in str(failure) for failure in swept.failures), swept.failures
    with up.hosts[1].agent("look") as agent:
        assert agent.run(["echo", "well"], timeout_s=20) == "well\n"


def test_a_host_that_is_busier_than_stated_refuses_the_session(worker: Worker) -> None:
    lent = worker.cluster.lent
    assert lent is not None
    plan = worker.plan(session="unwelcome")
    status, told = worker.run(replace(plan, cluster=replace(plan.cluster, lent=replace(lent, most_load=1e-9))))
    assert status == DONOR_FAULT
    assert told.startswith("busy: host h1: others take ")
    assert "at most 0% is stated" in told
    assert not marked(plan.session)


def test_a_worker_that_is_not_in_the_network_or_has_no_key_says_so(lent: SshHosts, tmp_path: Path) -> None:
    assert lent.planned.lent is not None
    with pytest.raises(Failed, match="no ssh key to log in with: there is no .*secrets/ssh/session-test") as failed:
        SshCluster(tmp_path, lent.planned).up()
    assert failed.value.fault == "farm"
    elsewhere = replace(lent.planned, lent=replace(lent.planned.lent, bridge="br7"))
    with pytest.raises(Failed, match="no bridge br7 into the network"):
        SshCluster(lent.home, elsewhere).up()


def test_an_agent_ends_with_its_connection(lent: SshHosts) -> None:
    up = _of(lent, *lent.planned.hosts).up()
    with up.hosts[0].agent("cut-off") as agent:
        assert len(_clients("cut-off")) == 1
        os.kill(_clients("cut-off")[0], signal.SIGKILL)
        with pytest.raises(Failed, match="is gone") as failed:
            agent.call("basics.clock_ns", timeout_s=20)
    assert failed.value.fault == "donor"
    look = "grep -l FARM_LEASE=cut-off /proc/[0-9]*/environ 2>/dev/null || true"
    assert wait_for(lambda: on(up.hosts[0], "sh", "-c", look) == [])


def _clients(lease: str) -> list[int]:
    """Processes of this machine that carry an agent's connection."""
    found = processes.marked(processes.LEASE_VARIABLE, [lease])
    return [pid for pid in found if processes.program_of(pid) == "ssh"]


def _of(lent: SshHosts, *hosts: PlannedHost) -> SshCluster:
    return SshCluster(lent.home, replace(lent.planned, hosts=hosts))
