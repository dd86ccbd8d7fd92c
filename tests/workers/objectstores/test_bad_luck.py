"""Stores that are busy, full, careless or lying: whose fault it is, that nothing counts, and that the next upload does."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios import object_as_file
from scenarios.contract import Failed, Unsupported
from tests.helpers.check_ins import DeploymentRepository, recipe
from tests.helpers.object_stores import Bed, build_of, measured, storage_bed
from workers import processes
from workers.builds import Build
from workers.objectstores.swift import SwiftStore

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "luck", payload_mib=16) as bed:
        yield bed


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> DeploymentRepository:
    return DeploymentRepository(tmp_path_factory.mktemp("git") / "repository")


def build_with(repository: DeploymentRepository, code: str) -> Build:
    """The stack with a class `Odd` in front of it, a piece of middleware."""
    part = """
[[component]]
name = "odd"
source = { path = "odd" }
[[swift.filters]]
name = "odd"
factory = "odd:factory"
"""
    made = f"import hashlib, io\n{code}\ndef factory(global_conf, **settings): return Odd\n"
    return build_of(repository, recipe(rest=part), **{"odd/odd.py": made})


BUSY = """
class Odd:
    'Each segment is refused twice; of one upload, always.'
    def __init__(self, app): self.app, self.seen = app, {}
    def __call__(self, environ, start_response):
        path = environ['PATH_INFO']
        if environ['REQUEST_METHOD'] == 'PUT' and '/farm_segments/' in path:
            self.seen[path] = self.seen.get(path, 0) + 1
            if self.seen[path] <= 2 or '/never/' in path:
                start_response('503 Service Unavailable', [('Content-Length', '0')])
                return [b'']
        return self.app(environ, start_response)
"""


def test_a_busy_store_is_asked_again_but_not_for_ever(bed: Bed, repository: DeploymentRepository) -> None:
    with bed.deploy(build_with(repository, BUSY)) as busy:
        store = SwiftStore(busy, bed.observer, bed.payload)
        with pytest.raises(Failed, match="PUT of farm_segments/never/.*: 503") as caught:
            store.upload_segments("never", size_mib=8, segment_mib=4, parallel=2)
        assert caught.value.fault == "stack"
        report = store.upload_segments("later", size_mib=8, segment_mib=4, parallel=2)
        assert report.retries == 4
        assert store.read_back_digest("later") == store.payload_digest(8)


LATE = """
class Odd:
    'What is read through a listing looks shorter for a while.'
    def __init__(self, app): self.app, self.left = app, 3
    def __call__(self, environ, start_response):
        def start(status, headers, *more):
            if environ['REQUEST_METHOD'] == 'HEAD' and self.left > 0:
                self.left -= 1
                headers = [(k, '4096' if k.lower() == 'content-length' else v) for k, v in headers]
            return start_response(status, headers, *more)
        return self.app(environ, start)
