"""Guests that write at once, each to a disk of its own: the running of them, and what was seen. `cow_start` asks it."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scenarios.contract import Beat, Cell, Disk, Host, Workload, WriteTimes

BLOCKS, BLOCK_BYTES, PASSES = 128, 4096, 2
STRIDE_BYTES = 64 << 10  # from the beginning of one block to that of the next
READS = 32  # of blocks that nobody wrote, when the writes have ended
TIMEOUT_S = 60.0
TIMEOUT_PER_GUEST_S = 10.0  # on hosts with less processors than guests they take turns


@dataclass(frozen=True)
class Told:
    """What was seen of the guests, each list in their order."""

    requested_s: list[float]
    answers: list[Beat]
    cpu_s: list[float]
    daemon_cpu_s: float  # for all of them
    read_bytes: list[int]  # until all had answered
    read_later_bytes: list[int]  # until the writes had ended
    writes: list[WriteTimes]
    device_bytes: int | None  # written by the host's device meanwhile

    @property
    def refusal(self) -> str:
        """With what words a disk refused a write, or nothing."""
        return next((writes.refusal for writes in self.writes if writes.refusal), "")

    @property
    def written_bytes(self) -> int:
        return PASSES * BLOCKS * BLOCK_BYTES * len(self.writes)


def run(host: Host, nonces: Sequence[str], disks: Sequence[Disk], offset: int) -> Told:
    """Start a guest with each disk; when all have answered let them write, at once; wait until they have ended."""
    workload = Workload(write_test_blocks=BLOCKS, write_test_offset=offset)
    timeout_s = TIMEOUT_S + TIMEOUT_PER_GUEST_S * len(disks)
    with contextlib.ExitStack() as running:
        pairs = zip(nonces, disks, strict=True)
        guests = [running.enter_context(host.guest(nonce=n, disk=disk, workload=workload)) for n, disk in pairs]
        daemon_s = host.daemon_cpu_s()
        with ThreadPoolExecutor(len(guests)) as at_once:
            requested_s = list(at_once.map(lambda guest: guest.start(), guests))
        answers = [guest.first_answer(timeout_s=timeout_s) for guest in guests]
        cpu_s = [guest.vmm_cpu_s() for guest in guests]
        daemon_cpu_s = host.daemon_cpu_s() - daemon_s
        read_bytes = [guest.disk_read_bytes() for guest in guests]
        before = host.written_bytes()
        for guest in guests:
            guest.begin_writes()
        writes = [guest.write_times(timeout_s=timeout_s) for guest in guests]
        read_later_bytes = [guest.disk_read_bytes() for guest in guests]
        for guest in guests:
            guest.stop()
        after = host.written_bytes()
    device_bytes = None if before is None or after is None else after - before
    return Told(requested_s, answers, cpu_s, daemon_cpu_s, read_bytes, read_later_bytes, writes, device_bytes)


def prove(cell: Cell, nonces: Sequence[str], told: Told) -> None:
    """Each guest was ours and wrote all of its blocks, and none had ended when another began."""
    latest_s, earliest_s = max(w.began_s for w in told.writes), min(w.ended_s for w in told.writes)
    cell.prove(latest_s < earliest_s, f"one guest had written {latest_s - earliest_s:.3f} s before another began")
    for before, after in zip(told.read_bytes, told.read_later_bytes, strict=True):
        cell.prove(after - before >= READS * BLOCK_BYTES, f"{after - before} bytes read after the writes")
    for nonce, answer, writes in zip(nonces, told.answers, told.writes, strict=True):
        cell.prove(answer.nonce == nonce, f"a guest answered '{answer.nonce}', not its nonce '{nonce}'")
        cell.prove(writes.blocks == BLOCKS, f"{writes.blocks} blocks written, not {BLOCKS}")
