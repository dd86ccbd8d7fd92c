"""The axes of chunked_upload on a real Swift: one cell of each."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, measured, storage_bed
from workers import processes
from workers.objectstores.swift import SwiftStore
from workers.stacks.swift import Deployment

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "axes", payload_mib=16, disk_mib=2048) as bed:
        yield bed


@pytest.fixture(scope="module")
def deployment(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two replicas on four disks, and S3 beside Swift's own language."""
    repository = DeploymentRepository(tmp_path_factory.mktemp("git") / "repository")
    with bed.deploy(build_of(repository, recipe(rest="[swift]\nreplicas = 2\n")), s3=True) as deployment:
        yield deployment


@pytest.fixture
def store(bed: Bed, deployment: Deployment) -> SwiftStore:
    return SwiftStore(deployment, bed.observer, bed.payload)


def test_every_style_makes_one_object_and_leaves_nothing(store: SwiftStore, deployment: Deployment) -> None:
    for style in ("slo", "dlo", "s3"):
        sheet = measured(store, style=style, segment_mib=5)
        assert [(o.outcome, o.reason) for o in sheet.outcomes()] == [("measured", None)] * 2
        values = {sample.metric: sample.value for sample in sheet.samples() if sample.params["shape"] == "segments"}
        assert values["distinct_disks"] >= 2
        assert 1 <= values["load_skew"] <= 2
        assert values["client_memory_mib"] < 64
    assert [path for mount in deployment.mounts.values() for path in mount.glob("objects/*/*/*/*.data")] == []


def test_names_chosen_by_the_ring_make_disks_share_the_load(store: SwiftStore) -> None:
    sheet = measured(store, placed_by="ring", segment_mib=1, parallel=8)
    assert [(o.outcome, o.reason) for o in sheet.outcomes()] == [("measured", None)] * 2
    values = {sample.metric: sample.value for sample in sheet.samples() if sample.params["shape"] == "segments"}
    # 16 segments twice on four disks: as found on these, each has its eight
    assert (values["distinct_disks"], values["load_skew"]) == (4, 1.0)


def test_s3_parts_have_no_names_to_choose(store: SwiftStore) -> None:
    outcomes = measured(store, placed_by="ring", style="s3").outcomes()
    assert [outcome.outcome for outcome in outcomes] == ["measured", "unsupported"]


def test_memory_does_not_grow_with_the_upload(bed: Bed, store: SwiftStore) -> None:
    small = store.upload_segments("small", size_mib=16, segment_mib=4, parallel=4)
    with most_memory_of_senders(bed.mark.session) as seen_kib:
        huge = store.upload_segments("huge", size_mib=640, segment_mib=20, parallel=4, placed_by="ring")
    store.remove("huge")
    store.remove("small")
    assert len(seen_kib) > 10
    assert max(seen_kib) / 1024 < huge.client_memory_mib * 1.1 < small.client_memory_mib * 1.3 < 64


@contextmanager
def most_memory_of_senders(session: str) -> Iterator[list[int]]:
    """What all sending processes of the session have in memory together, seen from outside again and again."""
    seen_kib: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            pids = processes.marked(processes.LEASE_VARIABLE, [session])
            senders = [pid for pid in pids if "workers.objectstores.sender" in processes.command_line(pid)]
            if senders:
                seen_kib.append(sum(map(memory_kib, senders)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen_kib
    finally:
        over.set()
        watcher.join()


def memory_kib(pid: int) -> int:
    """The process's share of what it has in memory."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
