"""A cloud that is there already, before anything is made in it: whether it has a place for us, and what it cannot do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.contract import DiskShape, Failed, Hardware, System, Unsupported
from scenarios.crossing import PlannedCloud, PlannedHost
from scenarios.recipe import GuestSettings
from tests.helpers.small_cloud import SmallCloud, small_cloud
from workers.hosts.base import Cloud, ClusterHosts
from workers.hosts.clouds import NOWHERE, WorkerObserver
from workers.hypervisors.cloud import CloudCluster, CloudHost
from workers.stacks.openstack_client import Login

OBSERVER = "127.0.0.1"
NETWORKS, SUBNETS = "GET /network/v2.0/networks", "GET /network/v2.0/subnets"
RECIPE = GuestSettings()


@pytest.fixture
def theirs() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        cloud.services["image"] = "/image"
        cloud.answer(NETWORKS, (200, {"networks": [{"id": "n1", "name": "guests"}, {"id": "n2", "name": "others"}]}))
        cloud.answer(SUBNETS, (200, {"subnets": [subnet("n1", "127.0.0.0/8"), subnet("n2", "10.0.0.0/24")]}))
        cloud.answer("GET /v2.1/os-hypervisors/detail", (403, {"forbidden": {}}))
        cloud.answer("GET /v2.1/os-services", (403, {"forbidden": {}}))
        yield cloud


def subnet(network: str, addresses: str) -> dict[str, str]:
    return {"network_id": network, "cidr": addresses}


def hold_on(theirs: SmallCloud, folder: Path, flavor: str = "") -> CloudCluster:
    login = Login(f"{theirs.url}/v3", "measurer", "s3cret", "farm", "here")
    hosts = (PlannedHost("anywhere", "nova", "there"), PlannedHost("at-h1", "nova:h1", "there"))
    cloud = Cloud(PlannedCloud("theirs", "guests", OBSERVER, flavor), login, hosts)
    cluster = ClusterHosts("theirs", folder, (), WorkerObserver(OBSERVER), NOWHERE, "", (), cloud)
    return CloudCluster(cluster, cloud, folder, "a-session", folder)


def test_guests_are_given_addresses_with_the_prefix_that_the_observer_has(theirs: SmallCloud, tmp_path: Path) -> None:
    with hold_on(theirs, tmp_path) as cloud:
        assert (cloud.network, cloud.with_prefix("127.0.0.7")) == ("n1", "127.0.0.7/8")


@pytest.mark.parametrize(
    ("networks", "subnets", "fault", "reason"),
    [
        ([], [], "donor", "cloud theirs has 0 networks 'guests' for us"),
        (["n1", "n3"], [], "donor", "cloud theirs has 2 networks 'guests' for us"),
        (["n1"], [subnet("n1", "10.0.0.0/24")], "farm", "127.0.0.1 is not in network 'guests' (10.0.0.0/24)"),
        (["n1"], [subnet("n2", "127.0.0.0/8")], "farm", "127.0.0.1 is not in network 'guests' (no subnet)"),
    ],
)
def test_a_cloud_without_a_network_for_us_is_not_measured(
    theirs: SmallCloud,
    tmp_path: Path,
    networks: list[str],
    subnets: list[dict[str, str]],
    fault: str,
    reason: str,
) -> None:
    theirs.answer(NETWORKS, (200, {"networks": [{"id": number, "name": "guests"} for number in networks]}))
    theirs.answer(SUBNETS, (200, {"subnets": subnets}))
    with pytest.raises(Failed) as caught, hold_on(theirs, tmp_path):
        pass
    assert caught.value.fault == fault
    assert str(caught.value).endswith(reason)


@pytest.mark.parametrize(
    ("ram", "vcpus", "reason"),
    [
        (RECIPE.memory_mib, RECIPE.vcpus, None),
        (2048, RECIPE.vcpus, "flavor 'small' has 2048 MiB and 1 processors, not"),
        (RECIPE.memory_mib, 4, f"flavor 'small' has {RECIPE.memory_mib} MiB and 4 processors, not"),
    ],
)
def test_a_flavor_of_the_clouds_is_used_where_it_is_the_stacks_size(
    theirs: SmallCloud, tmp_path: Path, ram: int, vcpus: int, reason: str | None
) -> None:
    flavors = [{"id": "f0", "name": "tiny"}, {"id": "f1", "name": "small", "ram": ram, "vcpus": vcpus}]
    theirs.answer("GET /v2.1/flavors/detail", (200, {"flavors": flavors}))
    with hold_on(theirs, tmp_path, "small") as cloud:
        if reason is None:
            assert {cloud.flavor(RECIPE), cloud.flavor(RECIPE)} == {"f1"}
            assert [asked for asked, _ in theirs.asked].count("GET /v2.1/flavors/detail") == 1
        else:
            with pytest.raises(Unsupported, match=reason):
                cloud.flavor(RECIPE)


def test_a_flavor_that_the_cloud_does_not_have_is_unsupported(theirs: SmallCloud, tmp_path: Path) -> None:
    theirs.answer("GET /v2.1/flavors/detail", (200, {"flavors": []}))
    with hold_on(theirs, tmp_path, "small") as cloud, pytest.raises(Unsupported, match="has no flavor 'small' for us"):
        cloud.flavor(RECIPE)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"system": System("debian")}, "a debian guest with firmware .* is not among the cloud's images"),
        ({"reserved": True}, "the cloud's affair"),
        ({"hardware": Hardware(cpu="maximum")}, "the cloud's affair"),
    ],
)
def test_guests_that_no_cloud_can_be_asked_for_are_unsupported(
    theirs: SmallCloud, tmp_path: Path, asked: dict[str, object], reason: str
) -> None:
    cloud = hold_on(theirs, tmp_path)
    host = CloudHost(cloud, cloud.cloud.hosts[0], GuestSettings(cpu="qemu64"))
    with pytest.raises(Unsupported, match=reason), host.guest(nonce="n", **asked):  # type: ignore[arg-type]
        pass
    assert theirs.asked == []


@pytest.mark.parametrize(("method", "shape"), [("overlay", DiskShape()), ("shared", DiskShape(layers=2))])
def test_a_clouds_disks_are_its_own(theirs: SmallCloud, tmp_path: Path, method: str, shape: DiskShape) -> None:
    cloud = hold_on(theirs, tmp_path)
    host = CloudHost(cloud, cloud.cloud.hosts[0], RECIPE)
    with pytest.raises(Unsupported, match="makes its guests' disks itself"):
        host.make_disk(method, shape)
    assert host.make_disk("shared")[1] is None
