"""A build's deployer by its name, and what the deployed stack answers scenarios with: hosts, store, own tests."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scenarios.contract import Host, ObjectStore, Unsupported
from workers.agent import AgentLink
from workers.builds import Build
from workers.hypervisors import nova
from workers.hypervisors.cloud import CloudCluster
from workers.hypervisors.nova_images import Images
from workers.objectstores.payload import Payload
from workers.objectstores.swift import SwiftStore, Visitor
from workers.places import Hold
from workers.stacks import external, openstack, openstack_tests, swift
from workers.stacks.suites import SandboxedSuite

Deployment = swift.Deployment | openstack.Deployment | external.Deployment


def deploy(build: Build, hypervisors: Hold, *, lease: str, run_dir: Path, home: Path, s3: bool = False) -> Deployment:
    """Bring `build` up; it is ready when this returns. `run_dir` is a new folder of the session `lease`.

    With `s3` an object store speaks that too. Raises Unsupported, and Failed: stack when the revision does not come up.
    """
    is_external = build.recipe.stack.deployer == "external"
    if isinstance(hypervisors, CloudCluster):
        if not is_external:
            raise Unsupported("nothing is deployed on a cloud that is there already: a recipe for it is external")
        return external.Deployment(hypervisors)
    if is_external:
        raise Unsupported("an external stack is a cloud that is there already, which this cluster is not")
    if build.recipe.stack.deployer == "openstack":
        if build.hypervisor:
            told = (
                "nova starts guests on the QEMU and libvirt that its hosts have, not on ones that the session deploys"
            )
            raise Unsupported(told)
        cluster, observer = hypervisors.cluster, hypervisors.observer
        return openstack.deploy(build, cluster, observer, lease=lease, run_dir=run_dir, home=home)
    cluster, software = hypervisors.cluster, home / "cache" / "software"
    return swift.deploy(build, cluster, lease=lease, run_dir=run_dir, software=software, s3=s3)


def hosts_of(deployment: Deployment, build: Build, hypervisors: Hold, *, run_dir: Path, home: Path) -> Sequence[Host]:
    """The cluster's hosts: behind Nova where that is deployed, as the hypervisor has them where it is not."""
    guest = build.recipe.guest
    if isinstance(hypervisors, CloudCluster):
        return hypervisors.hosts(guest)
    hosts = hypervisors.hosts(guest, build.recipe.disk, build.emulator, build.daemon)
    if not isinstance(deployment, openstack.Deployment):
        return hosts
    cloud = nova.Cloud(deployment.client, Images(hypervisors, deployment.client, home, run_dir / "images", guest))
    return [nova.NovaHost(hypervisors, host.link, host.revision, cloud) for host in hosts]


def store_of(deployment: Deployment, observer: AgentLink, payload: Payload) -> ObjectStore | None:
    """The deployed object store; with OpenStack as the user that Nova is asked by, with the same token."""
    if isinstance(deployment, external.Deployment):
        return deployment.store(payload)
    if isinstance(deployment, swift.Deployment):
        return SwiftStore(deployment, observer, payload)
    client = deployment.client
    account = client.endpoint("object-store").rpartition("/")[2]
    return SwiftStore(deployment.store, observer, payload, Visitor(account, client.token()))


def suite_of(deployment: Deployment, build: Build, hypervisors: Hold, *, run_dir: Path) -> SandboxedSuite | None:
    """The stack's own tests, where its recipe names some. `run_dir` is a new folder of the session."""
    if build.tests is None or isinstance(deployment, external.Deployment):
        return None
    cluster, session = hypervisors.cluster, hypervisors.session
    surroundings = (
        deployment.for_tests
        if isinstance(deployment, swift.Deployment)
        else partial(
            openstack_tests.surroundings, deployment.control, deployment.client, cluster, session, run_dir / "images"
        )
    )
    return SandboxedSuite(build, cluster.storage.network_namespace, surroundings, session, run_dir / "suite")
