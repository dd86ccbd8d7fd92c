"""How fast is a large object stored, in one piece and as segments sent in parallel?

Measured: from the first byte sent until the store says that the object is there with the right length and digest;
256 MiB of random bytes, from a place on the test network that is no host. `single` is one PUT; `segments` are parts
sent over several connections at once, then a manifest that makes them one object (a static large object). Beside it
the CPU seconds of all server processes meanwhile, how much longer the slowest segment took than the middle one, and how
much faster segments were than the single PUT in the same round.

Not measured: logging in, making the payload, reading it back, deleting; any network but the cluster's test network.

Proof: the object read back has the payload's SHA-256; every piece lies on as many distinct disks as the stack has
replicas, found on the disks themselves, with all its blocks and the bytes that were sent.
"""

import statistics

from scenarios.contract import Bench, Cell, Failed, Metric, ObjectStore, Scenario, Sheet, UploadReport
from scenarios.parameters import Number, Parameter, Values, number


class ChunkedUpload:
    name = "chunked_upload"
    version = 2
    metrics: tuple[Metric, ...] = (
        Metric("goodput_mib_s", "MiB/s", "higher", 0.3, "Goodput"),
        Metric("server_cpu_s", "s", "lower", 0.1, "CPU time of all servers"),
        Metric("slowest_segment_ratio", "ratio", "lower", 0.5, "Slowest segment against the middle one", judged=False),
        Metric("speedup", "ratio", "higher", 0.3, "Segments against a single PUT", judged=False),
    )
    parameters: tuple[Parameter, ...] = (
        Number("segment_mib", 32, 1, 5120, "MiB", "the size of one segment"),
        Number("parallel", 4, 1, 64, "connections", "how many segments are sent at once"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        segment_mib, parallel = number(params, "segment_mib"), number(params, "parallel")
        store = bench.store
        if store is None:
            raise Failed("farm", "the session deployed no object store")
        single_s: float | None = None
        with sheet.cell(hosts={}, shape="single") as cell:
            report = store.upload_single(f"single-{bench.nonce()}")
            single_s = report.total_s
            _record(cell, store, report)
        with sheet.cell(hosts={}, shape="segments") as cell:
            name = f"segments-{bench.nonce()}"
            report = store.upload_segments(name, segment_mib=segment_mib, parallel=parallel)
            _record(cell, store, report)
            cell.record("slowest_segment_ratio", max(report.segment_s) / statistics.median(report.segment_s))
            if single_s is not None:
                cell.record("speedup", single_s / report.total_s)


def _record(cell: Cell, store: ObjectStore, report: UploadReport) -> None:
    cell.verify_later(lambda: _verify(cell, store, report.name))
    cell.record("goodput_mib_s", store.payload_mib / report.total_s)
    cell.record("server_cpu_s", report.server_cpu_s)


def _verify(cell: Cell, store: ObjectStore, name: str) -> None:
    try:
        digest = store.read_back_digest(name)
        if digest != store.payload_digest():
            raise Failed("stack", f"{name} reads back with SHA-256 {digest}, which is not what was sent")
        disks = store.disks_of(name)
        cell.prove(len(disks) > 0, f"{name} is not found on the disks")
        for piece, holders in disks.items():
            found = len(set(holders))
            cell.prove(found >= store.replicas, f"{piece} is on {found} disks, {store.replicas} replicas are due")
        places = "; ".join(f"{piece.rpartition('/')[2]}: {' '.join(holders)}" for piece, holders in disks.items())
        cell.evidence(f"{name} read back with SHA-256 {digest[:16]}…; on disks {places}")
    finally:
        store.remove(name)


SCENARIO: Scenario = ChunkedUpload()
