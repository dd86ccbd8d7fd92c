"""How long does it take to empty a host of its guests, and to bring them back after its maintenance?

All guests of one host move to the other hosts in turn, one after the other or all at once, and then back. Each rewrites
and checks memory and a disk that all hosts reach, and sends a heartbeat every 5 ms to an observer.

Measured: from the first request until the host is empty (`emptied_s`), from the first request to bring them back until
all are (`returned_s`), the longest silence of any guest, both ways (`worst_silence_ms`), the memory sent, both ways
(`sent_mib`), and the CPU time of both ways: of the receiving QEMUs until each move is done (`qemu_cpu_s`), of the
sending ones to their last 10 ms (`source_cpu_s`) and of all hosts' libvirtd (`daemon_cpu_s`).

Not measured: where a scheduler would put them; guests that come and go meanwhile.

The proof: once emptied no guest's VMM is on the host, and each lives where it was sent. After the way back every guest
lives on its host alone, and the whole of its memory and its disk hold what it wrote. A guest that does not survive is
the fault of the hypervisor.
"""

from collections.abc import Sequence

from scenarios.contract import Bench, Cell, Failed, Guest, Host, Metric, Scenario, Sheet, Workload
from scenarios.moves import (
    CPU_METRICS,
    Attempt,
    attempt_all,
    makespan_s,
    moved,
    record_cpu,
    sent_mib,
    silence_ms,
    two_hosts,
    working_guests,
)
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.survival import SETTLE_S, is_heard, last_words, prove_survival_alone

WORKLOAD = Workload(memory_mib=16, pages_per_s=250, disk=True)
TIMEOUT_S = 120.0  # for one guest, while all others move


class Evacuation:
    name = "evacuation"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("emptied_s", "s", "lower", 0.25, "Emptying the host"),
        Metric("returned_s", "s", "lower", 0.25, "Bringing its guests back"),
        Metric("worst_silence_ms", "ms", "lower", 0.5, "Longest silence of any guest", judged=False),
        Metric("sent_mib", "MiB", "lower", 0.25, "Memory sent, both ways", judged=False),
        *CPU_METRICS,
    )
    parameters: tuple[Parameter, ...] = (
        Number("guests", 3, 1, 8, "guests", "how many the host has"),
        Choice("order", "serial", ("serial", "parallel"), "one after the other, or all at once"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        source, _ = two_hosts(bench)
        others = [host for host in bench.hosts if host is not source]
        with sheet.cell(
            hosts={"emptied": source.name, **{f"other-{n}": h.name for n, h in enumerate(others, 1)}}
        ) as cell:
            self._measure(bench, cell, source, others, params)

    def _measure(self, bench: Bench, cell: Cell, source: Host, others: Sequence[Host], params: Values) -> None:
        disks = [source.make_disk("shared")[0] for _ in range(number(params, "guests"))]
        guests = working_guests(bench, [(source, disk) for disk in disks], WORKLOAD)
        at_once = len(guests) if word(params, "order") == "parallel" else 1

        out = _move_all(bench, [(guest, others[n % len(others)]) for n, guest in enumerate(guests)], at_once)
        bench.pause_s(SETTLE_S)
        _prove_emptied(bench, cell, source, out)
        back = _move_all(bench, [(guest, source) for guest in guests], at_once)
        bench.pause_s(SETTLE_S)

        record_cpu(cell, [*out, *back])
        cell.record("emptied_s", makespan_s(out))
        cell.record("returned_s", makespan_s(back))
        cell.record("worst_silence_ms", silence_ms([*out, *back]))
        sent = sent_mib([*out, *back])
        if sent is not None:
            cell.record("sent_mib", sent)

        def verify() -> None:
            for one, disk in zip(back, disks, strict=True):
                cell.evidence(prove_survival_alone(bench, one.guest, WORKLOAD, source.name, one.ended_s))
                one.guest.stop()
                disk.remove()

        cell.verify_later(verify, deployed=False)


def _move_all(bench: Bench, moves: Sequence[tuple[Guest, Host]], at_once: int) -> list[Attempt]:
    """Raises Failed when one of them does not move."""
    attempts = attempt_all(bench, moves, at_once=at_once, timeout_s=TIMEOUT_S)
    for one in attempts:
        moved(one)
    return attempts


def _prove_emptied(bench: Bench, cell: Cell, source: Host, out: Sequence[Attempt]) -> None:
    for one in out:
        found_on, target = list(one.guest.found_on()), one.target.name
        if found_on != [target]:
            raise Failed("hypervisor", f"a guest is on {', '.join(found_on) or 'no host'}, not on {target} alone")
        if not is_heard(bench, one.guest, one.ended_s):
            raise Failed("hypervisor", f"a guest is silent after its migration to {target}{last_words(one.guest)}")
    cell.evidence(f"{source.name} emptied: its {len(out)} guests live on {', '.join(one.target.name for one in out)}")


SCENARIO: Scenario = Evacuation()
