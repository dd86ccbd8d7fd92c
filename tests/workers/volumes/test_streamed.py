"""A base image that one host serves and another pulls: what is proven of it, and that nothing stays."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scenarios.contract import DiskShape, Failed, WorkNotProven
from workers.agent import AgentLink
from workers.hosts.base import ClusterHosts, Host
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.sweep import sweep
from workers.volumes.disks import AgentDisk, Base, BaseServer, make_streamed_disk

pytestmark = pytest.mark.machine

MIB = 16


@dataclass(frozen=True)
class Workshop:
    """A session on two hosts, the first of which serves the second."""

    cluster: ClusterHosts
    server: BaseServer
    serving: AgentLink
    using: AgentLink
    base: Base

    def make(self) -> AgentDisk:
        uid, path = self.cluster.hosts[1].guest_uid, self.base.path.with_name(uuid.uuid4().hex)
        shape = DiskShape(cluster_size_kib=64)
        return make_streamed_disk(self.using, path, self.server, self.base, uid=uid, shape=shape, pulled=True)[0]

    def pull(self, disk: AgentDisk) -> None:
        """As the hypervisor would: copy what is elsewhere, then let go of it."""
        self.using.run(["qemu-img", "rebase", "-f", "qcow2", "-b", "", str(disk.path)], timeout_s=60)


def make_base(host: Host, agent: AgentLink, session: str) -> Base:
    folder = str(host.work_dir / "sessions" / session)
    agent.call("basics.make_folder", timeout_s=10, path=folder, uid=host.guest_uid)
    made = agent.call("volumes.base.make_base", timeout_s=60, folder=folder, mib=MIB)
    return Base(Path(made["path"]), made["digest"])


def serve(host: Host, agent: AgentLink, base: Base) -> BaseServer:
    return BaseServer(agent, base, host, folder=base.path.parent)


@pytest.fixture(scope="module")
def workshop(make_cluster: Callable[..., LocalCluster]) -> Iterator[Workshop]:
    cluster = make_cluster("streams").up()
    session = uuid.uuid4().hex
    first, second = cluster.hosts
    with SessionMark(cluster.folder, session), first.agent(session) as serving, second.agent(session) as using:
        server = serve(first, serving, make_base(first, serving, session))
        yield Workshop(cluster, server, serving, using, make_base(second, using, session))
    # the agent that started it has gone, and the session too: the sweep finds the server by its mark
    swept = sweep(cluster)
    assert [process for process in swept.processes if "qemu-nbd" in process]
    assert swept.failures == ()


def test_a_disk_that_was_pulled_is_proven(workshop: Workshop) -> None:
    before_mib = workshop.server.served_mib()
    disk = workshop.make()
    with pytest.raises(WorkNotProven, match="it was not pulled: the disk still lies over nbd://"):
        disk.prove_sharing()
    workshop.pull(disk)
    assert workshop.server.served_mib() >= before_mib + MIB
    assert "were copied as they were" in disk.prove_sharing()
    with pytest.raises(WorkNotProven, match="block 0 of 32 at the disk's end"):
        disk.prove_written("nobody", 32)
    workshop.using.run(["qemu-io", "-f", "qcow2", "-c", "write -P 0 5M 4k", str(disk.path)], timeout_s=60)
    with pytest.raises(WorkNotProven, match="differs in the MiB at 5 MiB"):
        disk.prove_sharing()
    disk.remove()


def test_nobody_can_write_to_what_is_served(workshop: Workshop) -> None:
    with pytest.raises(Failed, match="Permission denied"):
        workshop.using.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", workshop.server.url], timeout_s=60)


def test_a_server_that_was_ended_serves_no_more(workshop: Workshop) -> None:
    again = serve(workshop.cluster.hosts[0], workshop.serving, workshop.base)
    again.end()
    again.end()
    with pytest.raises(Failed, match="has ended"):
        again.served_mib()
