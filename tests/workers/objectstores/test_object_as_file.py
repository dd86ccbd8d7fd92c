"""A large object on a real Swift: as one file, and on the bill."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios import object_as_file, upload_billing
from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, measured, storage_bed
from workers.objectstores.swift import SwiftStore
from workers.stacks.swift import Deployment

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "file", payload_mib=16) as bed:
        yield bed


@pytest.fixture(scope="module")
def deployment(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    repository = DeploymentRepository(tmp_path_factory.mktemp("git") / "repository")
    with bed.deploy(build_of(repository, recipe()), s3=True) as deployment:
        yield deployment


@pytest.fixture
def store(bed: Bed, deployment: Deployment) -> Iterator[SwiftStore]:
    """Nothing is left on its disks afterwards."""
    yield SwiftStore(deployment, bed.observer, bed.payload)
    assert [path for mount in deployment.mounts.values() for path in mount.glob("objects/*/*/*/*.data")] == []


@pytest.mark.parametrize("style", ["slo", "dlo", "s3"])
def test_a_large_object_behaves_as_one_file(store: SwiftStore, style: str) -> None:
    sheet = measured(store, object_as_file.SCENARIO, style=style)
    assert [(o.params["what"], o.outcome, o.reason) for o in sheet.outcomes()] == [
        (what, "measured", None) for what in ("read", "copy", "overwrite", "delete", "retry")
    ]
    assert {sample.metric for sample in sheet.samples()} == {m.name for m in object_as_file.SCENARIO.metrics}


def test_segments_are_billed_once_and_those_of_no_object_are_found(store: SwiftStore) -> None:
    sheet = measured(store, upload_billing.SCENARIO)
    assert [(o.outcome, o.reason) for o in sheet.outcomes()] == [("measured", None)] * 3
    values = {sample.metric: sample.value for sample in sheet.samples()}
    assert 1 < values["billed_ratio"] < 1.01
    assert (values["listed_ratio"], values["orphans"], values["left_by_overwrite"]) == (3.0, 4, 4)


# Python reads it whenever it starts
IDLE_UPDATER = """
import os, sys
if any("container-updater" in argument for argument in sys.orig_argv):
    os._exit({status})
"""
IDLE_PART = '[[component]]\nname = "idle"\nsource = { path = "idle" }\n'


@pytest.mark.parametrize(("status", "told"), [(0, "0 are billed"), (7, "swift's container updater ended with 7")])
def test_an_account_that_is_told_nothing_is_the_stacks_fault(
    local_home: Path, tmp_path: Path, status: int, told: str
) -> None:
    idle = {"idle/sitecustomize.py": IDLE_UPDATER.format(status=status)}
    build = build_of(DeploymentRepository(tmp_path / "repository"), recipe(rest=IDLE_PART), **idle)
    with storage_bed(local_home, "idle", payload_mib=16) as bed, bed.deploy(build) as deployment:
        sheet = measured(SwiftStore(deployment, bed.observer, bed.payload), upload_billing.SCENARIO)
    billed = next(one for one in sheet.outcomes() if one.params["what"] == "billed")
    assert (billed.outcome, billed.fault) == ("failed", "stack")
    assert told in str(billed.reason)
