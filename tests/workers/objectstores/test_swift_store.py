"""What a deployed Swift holds: uploads proven on its disks, and replicas that are not what was sent."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, storage_bed
from workers.objectstores.swift import SwiftStore, object_place
from workers.stacks.swift import Deployment

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "store", payload_mib=16) as bed:
        yield bed


@pytest.fixture(scope="module")
def deployment(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    repository = DeploymentRepository(tmp_path_factory.mktemp("git") / "repository")
    with bed.deploy(build_of(repository, recipe())) as deployment:
        yield deployment


@pytest.fixture
def store(bed: Bed, deployment: Deployment) -> SwiftStore:
    return SwiftStore(deployment, bed.observer, bed.payload)


def test_segments_lie_on_as_many_disks_as_there_are_replicas(store: SwiftStore) -> None:
    report = store.upload_segments("placed", size_mib=16, segment_mib=4, parallel=2)
    placed = store.placement_of("placed")
    disks = placed.pieces
    assert sum(placed.disk_bytes.values()) == 3 * 16 << 20
    assert list(disks) == [f"farm_segments/placed/1/{number:04d}" for number in range(4)]
    assert {len(set(holders)) for holders in disks.values()} == {3}
    assert len(report.segment_s) == 4
    assert store.read_back_digest("placed") == store.payload_digest(16)
    store.remove("placed")
    with pytest.raises(Failed, match="404"):
        store.read_back_digest("placed")
    store.remove("placed")


def stored_file(deployment: Deployment, path: str) -> Path:
    """One replica of an object, as the disks show it."""
    place = Path(*object_place(f"/AUTH_farm/{path}", deployment.settings.part_power))
    return next(file for mount in deployment.mounts.values() for file in (mount / place).glob("*.data"))


def corrupt(file: Path) -> None:
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for at in range(0, size, 32 << 10):
            opened.seek(at)
            opened.write(b"\0")


def make_sparse(file: Path) -> None:
    size = file.stat().st_size
    os.truncate(file, 0)
    os.truncate(file, size)


def shorten(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("harm", [corrupt, make_sparse, shorten])
def test_a_replica_that_is_not_what_was_sent_is_caught(
    store: SwiftStore, deployment: Deployment, harm: Callable[[Path], None]
) -> None:
    name = "harmed"
    store.upload_segments(name, size_mib=16, segment_mib=4, parallel=2)
    harm(stored_file(deployment, f"farm_segments/{name}/1/0002"))
    with pytest.raises(Failed, match="0002 on d"):
        store.placement_of(name)
    store.remove(name)


def test_a_missing_replica_and_a_false_link_make_no_proof(store: SwiftStore, deployment: Deployment) -> None:
    store.upload_single("linked", size_mib=16)
    file = stored_file(deployment, "farm/linked")
    copy = next(iter(deployment.mounts.values())) / "copy"
    copy.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(copy)
    assert [len(holders) for holders in store.placement_of("linked").pieces.values()] == [2]
    store.remove("linked")


def test_uneven_segments_make_the_object_too(store: SwiftStore) -> None:
    report = store.upload_segments("uneven", size_mib=16, segment_mib=7, parallel=8)
    assert len(report.segment_s) == 3
    assert store.read_back_digest("uneven") == store.payload_digest(16)
    store.remove("uneven")


def test_a_name_that_could_lead_elsewhere_is_refused(store: SwiftStore) -> None:
    with pytest.raises(Failed, match="no name for an upload"):
        store.upload_single("../../other/container", size_mib=16)
