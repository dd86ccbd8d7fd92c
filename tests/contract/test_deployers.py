"""What every deployer must do: bring its stack up so that it answers, and take all of it down, killed or not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.contract import Failed
from scenarios.crossing import PlannedCluster, canonical_json, to_data
from tests.helpers.deployments import deployed
from tests.helpers.local_clusters import CHECKOUT, FARM_HOME, planned_cluster, wait_for
from tests.helpers.visits import entry_of, let_in, seen_as_a_cloud
from workers import processes
from workers.agent import AgentLink
from workers.hosts.base import ClusterHosts
from workers.hosts.namespaces import LocalCluster
from workers.loops import loops_of
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.objectstores.swift import SwiftStore, Visitor
from workers.stacks import deployers, external, openstack
from workers.sweep import sweep

pytestmark = pytest.mark.machine

STACKS = ("swift", "swift-on-hosts", "openstack", "external")
MEMORY_LIMIT_MIB = 3072


@pytest.fixture(scope="module")
def planned() -> PlannedCluster:
    return replace(planned_cluster("deployers", "local:backports"), storage_disks=4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for name in ("cache", "venv"):
        (home / name).symlink_to(FARM_HOME / name)
    return home


@pytest.fixture(scope="module")
def cluster(home: Path, planned: PlannedCluster) -> Iterator[ClusterHosts]:
    local = LocalCluster(home, planned)
    try:
        yield local.up()
    finally:
        local.down()


@pytest.fixture(scope="module", params=STACKS)
def stack(request: pytest.FixtureRequest, cluster: ClusterHosts, home: Path) -> Iterator[str]:
    """Its name; what is there already when an external one is deployed, is there afterwards."""
    name = str(request.param)
    if name != "external":
        yield name
        return
    with (
        SessionMark(cluster.folder, "underneath") as mark,
        cluster.observer.agent(mark.session) as observer,
        deployed("openstack", cluster, mark, observer, home) as theirs,
    ):
        assert isinstance(theirs, openstack.Deployment)
        let_in(home, entry_of(theirs))
        yield name
        assert answers(theirs, cluster, observer, Payload(mark.folder / "payload"))


def test_a_stack_comes_up_answers_and_goes(cluster: ClusterHosts, home: Path, stack: str) -> None:
    with SessionMark(cluster.folder, f"{stack}-session") as mark, cluster.observer.agent(mark.session) as observer:
        with deployed(stack, cluster, mark, observer, home) as deployment:
            assert answers(deployment, cluster, observer, Payload(mark.folder / "payload"))
            if not isinstance(deployment, external.Deployment):  # nobody sees what that runs on
                assert deployment.server_cpu_s() > 0
                assert 0 < memory_mib(mark.session) < MEMORY_LIMIT_MIB
        deployment.undeploy()  # again, at no harm
        assert left_of(mark.session) == []
        assert all(deployment.logs().values())
    assert nothing_left(stack, cluster, home)


def test_nothing_stays_of_a_session_that_is_killed(
    cluster: ClusterHosts, home: Path, planned: PlannedCluster, stack: str
) -> None:
    session = f"{stack}-killed"
    command = ["tests.helpers.deployed_session", str(home), canonical_json(to_data(planned)), session, stack]
    with subprocess.Popen([sys.executable, "-m", *command], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout is not None
            assert killed.stdout.readline() == "ready\n"
            assert left_of(session) != [] or stack == "external"
        finally:
            killed.kill()
    assert wait_for(lambda: left_of(session) == [])
    swept = sweep(seen_by(stack, cluster, home))
    assert {thing.split()[2] for thing in swept.things} == ({"container"} if stack == "external" else set())
    assert nothing_left(stack, cluster, home)
    assert not (cluster.folder / "sessions" / session).exists()
    assert not (cluster.folder / "shared" / "sessions" / session).exists()


def answers(deployment: deployers.Deployment, cluster: ClusterHosts, observer: AgentLink, payload: Payload) -> bool:
    if isinstance(deployment, openstack.Deployment):
        assert deployment.client.computes_up() == {host.name for host in cluster.hosts}
        account = deployment.client.endpoint("object-store").rpartition("/")[2]
        with pytest.raises(Failed, match="making container .*: 401"):
            SwiftStore(deployment.store, observer, payload, Visitor(account, "a token that nobody gave"))
    store = deployers.store_of(deployment, observer, payload)  # for OpenStack with the token that Nova was asked with
    assert store is not None
    store.upload_single("it", size_mib=1)
    return store.read_back_digest("it") == store.payload_digest(1)


def seen_by(stack: str, cluster: ClusterHosts, home: Path) -> ClusterHosts:
    return seen_as_a_cloud(cluster, home) if stack == "external" else cluster


def nothing_left(stack: str, cluster: ClusterHosts, home: Path) -> bool:
    """Of a session that has ended; what is in use underneath is others'."""
    loops = [] if stack == "external" else loops_left(cluster)
    return not loops and not sweep(seen_by(stack, cluster, home)).things


def loops_left(cluster: ClusterHosts) -> list[str]:
    return [loop for place in (cluster.folder / "sessions", *cluster.storage.disks) for loop in loops_of(place)]


def left_of(session: str) -> list[list[str]]:
    """Command lines of what runs for the session, agents apart."""
    lines = [processes.command_line(pid) for pid in processes.marked(processes.LEASE_VARIABLE, [session])]
    return [line for line in lines if line and "workers.agent" not in line]


def memory_mib(session: str) -> float:
    """Of all processes behind its walls, those too that have overwritten their mark; what they share is counted once."""
    marked = processes.marked(processes.LEASE_VARIABLE, [session])
    inside = {processes.pid_namespace(pid) for pid in marked} - {processes.pid_namespace(os.getpid()), None}
    return sum(pss_kib(pid) for pid in processes.all_pids() if processes.pid_namespace(pid) in inside) / 1024


def pss_kib(pid: int) -> int:
    """Nothing for what has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
