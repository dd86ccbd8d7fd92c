"""Real revisions of Swift, deployed and taken down; uploads that are what they claim, and such that are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios import chunked_upload
from scenarios.contract import Failed
from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, measured, storage_bed
from workers import processes
from workers.loops import loops_of
from workers.objectstores.swift import SwiftStore

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "swift", payload_mib=16) as bed:
        yield bed


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> DeploymentRepository:
    return DeploymentRepository(tmp_path_factory.mktemp("git") / "repository")


@pytest.mark.parametrize("version", ["2.35.5", "2.38.3"])
def test_a_revision_comes_up_is_measured_and_goes(bed: Bed, repository: DeploymentRepository, version: str) -> None:
    with bed.deploy(build_of(repository, recipe(f"swift=={version}"))) as deployment:
        asked = bed.observer.run(
            ["/usr/bin/python3", "-c", f"import urllib.request as u; print(u.urlopen('http://{deployment.address}:8080/info').read().decode())"],
            timeout_s=20,
        )  # fmt: skip
        assert f'"version": "{version}"' in asked
        sheet = measured(SwiftStore(deployment, bed.observer, bed.payload))
        assert [(o.outcome, o.reason) for o in sheet.outcomes()] == [("measured", None)] * 2
        values = {(s.params["shape"], s.metric): s.value for s in sheet.samples() if s.valid}
        assert all(value > 0 for value in values.values())
        assert {metric for shape, metric in values if shape == "segments"} == {
            m.name for m in chunked_upload.SCENARIO.metrics
        }
        inside = processes.marked(processes.LEASE_VARIABLE, [bed.mark.session])
        assert len(inside) > 5
    images = bed.cluster.storage.disks
    assert not [loop for image in images for loop in loops_of(image)]
    left = [processes.command_line(pid) for pid in processes.marked(processes.LEASE_VARIABLE, [bed.mark.session])]
    assert [line for line in left if "workers.agent" not in line] == []


LIAR = """
class Liar:
    def __init__(self, app): self.app = app
    def __call__(self, environ, start_response):
        if environ['REQUEST_METHOD'] != 'GET' or '/farm/' not in environ['PATH_INFO']:
            return self.app(environ, start_response)
        body = bytearray(b''.join(self.app(environ, start_response)))
        if len(body) > 1:
            body[len(body) // 2] ^= 1
        return [bytes(body)]
def factory(global_conf, **settings): return Liar
"""
LIAR_PART = """
[[component]]
name = "liar"
source = { path = "liar" }
[[swift.filters]]
name = "liar"
factory = "liar:factory"
"""


def test_an_object_that_reads_back_differently_voids_its_samples(bed: Bed, repository: DeploymentRepository) -> None:
    build = build_of(repository, recipe(rest=LIAR_PART), **{"liar/liar.py": LIAR})
    with bed.deploy(build) as lying:
        sheet = measured(SwiftStore(lying, bed.observer, bed.payload))
    assert [sample.valid for sample in sheet.samples()] == [False] * 14
    assert all("reads back with SHA-256" in str(outcome.reason) for outcome in sheet.outcomes())


BROKEN_PART = LIAR_PART.replace("liar:factory", "liar:no_such_factory")
BAD_REVISIONS = {
    "import that fails": (
        recipe(rest=BROKEN_PART),
        "component 'swift' .at: deployment.: swift's proxy server ended with 1: .*no_such_factory",
    ),
    "value that Swift refuses": (
        recipe(rest='[swift.object]\nmax_upload_time = "never"\n'),
        "swift's object server ended",
    ),
    "more replicas than disks": (recipe(rest="[swift]\nreplicas = 5\n"), "the cluster has 4 disks"),
}


@pytest.mark.parametrize("case", BAD_REVISIONS)
def test_a_revision_that_does_not_come_up_says_why(bed: Bed, repository: DeploymentRepository, case: str) -> None:
    stack, message = BAD_REVISIONS[case]
    with pytest.raises(Failed, match=message) as caught:
        bed.deploy(build_of(repository, stack, **{"liar/liar.py": LIAR}))
    assert caught.value.fault == "stack"
    assert not [loop for image in bed.cluster.storage.disks for loop in loops_of(image)]


def test_a_deployment_that_is_gone_is_known_to_be(bed: Bed, repository: DeploymentRepository) -> None:
    deployment = bed.deploy(build_of(repository, recipe()))
    store = SwiftStore(deployment, bed.observer, bed.payload)
    used_s = deployment.server_cpu_s()
    store.upload_single("some", size_mib=16)
    assert deployment.server_cpu_s() > used_s
    deployment.undeploy()
    deployment.undeploy()
    with pytest.raises(Failed, match="talking to the object store"):
        store.read_back_digest("some")
