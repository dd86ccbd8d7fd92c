"""What does the store bill for large objects, and does it tell of segments that belong to none?

Measured: the bytes billed (the account's own sum, which the store's updaters bring it) against those of one object,
while two objects share its segments: segments count once, manifests hardly; the same for whoever adds up all listings,
where each manifest counts as much as all its segments; the segments that a replaced object leaves behind; those found
of an upload that was given up.

Not measured: how late a bill is, since updaters run when they are asked to; requests, traffic.

Proof: what is billed lies between the segments' bytes and those with small manifests; listings without manifests add up
to the segments exactly; the segments found to belong to nothing are as many as were sent. Otherwise the stack failed.
"""

from scenarios.contract import Bench, Cell, Failed, Metric, ObjectStore, Scenario, Sheet, Unsupported, Usage
from scenarios.leftovers import removed
from scenarios.parameters import Number, Parameter, Values, number
from scenarios.unlimited import COUNT

_SETTLED_S, _SETTLED_TIMEOUT_S = 0.3, 120.0  # what is billed comes with the updaters, some seconds a time
_MANIFEST_BYTES = 1 << 10  # for each segment it names, at most


class UploadBilling:
    name = "upload_billing"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric(
            "billed_ratio", "ratio", "lower", 0.01, "Bytes billed against the object's", judged=False, no_limit=COUNT
        ),
        Metric(
            "listed_ratio",
            "ratio",
            "lower",
            0.01,
            "Bytes of all listings against the object's",
            judged=False,
            no_limit=COUNT,
        ),
        Metric(
            "left_by_overwrite",
            "segments",
            "lower",
            0.1,
            "Segments left by what was replaced",
            judged=False,
            no_limit=COUNT,
        ),
        Metric(
            "orphans", "segments", "lower", 0.1, "Segments found of an upload given up", judged=False, no_limit=COUNT
        ),
    )
    parameters: tuple[Parameter, ...] = (
        Number("size_mib", 64, 2, 512 << 10, "MiB", "the size of the object"),
        Number("segment_mib", 8, 1, 5120, "MiB", "the size of one segment"),
        Number("parallel", 4, 1, 64, "connections", "how many segments are sent at once"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        store, size_mib, segment_mib = bench.store, number(params, "size_mib"), number(params, "segment_mib")
        if store is None:
            raise Unsupported("there is no object store")

        def upload(name: str, size_mib: int) -> None:
            store.upload_segments(name, size_mib=size_mib, segment_mib=segment_mib, parallel=number(params, "parallel"))

        with sheet.cell(hosts={}, what="billed") as cell:
            before = _settled(bench, store)
            with removed(store, f"bill-{bench.nonce()}") as name, removed(store, f"{name}-twin") as twin:
                upload(name, size_mib)
                store.share(name, twin)
                segments = -(-size_mib // segment_mib)
                _bill(cell, before, _settled(bench, store), size_mib << 20, 2 * segments * _MANIFEST_BYTES)
        with sheet.cell(hosts={}, what="overwritten") as cell, removed(store, f"old-{bench.nonce()}") as name:
            upload(name, size_mib)
            upload(name, size_mib // 2)
            cell.record("left_by_overwrite", _orphans_of(store, name))
        with sheet.cell(hosts={}, what="given up") as cell, removed(store, f"left-{bench.nonce()}") as name:
            sent = store.abandon_upload(name, size_mib=size_mib, segment_mib=segment_mib)
            found = _orphans_of(store, name)
            if found != sent:
                raise Failed("stack", f"of {sent} segments that belong to nothing {found} are found in listings")
            cell.record("orphans", found)


def _bill(cell: Cell, before: Usage, after: Usage, size: int, manifests: int) -> None:
    billed = after.billed_bytes - before.billed_bytes
    filtered = after.filtered_bytes - before.filtered_bytes
    told = f"two objects of the same {size} bytes: {billed} are billed, {filtered} listed without manifests"
    if not size <= billed <= size + manifests or filtered != size:
        raise Failed("stack", told)
    cell.record("billed_ratio", billed / size)
    cell.record("listed_ratio", (after.listed_bytes - before.listed_bytes) / size)
    cell.evidence(told)


def _orphans_of(store: ObjectStore, name: str) -> int:
    return sum(f"/{name}/" in path for path in store.orphans())


def _settled(bench: Bench, store: ObjectStore) -> Usage:
    """What the account holds when that does not change any more."""
    give_up_s = bench.now_s() + _SETTLED_TIMEOUT_S
    usage = store.usage()
    while bench.now_s() < give_up_s:
        bench.pause_s(_SETTLED_S)
        before, usage = usage, store.usage()
        if usage == before:
            return usage
    raise Failed("stack", f"what the account holds still changes after {_SETTLED_TIMEOUT_S:.0f} s")


SCENARIO: Scenario = UploadBilling()
