"""How fast is a large object stored, in one piece and as segments sent in parallel?

Measured: from the first byte sent until the store says that the object is there with the right length and digest, from
a place on the test network that is no host. `single` is one PUT; `segments` are parts sent over several connections at
once, then what makes them one object: a manifest (static large object), a prefix whose listing is read (dynamic large
object), or the end of a multipart upload over S3. Beside it the CPU seconds of all server processes meanwhile and what
the client itself took, the manifest alone, how long until the first byte can be read, the middle segment and how much
longer the slowest took, how evenly the disks share the bytes, and how much faster segments were than the single PUT in
the same round. What the store cannot answer now is sent again, at most twice; the log tells of it.

Not measured: logging in, beginning an S3 upload, making the payload, reading it back, deleting; any network but the
cluster's test network.

Proof: the object read back has the payload's SHA-256; every piece lies on as many distinct disks as the stack has
replicas, found on the disks themselves, with all its blocks and the bytes that were sent: random ones. Of a store whose
disks are not seen the digest alone is the proof, and what the disks hold is unsupported.
"""

import statistics
from typing import cast

from scenarios.contract import (
    Bench,
    Cell,
    Failed,
    Metric,
    ObjectStore,
    PlacedBy,
    Scenario,
    Sheet,
    Unsupported,
    UploadReport,
    UploadStyle,
)
from scenarios.leftovers import removed
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.sight import seen
from scenarios.unlimited import CPU, MEMORY, RATIO

# Beyond this an object is checked and removed at once: the disks have no room for all of a round's
_KEPT_MIB = 256


class ChunkedUpload:
    name = "chunked_upload"
    version = 4
    metrics: tuple[Metric, ...] = (
        Metric("goodput_mib_s", "MiB/s", "higher", 0.3, "Goodput"),
        Metric("server_cpu_s", "s", "lower", 0.1, "CPU time of all servers", no_limit=CPU),
        Metric("segment_s", "s", "lower", 0.3, "Middle segment", judged=False),
        Metric(
            "slowest_segment_ratio",
            "ratio",
            "lower",
            0.5,
            "Slowest segment against the middle one",
            judged=False,
            no_limit=RATIO,
        ),
        Metric("speedup", "ratio", "higher", 0.3, "Segments against a single PUT", judged=False, no_limit=RATIO),
        Metric("manifest_s", "s", "lower", 0.3, "Making segments one object", judged=False),
        Metric("readable_s", "s", "lower", 0.3, "Until the first byte can be read", judged=False),
        Metric("distinct_disks", "disks", "higher", 0.1, "Disks that hold a part of it", judged=False),
        Metric("load_skew", "ratio", "lower", 0.1, "Fullest disk against the mean", judged=False),
        Metric("client_cpu_s", "s", "lower", 0.3, "CPU time of the client", judged=False, no_limit=CPU),
        Metric(
            "client_memory_mib",
            "MiB",
            "lower",
            0.3,
            "Memory of the client at its highest",
            judged=False,
            no_limit=MEMORY,
        ),
    )
    parameters: tuple[Parameter, ...] = (
        Number("size_mib", 256, 1, 512 << 10, "MiB", "the size of the object"),
        Number("segment_mib", 32, 1, 5120, "MiB", "the size of one segment"),
        Number("parallel", 4, 1, 64, "connections", "how many segments are sent at once"),
        Choice("style", "slo", ("slo", "dlo", "s3"), "static or dynamic large object, or multipart upload over S3"),
        Choice("placed_by", "hash", ("hash", "ring"), "names as they come, or chosen so that disks share the load"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        size_mib, style = number(params, "size_mib"), cast(UploadStyle, word(params, "style"))
        store = bench.store
        if store is None:
            raise Unsupported("there is no object store")
        single_s: float | None = None
        with sheet.cell(hosts={}, shape="single") as cell:
            report = store.upload_single(f"single-{bench.nonce()}", size_mib=size_mib, style=style)
            single_s = report.total_s
            _record(cell, store, report, size_mib)
        with sheet.cell(hosts={}, shape="segments") as cell:
            report = store.upload_segments(
                f"segments-{bench.nonce()}",
                size_mib=size_mib,
                segment_mib=number(params, "segment_mib"),
                parallel=number(params, "parallel"),
                style=style,
                placed_by=cast(PlacedBy, word(params, "placed_by")),
            )
            middle_s = statistics.median(report.segment_s)
            cell.record("segment_s", middle_s)
            cell.record("slowest_segment_ratio", max(report.segment_s) / middle_s)
            cell.record("manifest_s", report.manifest_s)
            if single_s is not None:
                cell.record("speedup", single_s / report.total_s)
            _record(cell, store, report, size_mib)


def _record(cell: Cell, store: ObjectStore, report: UploadReport, size_mib: int) -> None:
    cell.record("goodput_mib_s", size_mib / report.total_s)
    if report.server_cpu_s is None:
        cell.evidence("server_cpu_s is unsupported: the store's servers are not seen")
    else:
        cell.record("server_cpu_s", report.server_cpu_s)
    cell.record("readable_s", report.readable_s)
    cell.record("client_cpu_s", report.client_cpu_s)
    cell.record("client_memory_mib", report.client_memory_mib)
    if report.retries:
        cell.evidence(f"{report.name}: {report.retries} requests had to be sent again")
    if size_mib > _KEPT_MIB:
        _verify(cell, store, report.name, size_mib)
    else:
        cell.verify_later(lambda: _verify(cell, store, report.name, size_mib))


def _verify(cell: Cell, store: ObjectStore, name: str, size_mib: int) -> None:
    with removed(store, name):
        digest = store.read_back_digest(name)
        if digest != store.payload_digest(size_mib):
            raise Failed("stack", f"{name} reads back with SHA-256 {digest}, which is not what was sent")
        placed = seen(cell, "distinct_disks", lambda: store.placement_of(name))
        if placed is None:
            cell.evidence(f"{name} read back with SHA-256 {digest[:16]}…")
            return
        cell.prove(len(placed.pieces) > 0, f"{name} is not found on the disks")
        for piece, holders in placed.pieces.items():
            found = len(set(holders))
            cell.prove(found >= store.replicas, f"{piece} is on {found} disks, {store.replicas} replicas are due")
        load = placed.disk_bytes
        cell.record("distinct_disks", sum(held > 0 for held in load.values()))
        cell.record("load_skew", max(load.values()) * len(load) / sum(load.values()))
        places = "; ".join(
            f"{piece.rpartition('/')[2]}: {' '.join(holders)}" for piece, holders in placed.pieces.items()
        )
        shares = ", ".join(f"{disk} {held >> 20} MiB" for disk, held in load.items())
        cell.evidence(f"{name} read back with SHA-256 {digest[:16]}…; in all {shares}; {places}")


SCENARIO: Scenario = ChunkedUpload()
