"""What scenarios that move guests have in common: their guests, how these are moved, and where to."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from scenarios.contract import (
    Bench,
    Cell,
    Disk,
    Failed,
    Guest,
    Hardware,
    Host,
    Metric,
    MigrationPhase,
    MigrationReport,
    MigrationStyle,
    Refused,
    Unsupported,
    Workload,
    WorkNotProven,
)
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.survival import SETTLE_S, STEADY_S, longest_silence_s, wait_until_steady
from scenarios.unlimited import CPU

TIMEOUT_S = 120.0
LOOK_S = 2.0
PLAIN = MigrationStyle()
CPU_METRICS: tuple[Metric, ...] = (
    Metric("qemu_cpu_s", "s", "lower", 0.25, "CPU time of the receiving QEMUs", judged=False, no_limit=CPU),
    Metric("source_cpu_s", "s", "lower", 0.25, "CPU time of the sending QEMUs", judged=False, no_limit=CPU),
    Metric("daemon_cpu_s", "s", "lower", 0.25, "CPU time of all hosts' libvirtd", judged=False, no_limit=CPU),
)
WORKLOAD: tuple[Parameter, ...] = (
    Number("working_set_mib", 32, 1, 1024, "MiB", "memory that the guest rewrites"),
    Number("dirty_pages_per_s", 1000, 100, 100_000, "pages/s", "how fast it rewrites it, 4 KiB each"),
)
BANDWIDTH = Number("bandwidth_mib_s", 0, 0, 100_000, "MiB/s", "a cap for the transfer; 0 is none")
STYLE: tuple[Parameter, ...] = (
    BANDWIDTH,
    Choice("mode", "pre-copy", ("pre-copy", "post-copy"), "whether the guest moves after its memory or before"),
    Number("connections", 0, 0, 16, "connections", "parallel connections; 0 is the ordinary single one"),
    Choice("compression", "none", ("none", "xbzrle", "zstd"), "of the memory on its way"),
    Choice("auto_converge", "no", ("no", "yes"), "slow the guest down until its memory can be caught up with"),
)
PLACEMENT = Choice("placement", "any", ("any", "same-zone", "other-zone"), "where the target is, seen from the source")


def workload_of(params: Values) -> Workload:
    return Workload(
        memory_mib=number(params, "working_set_mib"), pages_per_s=number(params, "dirty_pages_per_s"), disk=True
    )


def style_of(params: Values) -> MigrationStyle:
    compression = word(params, "compression")
    return MigrationStyle(
        bandwidth_mib_s=number(params, "bandwidth_mib_s") or None,
        post_copy=word(params, "mode") == "post-copy",
        connections=number(params, "connections"),
        compression="xbzrle" if compression == "xbzrle" else "zstd" if compression == "zstd" else "none",
        auto_converge=word(params, "auto_converge") == "yes",
    )


@dataclass(frozen=True)
class Attempt:
    """One move that was asked for, and how it ended: with a report, or with what was said instead."""

    guest: Guest
    target: Host
    asked_s: float
    ended_s: float
    report: MigrationReport | None = None
    refusal: Failed | None = None
    qemu_cpu_s: float = 0.0  # of the receiving VMM of a move that was made
    daemons_cpu_s: tuple[float, float] = (0.0, 0.0)  # of all hosts' daemons, up to the request and up to the end


def attempt(
    bench: Bench, guest: Guest, target: Host, *, style: MigrationStyle = PLAIN, timeout_s: float = TIMEOUT_S
) -> Attempt:
    """Move a guest, or be told why not; may run in a thread. Raises what is no answer to that."""
    before_s, asked_s = _daemons_cpu_s(bench), bench.now_s()
    report, refusal = None, None
    try:
        report = guest.migrate(target, timeout_s=timeout_s, style=style)
    except Failed as failure:
        if failure.fault != "hypervisor" and not isinstance(failure, Refused):
            raise
        refusal = failure
    ended_s = bench.now_s()
    cpu_s = guest.vmm_cpu_s() if report else 0.0
    return Attempt(guest, target, asked_s, ended_s, report, refusal, cpu_s, (before_s, _daemons_cpu_s(bench)))


def wait_for_phase(
    bench: Bench, guest: Guest, phase: MigrationPhase, moving: "Future[Attempt]", *, timeout_s: float
) -> None:
    """Until its migration, which another thread attempts, is in this phase; raises WorkNotProven, or why it is not."""
    give_up_s = bench.now_s() + timeout_s
    while True:
        try:
            guest.wait_for_migration(phase, timeout_s=LOOK_S)
            return
        except WorkNotProven:
            if moving.done():
                moving.result()
            if moving.done() or bench.now_s() > give_up_s:
                raise


def attempt_all(
    bench: Bench, moves: Sequence[tuple[Guest, Host]], *, at_once: int, timeout_s: float = TIMEOUT_S
) -> list[Attempt]:
    """Attempt to move them, so many at once."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda move: attempt(bench, *move, timeout_s=timeout_s), moves))


