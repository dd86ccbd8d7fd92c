"""The axes of chunked_upload on a real Swift: one cell of each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, measured, storage_bed
from workers.objectstores.swift import SwiftStore
from workers.stacks.swift import Deployment

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "axes", payload_mib=16) as bed:
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
