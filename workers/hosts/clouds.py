"""A cloud that is there already as a cluster: there is nothing to bring up, and hosts are only names."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from scenarios.crossing import PlannedCluster
from workers.agent import AgentLink
from workers.hosts.base import Cloud, ClusterHosts, Storage
from workers.hosts.ground import CHECKOUT, HostStatus, agent_command, agent_environment
from workers.stacks.clouds import login_of

NOWHERE = Storage(Path("/proc/self/ns/net"), "", ())  # no object store is deployed


@dataclass(frozen=True)
class WorkerObserver:
    """The worker's own machine, which is in the guests' network; implements `workers.hosts.base.Observer`."""

    address: str

    def agent(self, lease: str) -> AgentLink:
        return AgentLink("observer", agent_command(), agent_environment(lease, CHECKOUT))


class CloudPlace:
    """The worker's side of a cloud; its state is under `home/clusters/<name>/`."""

    def __init__(self, home: Path, planned: PlannedCluster) -> None:
        """Raises Failed (farm) for what is no cloud."""
        self.folder = home.resolve() / "clusters" / planned.name
        self._home, self._planned = home, planned
        if planned.cloud is None:
            raise Failed("farm", f"cluster {planned.name}: its inventory file names no cloud")
        self._cloud = planned.cloud

    def up(self) -> ClusterHosts:
        """Raises Failed (farm) where the worker does not know how to log in."""
        (self.folder / "sessions").mkdir(parents=True, exist_ok=True)
        cloud = Cloud(self._cloud, login_of(self._home, self._cloud.name), self._planned.hosts)
        return ClusterHosts(
            name=self._planned.name,
            folder=self.folder,
            hosts=(),
            observer=WorkerObserver(self._cloud.observer),
            storage=NOWHERE,
            network="",
            guest_addresses=(),
            cloud=cloud,
        )

    def part(self, cluster: ClusterHosts, hosts: Collection[str]) -> ClusterHosts:
        """Its hosts are nobody's to promise."""
        return cluster

    def down(self) -> None:
        """It is not ours to end."""

    def status(self) -> list[HostStatus]:
        """Nobody sees its hosts."""
        return []