"""


def test_a_dynamic_large_object_is_there_when_its_listing_is(bed: Bed, repository: DeploymentRepository) -> None:
    with bed.deploy(build_with(repository, LATE)) as late:
        store = SwiftStore(late, bed.observer, bed.payload)
        store.upload_segments("late", size_mib=8, segment_mib=4, parallel=2, style="dlo")
        assert store.read_back_digest("late") == store.payload_digest(8)


def test_a_disk_that_fills_is_named_and_harms_one_upload_only(bed: Bed, repository: DeploymentRepository) -> None:
    # Swift itself shuns a disk that was full, for a minute unless told otherwise
    soon = "[swift]\nreplicas = 4\n[swift.proxy]\nerror_suppression_interval = 0.1\n"
    with bed.deploy(build_of(repository, recipe(rest=soon))) as deployment:
        store = SwiftStore(deployment, bed.observer, bed.payload)
        with pytest.raises(Unsupported, match="does not fit"):
            store.upload_single("too-large", size_mib=4096)
        fillers = [fill(deployment.mounts[disk], left_mib=8) for disk in ("d1", "d2", "d3")]
        with pytest.raises(Failed, match="50[37].*d3 has [0-9]+ MiB left") as caught:
            store.upload_segments("full", size_mib=16, segment_mib=8, parallel=2)
        assert caught.value.fault == "stack"
        for filler in fillers:
            filler.unlink()
        assert [outcome.outcome for outcome in measured(store, size_mib=4, segment_mib=1).outcomes()] == [
            "measured"
        ] * 2


def test_a_store_that_dies_is_the_stacks_fault(bed: Bed, repository: DeploymentRepository) -> None:
    with bed.deploy(build_of(repository, recipe())) as deployment:
        store = SwiftStore(deployment, bed.observer, bed.payload)
        first = next(
            pid
            for pid in processes.marked(processes.LEASE_VARIABLE, [bed.mark.session])
            if "/farm/supervisor.py" in processes.command_line(pid)
        )
        os.kill(first, signal.SIGKILL)
        sheet = measured(store)
    assert [(outcome.outcome, outcome.fault) for outcome in sheet.outcomes()] == [("failed", "stack")] * 2


def fill(mount: Path, left_mib: int) -> Path:
    """A file that takes all room of the disk but so much."""
    filler, free = mount / "filler", os.statvfs(mount)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (left_mib << 20))
    return filler


CARELESS = """
class Odd:
    'Reads one byte further on; says that it deleted; takes any digest.'
    def __init__(self, app): self.app = app
    def __call__(self, environ, start_response):
        if environ['REQUEST_METHOD'] == 'DELETE' and 'multipart-manifest' in str(environ.get('QUERY_STRING')):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'Response Status: 200 OK']
        if environ['REQUEST_METHOD'] == 'PUT':
            environ.pop('HTTP_ETAG', None)
        if environ.get('HTTP_RANGE', 'bytes=0-0') != 'bytes=0-0':
            first, last = environ['HTTP_RANGE'].removeprefix('bytes=').split('-')
            environ['HTTP_RANGE'] = f'bytes={int(first) + 1}-{int(last) + 1}'
        return self.app(environ, start_response)
"""


def test_a_store_that_does_not_take_care_fails(bed: Bed, repository: DeploymentRepository) -> None:
    with bed.deploy(build_with(repository, CARELESS)) as careless:
        store = SwiftStore(careless, bed.observer, bed.payload)
        sheet = measured(store, object_as_file.SCENARIO, size_mib=4, segment_mib=1)
    failed = {o.params["what"]: str(o.reason) for o in sheet.outcomes() if (o.outcome, o.fault) == ("failed", "stack")}
    assert set(failed) == {"read", "delete", "retry"}
    assert "are not what was sent" in failed["read"]
    assert "now deleted: 200" in failed["delete"]
    assert "under a wrong digest: 201" in failed["retry"]
    valid = {sample.metric for sample in sheet.samples() if sample.valid}
    assert valid == {"copy_mib_s", "overwrite_s", "server_cpu_s"}


ZEROS = """
kept = {}
class Odd:
    'Keeps what is uploaded in memory, and has zeros stored.'
    def __init__(self, app): self.app = app
    def __call__(self, environ, start_response):
        path, method = environ['PATH_INFO'], environ['REQUEST_METHOD']
        if method == 'PUT' and '/farm/single' in path:
            length = int(environ['CONTENT_LENGTH'])
            kept[path] = environ['wsgi.input'].read(length)
            environ['wsgi.input'] = io.BytesIO(bytes(length))
            environ.pop('HTTP_ETAG')
        whole = path in kept and method == 'GET' and 'HTTP_RANGE' not in environ

        def start(status, headers, *more):
            if path in kept:
                digest = hashlib.md5(kept[path]).hexdigest()
                headers = [(k, v) for k, v in headers if k.lower() != 'etag'] + [('Etag', digest)]
            return start_response(status, headers, *more)

        if path in kept and method == 'GET':
            first, last = (0, len(kept[path])) if whole else (0, 1)
            status = '200 OK' if whole else '206 Partial Content'
            start(status, [('Content-Length', str(last))])
            return [kept[path][first:last]]
        return self.app(environ, start)
"""


def test_zeros_on_the_disks_prove_nothing(bed: Bed, repository: DeploymentRepository) -> None:
    with bed.deploy(build_with(repository, ZEROS)) as lying:
        sheet = measured(SwiftStore(lying, bed.observer, bed.payload))
    single = sheet.outcomes()[0]
    assert (single.outcome, single.fault) == ("failed", "stack")
    assert "on d" in str(single.reason)
    assert not any(sample.valid for sample in sheet.samples() if sample.params["shape"] == "single")
