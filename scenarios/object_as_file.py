"""Does an object that was uploaded as segments behave as one file?

Measured, each with an object of its own, in the language it was uploaded in: reading 1 MiB across the end of a segment;
a copy within the store; replacing it by one of half the size; deleting it with its segments (of a dynamic large object
the client deletes each one); and how much longer the upload takes where one segment comes under a wrong digest and
another's connection is cut half way. For each the CPU time of all servers meanwhile (`server_cpu_s`).

Not measured: several clients at once; what a replaced object leaves behind (see upload_billing).

Proof: every range, copy and replacement has the SHA-256 of what was sent; harmed segments are refused and nothing of
them is found; of what was deleted nothing is left on any disk. A wrong answer is the stack's failure.
"""

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import cast

from scenarios.contract import Bench, Cell, Failed, Harm, Metric, ObjectStore, Scenario, Sheet, Unsupported, UploadStyle
from scenarios.leftovers import removed
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.unlimited import CPU, RATIO

RANGE_BYTES = 1 << 20


class ObjectAsFile:
    name = "object_as_file"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("range_ms", "ms", "lower", 0.3, "Reading across the end of a segment"),
        Metric("copy_mib_s", "MiB/s", "higher", 0.3, "Copying within the store"),
        Metric("overwrite_s", "s", "lower", 0.3, "Replacing it by one of half the size"),
        Metric("delete_s", "s", "lower", 0.3, "Deleting it with its segments"),
        Metric(
            "retry_ratio",
            "ratio",
            "lower",
            0.3,
            "Upload with broken segments against one without",
            judged=False,
            no_limit=RATIO,
        ),
        Metric("server_cpu_s", "s", "lower", 0.25, "CPU time of all servers meanwhile", judged=False, no_limit=CPU),
    )
    parameters: tuple[Parameter, ...] = (
        Number("size_mib", 64, 2, 512 << 10, "MiB", "the size of the object"),
        Number("segment_mib", 8, 1, 5120, "MiB", "the size of one segment"),
        Number("parallel", 4, 1, 64, "connections", "how many segments are sent at once"),
        Choice("style", "slo", ("slo", "dlo", "s3"), "static or dynamic large object, or multipart upload over S3"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        if bench.store is None:
            raise Unsupported("there is no object store")
        asked = _Asked(bench, bench.store, params)
        for what in (_read, _copy, _overwrite, _delete, _retry):
            with sheet.cell(hosts={}, what=what.__name__.lstrip("_")) as cell:
                what(cell, asked)


class _Asked:
    """What the parameters say, and objects made so."""

    def __init__(self, bench: Bench, store: ObjectStore, params: Values) -> None:
        self.bench, self.store = bench, store
        self.size_mib, self.segment_mib = number(params, "size_mib"), number(params, "segment_mib")
        self.parallel, self.style = number(params, "parallel"), cast(UploadStyle, word(params, "style"))
        self.upload_s = 0.0

    @contextlib.contextmanager
    def uploaded(self) -> Iterator[str]:
        """The name of an object that goes afterwards."""
        with removed(self.store, f"file-{self.bench.nonce()}") as name:
            self.upload_s = self.upload(name, self.size_mib)
            yield name

    @contextlib.contextmanager
    def watched(self, cell: Cell) -> Iterator[None]:
        """Record what the servers do within."""
        before_s = self.store.server_cpu_s()
        yield
        cell.record("server_cpu_s", self.store.server_cpu_s() - before_s)

    def upload(self, name: str, size_mib: int, harm: Mapping[int, Harm] = MappingProxyType({})) -> float:
        """Its seconds."""
        report = self.store.upload_segments(
            name,
            size_mib=size_mib,
            segment_mib=self.segment_mib,
            parallel=self.parallel,
            style=self.style,
            harm=harm,
        )
        return report.total_s

    def must_be(self, name: str, size_mib: int) -> None:
        if self.store.read_back_digest(name) != self.store.payload_digest(size_mib):
            raise Failed("stack", f"{name} does not read back as what was sent")


def _read(cell: Cell, asked: _Asked) -> None:
    end = min(asked.segment_mib, asked.size_mib // 2) << 20
    with asked.uploaded() as name, asked.watched(cell):
        cell.record("range_ms", asked.store.check_range(name, end - RANGE_BYTES // 2, RANGE_BYTES) * 1e3)


def _copy(cell: Cell, asked: _Asked) -> None:
    with asked.uploaded() as name, removed(asked.store, f"{name}-copy") as copy:
        with asked.watched(cell):
            cell.record("copy_mib_s", asked.size_mib / asked.store.copy(name, copy))
        asked.must_be(copy, asked.size_mib)


def _overwrite(cell: Cell, asked: _Asked) -> None:
    with asked.uploaded() as name:
        with asked.watched(cell):
            cell.record("overwrite_s", asked.upload(name, asked.size_mib // 2))
        asked.must_be(name, asked.size_mib // 2)


def _delete(cell: Cell, asked: _Asked) -> None:
    with asked.uploaded() as name:
        held = asked.store.placement_of(name).pieces
        cell.prove(all(held.values()), f"{name} is not found on the disks")
        with asked.watched(cell):
            cell.record("delete_s", asked.store.delete(name))
        cell.evidence(f"{name}: all of its {len(held)} segments were on disks, and none is")


def _retry(cell: Cell, asked: _Asked) -> None:
    last = -(-asked.size_mib // asked.segment_mib) - 1
    with asked.uploaded() as plain, removed(asked.store, f"{plain}-retried") as name:
        with asked.watched(cell):
            harmed_s = asked.upload(name, asked.size_mib, harm={0: "digest", last: "cut"})
        asked.must_be(name, asked.size_mib)
        cell.record("retry_ratio", harmed_s / asked.upload_s)


SCENARIO: Scenario = ObjectAsFile()
