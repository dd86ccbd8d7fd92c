"""How quickly does a guest start from a copy of a base image, and what does copying on first write cost?

Each method makes a disk from the same base image of incompressible data: a qcow2 `overlay`, a `reflink` of the
file system, a full `copy`. A guest boots with it, reads from it, answers, and then writes blocks that lie each in
a cluster of their own, all of them twice, and reads others, past all caches of its own.

Measured: making the disk (`create_ms`, by the host's own clock), request to first answer (`answer_ms`), QEMU's CPU
time by then, libvirtd's, and what was read from the disk (`qemu_cpu_s`, `daemon_cpu_s`, `read_kib`), median and 99th
percentile of the first and of the second write to the same blocks (`first_write_us` …, by the guest's clock), the
medians' ratio, the median read of blocks that the base alone has (`read_us`), and what the host's device wrote,
whoever else writes to it, for each byte that the guests did (`write_amplification`). Of several guests that write at
once it is the median guest's figure, but the worst guest's 99th percentiles and the last one's answer.

Not measured: throughput; the base image coming from elsewhere, since it is in the host's page cache.

The proof: blocks are shared with the base, through all layers (for a copy: none is, and all are allocated); the
base's digest is what it was; the blocks, read from outside when the guest has ended, hold what it wrote last. Of
several guests none had ended its writes when another began.
"""

import contextlib
import random
from statistics import median

from scenarios import disk_shape, write_test
from scenarios.contract import Bench, Cell, Disk, DiskShape, Host, Metric, Scenario, Sheet, Unsupported
from scenarios.parameters import Number, Parameter, Several, Values, number, words
from scenarios.unlimited import CPU, RATIO

METHODS = ("overlay", "reflink", "copy")
SECTOR_BYTES = 512


class CowStart:
    name = "cow_start"
    version = 4
    metrics: tuple[Metric, ...] = (
        Metric("create_ms", "ms", "lower", 0.5, "Making the disk", judged=False),
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first answer", judged=False),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first answer", no_limit=CPU),
        Metric(
            "daemon_cpu_s", "s", "lower", 0.25, "CPU time of libvirtd to the first answer", judged=False, no_limit=CPU
        ),
        Metric("first_write_us", "µs", "lower", 0.25, "First write to a block"),
        Metric("second_write_us", "µs", "lower", 0.25, "Second write to the same block"),
        Metric(
            "first_write_penalty", "ratio", "lower", 0.25, "First write ÷ second write", judged=False, no_limit=RATIO
        ),
        Metric("first_write_p99_us", "µs", "lower", 0.5, "99th percentile of first writes", judged=False),
        Metric("second_write_p99_us", "µs", "lower", 0.5, "99th percentile of second writes", judged=False),
        Metric("write_amplification", "ratio", "lower", 0.25, "Bytes the device wrote for the guest's", judged=False),
        Metric("read_us", "µs", "lower", 0.25, "Read of a block that the base alone has", judged=False),
        Metric(
            "read_kib",
            "KiB",
            "lower",
            0.25,
            "Read from the disk to the first answer",
            judged=False,
            no_limit="nothing of the disk has to be read for the guest to answer",
        ),
    )
    parameters: tuple[Parameter, ...] = (
        Several("methods", METHODS, METHODS, "how the disk is made"),
        Number("guests", 1, 1, 64, "guests", "that start and write at once, each with a disk of its own"),
        Number("offset_sectors", 0, 0, 120, "sectors of 512 bytes", "where the partition begins that is written to"),
        *disk_shape.PARAMETERS,
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        methods = list(words(params, "methods"))
        random.Random(bench.nonce()).shuffle(methods)
        for method in methods:
            with sheet.cell(hosts={"host": host.name}, method=method) as cell:
                self._measure(bench, cell, host, method, params)

    def _measure(self, bench: Bench, cell: Cell, host: Host, method: str, params: Values) -> None:
        offset = number(params, "offset_sectors") * SECTOR_BYTES
        nonces = [bench.nonce() for _ in range(number(params, "guests"))]
        with contextlib.ExitStack() as made:
            disks, create_s = _make_disks(made, host, method, disk_shape.shape_of(params), len(nonces))
            told = write_test.run(host, nonces, disks, offset)
            if told.refusal:
                raise Unsupported(f"the disk refuses whole blocks at an offset of {offset} bytes: {told.refusal}")
            if create_s is not None:
                cell.record("create_ms", create_s * 1e3)
            _record(cell, told)
            write_test.prove(cell, nonces, told)
            kept = made.pop_all()

        def verify() -> None:
            with kept:
                for nonce, disk in zip(nonces, disks, strict=True):
                    cell.evidence(disk.prove_sharing())
                    cell.evidence(disk.prove_written(nonce, write_test.BLOCKS, offset))
                cell.evidence(disks[0].prove_base_unchanged())

        cell.verify_later(verify, deployed=False)


def _make_disks(
    made: contextlib.ExitStack, host: Host, method: str, shape: DiskShape, count: int
) -> tuple[list[Disk], float | None]:
    """So many disks, which go when `made` is left; and the seconds that the slowest took to make."""
    disks, times_s = [], []
    for _ in range(count):
        disk, took_s = host.make_disk(method, shape)
        made.callback(disk.remove)
        disks.append(disk)
        if took_s is not None:
            times_s.append(took_s)
    return disks, max(times_s, default=None)


def _record(cell: Cell, told: write_test.Told) -> None:
    first_us = median(writes.first_us for writes in told.writes)
    second_us = median(writes.second_us for writes in told.writes)
    answered = zip(told.requested_s, told.answers, strict=True)
    cell.record("answer_ms", max(answer.at_s - requested_s for requested_s, answer in answered) * 1e3)
    cell.record("qemu_cpu_s", median(told.cpu_s))
    cell.record("daemon_cpu_s", told.daemon_cpu_s)
    cell.record("read_kib", median(told.read_bytes) / 1024)
    cell.record("first_write_us", first_us)
    cell.record("second_write_us", second_us)
    cell.record("first_write_penalty", first_us / max(second_us, 1.0))
    cell.record("first_write_p99_us", max(writes.first_p99_us for writes in told.writes))
    cell.record("second_write_p99_us", max(writes.second_p99_us for writes in told.writes))
    cell.record("read_us", median(writes.read_us for writes in told.writes))
    if told.device_bytes is not None:
        cell.record("write_amplification", told.device_bytes / told.written_bytes)


SCENARIO: Scenario = CowStart()
