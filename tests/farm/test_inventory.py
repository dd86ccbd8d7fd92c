"""Inventory files: the operator's own guest, and what a donor promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from farm.inventory import Cluster, load_inventory
from scenarios.contract import Failed
from scenarios.crossing import PlannedCloud, PlannedCluster, PlannedGuest, PlannedHost, SshTarget, ssh_target
from scenarios.strict import BadData, parse_toml
from workers.hosts.namespaces import LocalCluster

ACORN = (Path(__file__).resolve().parents[2] / "inventory" / "acorn.toml").read_text()
GUEST = f"""
[guest]
image = "/srv/images/ours.qcow2"
sha256 = "{"a" * 64}"
format = "qcow2"
firmware = "ovmf"
tcp_port = 22
"""


def test_a_cluster_without_a_guest_of_its_own_plans_none() -> None:
    assert parse_toml(ACORN, Cluster, source="acorn.toml").planned.guest is None


def test_the_operators_guest_is_told_to_the_worker() -> None:
    planned = parse_toml(ACORN + GUEST, Cluster, source="acorn.toml").planned
    assert planned.guest == PlannedGuest("/srv/images/ours.qcow2", "a" * 64, "qcow2", "ovmf", 22, memory_mib=512)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("/srv/images/ours.qcow2", "ours.qcow2", "whole path"),
        ("a" * 64, "A" * 64, "SHA-256"),
        ("= 22", "= 70000", "tcp_port"),
        ('"qcow2"', '"vmdk"', "format"),
        ("tcp_port", "port", "port"),
    ],
)
def test_what_cannot_be_booted_is_refused_by_name(right: str, wrong: str, told: str) -> None:
    with pytest.raises(BadData, match=told):
        parse_toml(ACORN + GUEST.replace(right, wrong), Cluster, source="acorn.toml")


def test_an_image_that_is_not_there_is_refused_when_the_inventory_is_read(tmp_path: Path) -> None:
    image = tmp_path / "ours.qcow2"
    (tmp_path / "acorn.svg").touch()
    (tmp_path / "acorn.toml").write_text(ACORN + GUEST.replace("/srv/images/ours.qcow2", str(image)))
    with pytest.raises(BadData, match=f"acorn.toml: guest.image '{image}' is not a file on this machine"):
        load_inventory(tmp_path)
    image.touch()
    assert set(load_inventory(tmp_path)) == {"acorn"}


def test_a_donor_may_promise_hardware_and_nothing_else() -> None:
    promised = ACORN.replace("publish = true", 'publish = true\nfidelity = "hardware"')
    assert parse_toml(ACORN, Cluster, source="acorn.toml").planned.fidelity is None
    assert parse_toml(promised, Cluster, source="acorn.toml").planned.fidelity == "hardware"
    with pytest.raises(BadData, match="fidelity"):
        parse_toml(promised.replace('"hardware"', '"best"'), Cluster, source="acorn.toml")


CLOUD = """
[cloud]
name = "theirs"
network = "guests"
observer = "10.0.0.9"
"""
OURS = "[storage]\ndisks = 4\ndisk_mib = 3072\n"
THEIRS = (
    ACORN.replace(OURS, "").replace('"qemu"', '"openstack"').replace('uri = "local:debian12"', 'uri = "nova:h1"', 1)
).replace('uri = "local:debian12"', 'uri = "nova"') + CLOUD


def test_a_cloud_that_is_there_is_told_to_the_worker_without_any_secret() -> None:
    planned = parse_toml(THEIRS, Cluster, source="acorn.toml").planned
    assert planned.cloud == PlannedCloud("theirs", "guests", "10.0.0.9")
    assert [host.uri for host in planned.hosts] == ["nova:h1", "nova"]
    assert (planned.driver, planned.storage_disks) == ("openstack", 0)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('"openstack"', '"qemu"', "needs a .cloud., and no other has one"),
        (CLOUD, "", "needs a .cloud."),
        ('uri = "nova"', 'uri = "local:debian12"', "is not one of driver 'openstack'"),
        ('observer = "10.0.0.9"', 'observer = "here"', "must be an IPv4 address"),
        ('network = "guests"', 'network = ""', "cloud.network must be a name"),
        ('network = "guests"', 'network = "guests"\npassword = "s3cret"', "password"),
    ],
)
def test_a_cloud_that_cannot_be_is_refused_by_name(right: str, wrong: str, told: str) -> None:
    assert right in THEIRS
    with pytest.raises(BadData, match=told):
        parse_toml(THEIRS.replace(right, wrong), Cluster, source="acorn.toml")


@pytest.mark.parametrize("uri", ["http://h1.example", "qemu+ssh://root@h1/system", "local:debian13", "local", ""])
def test_hosts_that_no_worker_has_are_refused_with_what_can_be_lent_today(uri: str) -> None:
    with pytest.raises(BadData, match="local:debian12.*local:backports.*machines through ssh.*OpenStack") as told:
        parse_toml(ACORN.replace("local:debian12", uri), Cluster, source="acorn.toml")
    assert f"uri = {uri!r}" in str(told.value)
    assert "\n" not in str(told.value)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampl0"
LENT = """
[lent]
folder = "/srv/farm"
bridge = "br-test"
network = "10.20.0.0/24"
observer = "10.20.0.254"
storage = "10.20.0.253"
first_guest = "10.20.0.100"
last_guest = "10.20.0.199"
peers = "qemu+tls://%s/system"
memory_mib = 4096
disk_mib = 8192
most_load = 0.25
"""
MACHINES = (
    ACORN.replace('uri = "local:debian12"', f'uri = "ssh://farm@192.0.2.1"\naddress = "10.20.0.1"\nhost_key = "{KEY}"', 1)
    .replace('uri = "local:debian12"', f'uri = "ssh://farm@h2.example:222"\naddress = "10.20.0.2"\nhost_key = "{KEY}"')
    + LENT
)  # fmt: skip


def test_machines_through_ssh_are_told_to_the_worker_with_their_keys_and_without_any_secret() -> None:
    planned = parse_toml(MACHINES, Cluster, source="acorn.toml").planned
    assert [ssh_target(host.uri) for host in planned.hosts] == [
        SshTarget("farm", "192.0.2.1", 22),
        SshTarget("farm", "h2.example", 222),
    ]
    assert {host.host_key for host in planned.hosts} == {KEY}
    assert planned.lent is not None
    assert (planned.lent.guest_addresses[0], len(planned.lent.guest_addresses)) == ("10.20.0.100", 100)


def test_guests_run_on_the_processor_of_machines_and_are_emulated_on_hosts_of_our_own() -> None:
    assert parse_toml(MACHINES.replace('"qemu"', '"kvm"'), Cluster, source="acorn.toml").planned.driver == "kvm"
    with pytest.raises(BadData, match="is not one of driver 'kvm'"):
        parse_toml(ACORN.replace('"qemu"', '"kvm"'), Cluster, source="acorn.toml")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        (LENT, "", "need a .lent. that says what they lend"),
        ("ssh://farm@192.0.2.1", "ssh://192.0.2.1", "uri must be ssh://USER@MACHINE"),
        ("ssh://farm@192.0.2.1", "ssh://farm:s3cret@192.0.2.1", "uri must be ssh://USER@MACHINE"),
        ("ssh://farm@192.0.2.1", "ssh://-oProxyCommand=x@y", "uri must be ssh://USER@MACHINE"),
        ("ssh://farm@192.0.2.1", "local:debian12", "not mixed"),
        (f'host_key = "{KEY}"', "", "host_key must be the machine's public key"),
        (KEY, f"{KEY}\\nh2 {KEY}", "host_key must be the machine's public key"),
        ('address = "10.20.0.1"', 'address = "10.20.0.2"', "and nobody else's"),
        ('address = "10.20.0.1"', 'address = "10.20.0.100"', "and nobody else's"),
        ('address = "10.20.0.1"', 'address = "10.21.0.1"', "must be in lent.network"),
        ('folder = "/srv/farm"', 'folder = "srv"', "lent.folder"),
        ('folder = "/srv/farm"', 'folder = "/srv/$(x)"', "lent.folder"),
        ('bridge = "br-test"', 'bridge = "-br"', "lent.bridge"),
        ("10.20.0.0/24", "10.20.0.1/24", "has host bits set"),
        ("10.20.0.253", "10.20.0.254", "different addresses"),
        ("10.20.0.199", "10.20.0.99", "different addresses"),
        ("%s", "h1", "one %s"),
        ("most_load = 0.25", "most_load = 2", "lent.most_load"),
        ('name = "h1"', 'name = "h1 -v"', "lower-case letters"),
    ],
)
def test_machines_that_could_not_be_reached_are_refused_by_name(right: str, wrong: str, told: str) -> None:
    assert right in MACHINES
    with pytest.raises(BadData, match=told) as refused:
        parse_toml(MACHINES.replace(right, wrong, 1), Cluster, source="acorn.toml")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("uri", ["local:debian12", "local:backports", "local:debian13", "ssh://h1.example"])
def test_the_inventory_takes_the_very_hosts_that_a_worker_makes(uri: str, tmp_path: Path) -> None:
    (tmp_path / "cache" / "software" / "backports" / "root" / "usr").mkdir(parents=True)
    planned = PlannedCluster("any", "qemu", (PlannedHost("h1", uri, "here"),), storage_disks=1, storage_disk_mib=64)
    assert _is_taken(
        lambda: parse_toml(ACORN.replace("local:debian12", uri), Cluster, source="acorn.toml"), BadData
    ) == (_is_taken(lambda: LocalCluster(tmp_path, planned), Failed))


def _is_taken(read: Callable[[], object], refusal: type[Exception]) -> bool:
    try:
        read()
    except refusal:
        return False
    return True


def test_hosts_that_are_ours_need_disks_for_a_store_and_are_no_places_in_a_cloud() -> None:
    with pytest.raises(BadData, match="storage"):
        parse_toml(ACORN.replace(OURS, ""), Cluster, source="acorn.toml")
    with pytest.raises(BadData, match="is not one of driver 'qemu'"):
        parse_toml(ACORN.replace("local:debian12", "nova"), Cluster, source="acorn.toml")
