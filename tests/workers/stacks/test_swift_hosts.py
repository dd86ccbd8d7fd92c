"""Swift's storage servers on several hosts: pieces lie on both, and came over the hosts' own links."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from scenarios.recipe import Recipe
from scenarios.strict import BadData, parse_toml
from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, measured, storage_bed
from workers.hosts.base import Host
from workers.objectstores.swift import SwiftStore

SIZE_MIB = 16
ON_HOSTS = "[swift]\nreplicas = 3\nhosts = {hosts}\n"


def test_a_number_of_hosts_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadData, match="hosts must be 0 to 50"):
        parse_toml(recipe(rest=ON_HOSTS.format(hosts=51)), Recipe, source="stack.toml")


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "swift-hosts", payload_mib=SIZE_MIB, hosts=2) as bed:
        yield bed


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> DeploymentRepository:
    return DeploymentRepository(tmp_path_factory.mktemp("git") / "repository")


@pytest.mark.machine
def test_replicas_lie_on_both_hosts_and_came_over_their_links(bed: Bed, repository: DeploymentRepository) -> None:
    with bed.deploy(build_of(repository, recipe(rest=ON_HOSTS.format(hosts=2)))) as deployment:
        assert sorted(deployment.mounts) == ["h1-d1", "h1-d3", "h2-d2", "h2-d4"]
        before = [carried_bytes(host) for host in bed.cluster.hosts]
        store = SwiftStore(deployment, bed.observer, bed.payload)
        store.upload_segments("over-hosts", size_mib=SIZE_MIB, segment_mib=4, parallel=2)
        placed = store.placement_of("over-hosts")
        for piece, disks in placed.pieces.items():
            assert {disk.partition("-")[0] for disk in disks} == {"h1", "h2"}, piece
        for host, was in zip(bed.cluster.hosts, before, strict=True):
            held = sum(size for disk, size in placed.disk_bytes.items() if disk.startswith(host.name))
            assert held >= SIZE_MIB << 20
            assert carried_bytes(host) - was >= held
        assert store.usage().billed_bytes >= SIZE_MIB << 20  # told by the updaters of both
        sheet = measured(SwiftStore(deployment, bed.observer, bed.payload))
        assert [(o.outcome, o.reason) for o in sheet.outcomes()] == [("measured", None)] * 2
    assert [port for host in bed.cluster.hosts for port in ports_of(host) if port == "store"] == []


@pytest.mark.machine
def test_more_hosts_than_there_are_is_the_recipes_fault(bed: Bed, repository: DeploymentRepository) -> None:
    with pytest.raises(Failed, match="swift.hosts = 3, the cluster has 2 hosts") as failed:
        bed.deploy(build_of(repository, recipe(rest=ON_HOSTS.format(hosts=3))))
    assert failed.value.fault == "stack"


def carried_bytes(host: Host) -> int:
    """What has come in over the host's own link."""
    assert host.nearby is not None
    lines = Path(f"/proc/{host.nearby.pid}/net/dev").read_text()
    found = re.search(r"eth0:\s*(\d+)", lines)
    assert found is not None
    return int(found[1])


def ports_of(host: Host) -> list[str]:
    assert host.nearby is not None
    return re.findall(r"^\s*(\S+):", Path(f"/proc/{host.nearby.pid}/net/dev").read_text(), re.MULTILINE)
