"""What does a hypervisor do with moves that get in each other's way, and are all guests whole afterwards?

Every guest rewrites and checks memory and a disk that all hosts reach. The cases:
`same-guest-twice` (K1): a guest on its way is asked to move once more, to a third host where there is one;
`room-for-one` (K2): two guests whose memory is set aside want to a host with room for one, where with two hosts one
of them is already; `crossing` (K3): two guests change places; `shared-link` (K4): two guests move at once over one
capped link, and back one after the other; `cancel` (K5): a move is cancelled while the guest is paused to switch over.

Measured: from the first request until the last move ended (`makespan_s`), from a request that is refused, or from the
cancelling, until the hypervisor said so (`refusal_s`), how many moves were made (`moved`), the longest silence of any
guest (`worst_silence_ms`), the memory sent (`sent_mib`); for the shared link also the way back, one after the other
(`serial_makespan_s`, `serial_sent_mib`); and the CPU time of it all, the way back with it: of the receiving and the
sending QEMUs of moves that were made (`qemu_cpu_s`, `source_cpu_s`) and of all hosts' libvirtd (`daemon_cpu_s`).

Not measured: what a scheduler above the hypervisor would have refused before. Where the stack moves guests, through an
API, its refusals are what is measured.

The proof: the moves did overlap, and the capped link carried no more than its cap. Afterwards every guest lives,
whole, on one host alone, and no other host's hypervisor knows it. A conflict that ends as it must not is the fault of
whoever moves guests, the hypervisor or the stack: both moves of one guest made, or none; more guests than there is room
for; a guest lost, or on two hosts. Two guests with room for one may both be refused, and a cancelling may come too
late: `moved` says so.
"""

from scenarios.conflicts import CASES, WORKLOAD, Conflict
from scenarios.contract import Bench, Cell, Failed, Metric, Scenario, Sheet
from scenarios.moves import CPU_METRICS, makespan_s, record_cpu, sent_mib, silence_ms, two_hosts
from scenarios.parameters import Choice, Parameter, Values, word
from scenarios.survival import SETTLE_S, prove_survival_alone
from scenarios.unlimited import COUNT, REFUSAL


class MigrationConflicts:
    name = "migration_conflicts"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("makespan_s", "s", "lower", 0.25, "First request to the end of the last move", judged=False),
        Metric("refusal_s", "s", "lower", 0.5, "Until a move was refused or cancelled", judged=False, no_limit=REFUSAL),
        Metric("moved", "guests", "higher", 0.5, "Moves that were made", judged=False, no_limit=COUNT),
        Metric(
            "worst_silence_ms",
            "ms",
            "lower",
            0.5,
            "Longest silence of any guest",
            judged=False,
            no_limit="a guest that does not move need not pause",
        ),
        Metric("sent_mib", "MiB", "lower", 0.25, "Memory sent", judged=False),
        Metric("serial_makespan_s", "s", "lower", 0.25, "The same, one after the other", judged=False),
        Metric("serial_sent_mib", "MiB", "lower", 0.25, "Memory sent, one after the other", judged=False),
        *CPU_METRICS,
    )
    parameters: tuple[Parameter, ...] = (
        Choice("case", "crossing", tuple(CASES), "which moves get in each other's way"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        two_hosts(bench)
        with sheet.cell(hosts={f"host-{number}": host.name for number, host in enumerate(bench.hosts, 1)}) as cell:
            conflict = CASES[word(params, "case")](bench)
            bench.pause_s(SETTLE_S)
            _prove_resolved(cell, conflict)
            _record(cell, conflict)
            record_cpu(cell, [*conflict.attempts, *conflict.back])
            cell.verify_later(lambda: _verify(bench, cell, conflict), deployed=False)


def _prove_resolved(cell: Cell, conflict: Conflict) -> None:
    attempts = conflict.attempts
    made = [one for one in attempts if one.report]
    for number, one in enumerate(attempts, 1):
        asked_s = one.asked_s - attempts[0].asked_s
        cell.evidence(f"move {number} to {one.target.name}, asked for after {asked_s:.2f} s: {one.refusal or 'made'}")
    overlap = max(one.asked_s for one in attempts) < min(one.ended_s for one in attempts)
    cell.prove(overlap, "the moves did not overlap: one had ended before another was asked for")
    if len(made) not in conflict.may_move:
        refusals = [one.refusal for one in attempts if one.refusal]
        told = "; ".join(map(str, refusals))
        fault = refusals[0].fault if refusals else "hypervisor"
        raise Failed(fault, f"{len(made)} of {len(attempts)} moves were made, which must not be: {told}")


def _record(cell: Cell, conflict: Conflict) -> None:
    made = [one for one in conflict.attempts if one.report]
    refused = [one for one in conflict.attempts if not one.report]
    cell.record("makespan_s", makespan_s(conflict.attempts))
    cell.record("moved", len(made))
    cell.record("worst_silence_ms", silence_ms([*conflict.attempts, *conflict.back]))
    if refused:
        since_s = conflict.refused_from_s or refused[0].asked_s
        cell.record("refusal_s", refused[0].ended_s - since_s)
    if conflict.back:
        cell.record("serial_makespan_s", makespan_s(conflict.back))
    for metric, attempts in (("sent_mib", made), ("serial_sent_mib", conflict.back)):
        sent = sent_mib(attempts) if attempts else None
        if sent is not None:
            cell.record(metric, sent)


def _verify(bench: Bench, cell: Cell, conflict: Conflict) -> None:
    settled_s = max(one.ended_s for one in (*conflict.attempts, *conflict.back))
    for guest, home, disk in conflict.guests:
        where = conflict.ends_on(guest, home)
        cell.evidence(prove_survival_alone(bench, guest, WORKLOAD, where, settled_s))
        guest.stop()
        disk.remove()


SCENARIO: Scenario = MigrationConflicts()
