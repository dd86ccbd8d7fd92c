"""What tempest is told of a deployment, and what stays of its guests: nothing, whatever Nova makes of them."""

import configparser
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.local_clusters import guests_of, start_bare_guest
from tests.helpers.small_cloud import SmallCloud, small_cloud
from tests.workers.test_agent import start_link
from workers.hosts.base import ClusterHosts
from workers.hosts.namespaces import LocalCluster
from workers.marks import guest_prefix
from workers.stacks import openstack_conf as conf
from workers.stacks import openstack_tests
from workers.stacks.openstack_client import Client, Login

SESSION, OTHERS = "0123456789abcdef", "fedcba9876543210"
CONTROL = conf.Control("10.0.0.1", conf.Secrets("the-password", "s" * 8, "m" * 8))
pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., LocalCluster]) -> ClusterHosts:
    return make_cluster("elm").up()


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        cloud.services["image"] = "/image"
        cloud.answer("POST /image/v2/images", (201, {"id": "one"}), (201, {"id": "two"}))
        for image in ("one", "two"):
            cloud.answer(f"PUT /image/v2/images/{image}/file", (204, None))
        cloud.answer("POST /v2.1/flavors", (200, {"flavor": {"id": "small"}}), (200, {"flavor": {"id": "large"}}))
        yield cloud


@pytest.fixture
def client(cloud: SmallCloud) -> Iterator[Client]:
    with start_link() as observer:
        yield Client(observer, Login(f"{cloud.url}/v3", "someone", "secret", "a project", "here"))


def test_guests_that_the_tests_leave_are_removed_and_no_others(
    cluster: ClusterHosts, client: Client, tmp_path: Path
) -> None:
    there = {f"{guest_prefix(SESSION)}before", f"{guest_prefix(OTHERS)}another"}
    first, last = cluster.hosts[0], cluster.hosts[-1]
    for name in there:
        start_bare_guest(first, name)
    with (
        contextlib.suppress(Failed),
        openstack_tests.surroundings(CONTROL, client, cluster, SESSION, tmp_path / "images") as told,
    ):
        for host in (first, last):
            start_bare_guest(host, f"{guest_prefix(SESSION)}left-{host.name}")
        start_bare_guest(last, f"{guest_prefix(OTHERS)}meanwhile")
        raise Failed("stack", "the stack's tests did not end")
    assert guests_of(cluster) == sorted([*there, f"{guest_prefix(OTHERS)}meanwhile"])

    parser = configparser.RawConfigParser()
    parser.read_string(told.texts["/etc/tempest/tempest.conf"])
    assert dict(parser["auth"])["admin_password"] == "the-password"
    compute = parser["compute"]
    references = [compute[name] for name in ("image_ref", "image_ref_alt", "flavor_ref", "flavor_ref_alt")]
    assert references == ["one", "two", "small", "large"]
    assert compute.getint("min_compute_nodes") == len(cluster.hosts)


def test_a_deployment_that_takes_no_image_is_the_stacks_fault(
    cluster: ClusterHosts, cloud: SmallCloud, client: Client, tmp_path: Path
) -> None:
    cloud.answer("POST /image/v2/images", (500, {"message": "no such luck"}))
    with (
        pytest.raises(
            Failed, match=r"component 'glance' \(at: use\): POST /images answers 500: .*no such luck"
        ) as failed,
        openstack_tests.surroundings(CONTROL, client, cluster, SESSION, tmp_path / "images"),
    ):
        pass
    assert failed.value.fault == "stack"
