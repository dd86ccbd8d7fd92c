"""A planned cluster by its driver: where it is, and a session's hold on it."""

from pathlib import Path

from scenarios.crossing import Plan, PlannedCluster
from workers.hosts.base import ClusterHosts
from workers.hosts.clouds import CloudPlace
from workers.hosts.namespaces import LocalCluster
from workers.hosts.ssh import SshCluster, SshHost
from workers.hypervisors.cloud import CloudCluster
from workers.hypervisors.qemu import QemuCluster
from workers.lending import require_quiet

Place = LocalCluster | SshCluster | CloudPlace
Hold = QemuCluster | CloudCluster


def place_of(home: Path, planned: PlannedCluster) -> Place:
    """Raises Failed (farm) for a cluster that cannot be."""
    if planned.driver == "openstack":
        return CloudPlace(home, planned)
    return SshCluster(home, planned) if planned.lent is not None else LocalCluster(home, planned)


def hold_on(cluster: ClusterHosts, plan: Plan, home: Path, folder: Path) -> Hold:
    """The session's, to be entered; `folder` is the session's own. Raises Failed (donor) where lent hosts are busy."""
    if cluster.cloud is not None:
        return CloudCluster(cluster, cluster.cloud, home, plan.session, folder)
    if lent := [host for host in cluster.hosts if isinstance(host, SshHost)]:
        require_quiet(lent)
    return QemuCluster(cluster, home, plan.session, plan.cluster.guest)
