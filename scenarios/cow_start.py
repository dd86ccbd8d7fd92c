"""How quickly does a guest start from a copy of a base image, and what does copying on first write cost?

Each method makes a disk from the same base image of incompressible data: a qcow2 `overlay`, a `reflink` of the
file system, a full `copy`. A guest boots with it, reads from it, answers, and then writes blocks that lie each in
a cluster of their own, all of them twice, past all caches of its own.

Measured: making the disk (`create_ms`, by the host's own clock), request to first answer (`answer_ms`), QEMU's
CPU time and what was read from the disk by then (`qemu_cpu_s`, `read_kib`), median and 99th percentile of the
first and of the second write to the same blocks (`first_write_us` …, by the guest's clock), the medians' ratio, and
what the host's device wrote for each byte that the guest did (`write_amplification`).

Not measured: throughput; the base image coming from elsewhere, since it is in the host's page cache.

The proof: blocks are shared with the base (for a copy: none is, and all are allocated); the base's digest is
what it was; the blocks, read from outside when the guest has ended, hold what it wrote last.
"""

import random

from scenarios.contract import Bench, Cell, Host, Metric, Scenario, Sheet, Workload
from scenarios.parameters import Parameter, Several, Values, words

METHODS = ("overlay", "reflink", "copy")
WRITE_TEST_BLOCKS = 128
PASSES, BLOCK_BYTES = 2, 4096  # of the write test
TIMEOUT_S = 60.0


class CowStart:
    name = "cow_start"
    version = 2
    metrics: tuple[Metric, ...] = (
        Metric("create_ms", "ms", "lower", 0.5, "Making the disk", judged=False),
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first answer", judged=False),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first answer"),
        Metric("first_write_us", "µs", "lower", 0.25, "First write to a block"),
        Metric("second_write_us", "µs", "lower", 0.25, "Second write to the same block"),
        Metric("first_write_penalty", "ratio", "lower", 0.25, "First write ÷ second write", judged=False),
        Metric("first_write_p99_us", "µs", "lower", 0.5, "99th percentile of first writes", judged=False),
        Metric("second_write_p99_us", "µs", "lower", 0.5, "99th percentile of second writes", judged=False),
        Metric("write_amplification", "ratio", "lower", 0.25, "Bytes the device wrote for the guest's", judged=False),
        Metric("read_kib", "KiB", "lower", 0.25, "Read from the disk to the first answer", judged=False),
    )
    parameters: tuple[Parameter, ...] = (Several("methods", METHODS, METHODS, "how the disk is made"),)

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        methods = list(words(params, "methods"))
        random.Random(bench.nonce()).shuffle(methods)
        for method in methods:
            with sheet.cell(hosts={"host": host.name}, method=method) as cell:
                self._measure(bench, cell, host, method)

    def _measure(self, bench: Bench, cell: Cell, host: Host, method: str) -> None:
        nonce = bench.nonce()
        disk, create_s = host.make_disk(method)
        workload = Workload(write_test_blocks=WRITE_TEST_BLOCKS)
        with host.guest(nonce=nonce, disk=disk, workload=workload) as guest:
            requested_s = guest.start()
            answer = guest.first_answer(timeout_s=TIMEOUT_S)
            cpu_s, read_bytes = guest.vmm_cpu_s(), guest.disk_read_bytes()
            before = host.written_bytes()
            guest.begin_writes()
            writes = guest.write_times(timeout_s=TIMEOUT_S)
            guest.stop()
            after = host.written_bytes()

        cell.record("create_ms", create_s * 1e3)
        cell.record("answer_ms", (answer.at_s - requested_s) * 1e3)
        cell.record("qemu_cpu_s", cpu_s)
        cell.record("first_write_us", writes.first_us)
        cell.record("second_write_us", writes.second_us)
        cell.record("first_write_penalty", writes.first_us / max(writes.second_us, 1.0))
        cell.record("first_write_p99_us", writes.first_p99_us)
        cell.record("second_write_p99_us", writes.second_p99_us)
        cell.record("read_kib", read_bytes / 1024)
        if before is not None and after is not None:
            cell.record("write_amplification", (after - before) / (PASSES * WRITE_TEST_BLOCKS * BLOCK_BYTES))

        cell.prove(answer.nonce == nonce, f"the guest answered '{answer.nonce}', not its nonce '{nonce}'")
        cell.prove(writes.blocks == WRITE_TEST_BLOCKS, f"{writes.blocks} blocks written, not {WRITE_TEST_BLOCKS}")

        def verify() -> None:
            cell.evidence(disk.prove_sharing())
            cell.evidence(disk.prove_base_unchanged())
            cell.evidence(disk.prove_written(nonce, WRITE_TEST_BLOCKS))
            disk.remove()

        cell.verify_later(verify, deployed=False)


SCENARIO: Scenario = CowStart()