def _daemons_cpu_s(bench: Bench) -> float:
    return sum(host.daemon_cpu_s() for host in bench.hosts)


def moved(attempt: Attempt) -> MigrationReport:
    """The report of a move that must not fail; raises Failed with what was said instead."""
    if attempt.report is None:
        raise attempt.refusal or Failed("farm", "a move ended with neither a report nor a refusal")
    return attempt.report


def makespan_s(attempts: Sequence[Attempt]) -> float:
    """From the first request until the last move ended."""
    return max(one.ended_s for one in attempts) - min(one.asked_s for one in attempts)


def sent_mib(attempts: Sequence[Attempt]) -> float | None:
    """What all moves sent; None where the hypervisor does not tell it of each."""
    told = [moved(one).sent_mib for one in attempts]
    return None if None in told else sum(mib for mib in told if mib is not None)


def record_cpu(cell: Cell, attempts: Sequence[Attempt]) -> None:
    """What moves cost: of the VMMs of those that were made, at both ends, and of all hosts' daemons."""
    before_s, after_s = zip(*(one.daemons_cpu_s for one in attempts), strict=True)
    cell.record("daemon_cpu_s", max(after_s) - min(before_s))
    made = [one for one in attempts if one.report]
    if made:
        cell.record("qemu_cpu_s", sum(one.qemu_cpu_s for one in made))
    left_s = [moved(one).source_cpu_s for one in made]
    if left_s and None not in left_s:
        cell.record("source_cpu_s", sum(cpu_s for cpu_s in left_s if cpu_s is not None))


def silence_ms(attempts: Sequence[Attempt]) -> float:
    """The longest silence of any of the guests around its own attempt."""
    around = [one.guest.beats(one.asked_s - STEADY_S, one.ended_s + SETTLE_S) for one in attempts]
    return max(longest_silence_s(beats) for beats in around) * 1e3


def two_hosts(bench: Bench, placement: str = "any") -> tuple[Host, Host]:
    """The source and the target of a move; raises Unsupported where no two hosts stand so."""
    if len(bench.hosts) < 2:
        raise Unsupported(f"live migration needs two hosts, the cluster has {len(bench.hosts)}")
    for source in bench.hosts:
        for target in bench.hosts:
            if target is not source and _stands(placement, source.zone, target.zone):
                return source, target
    told = ", ".join(f"{host.name} in {host.zone}" for host in bench.hosts)
    raise Unsupported(f"no two hosts stand in {'one zone' if placement == 'same-zone' else 'different zones'}: {told}")


def working_guest(bench: Bench, host: Host, disk: Disk, workload: Workload) -> Guest:
    """A guest at work, kept until the round has been verified."""
    (guest,) = working_guests(bench, [(host, disk)], workload)
    return guest


def working_guests(
    bench: Bench, places: Sequence[tuple[Host, Disk]], workload: Workload, *, reserved_mib: int | None = None
) -> list[Guest]:
    """Guests at work, started together and kept until the round has been verified.

    `reserved_mib`: each has so much memory, set aside before it runs.
    """
    how: dict[str, Any] = {"workload": workload}
    if reserved_mib:
        how |= {"hardware": Hardware(memory_mib=reserved_mib), "reserved": True}
    guests = [bench.keep(host.guest(nonce=bench.nonce(), disk=disk, **how)) for host, disk in places]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.first_answer(timeout_s=TIMEOUT_S)
    for guest in guests:
        wait_until_steady(bench, guest)
    return guests


def _stands(placement: str, source_zone: str, target_zone: str) -> bool:
    return placement == "any" or (placement == "same-zone") == (source_zone == target_zone)
