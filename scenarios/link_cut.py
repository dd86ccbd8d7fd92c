"""What becomes of a guest when the link breaks while it is being moved: for a while, or for good?

A guest is moved over a capped link; as soon as its memory is on the way, one host's link is cut: the target's, or the
source's. It comes back after some seconds (`outage_s`), or not before the move has ended (0: for good). A move that
hangs is given up 20 s after it was asked for, and two seconds more for each that the link was to be cut.

Measured: from the cut until the move ended (`ended_s`); whether the guest moved (`moved`: 1 or 0); the longest silence
of the guest from the cut on (`silence_ms`); from the link's return until the guest was heard again (`heard_again_ms`);
and the CPU time of the move: of the receiving and the sending QEMU where it was made (`qemu_cpu_s`, `source_cpu_s`),
and of all hosts' libvirtd (`daemon_cpu_s`).

Not measured: how long a hypervisor hangs when nobody gives up, which libvirt was seen to do for two minutes; a link
that loses or delays only some of its packets.

The proof: not a byte went over the link while it was cut, and no move ended well meanwhile. Afterwards the guest lives,
whole, on one host alone, the right one, and no other host's hypervisor knows it. Both ways to end are right: moved when
the link is back, or still at the source. A guest that is lost, or on two hosts, is the fault of the hypervisor.
"""

from concurrent.futures import ThreadPoolExecutor

from scenarios.contract import Bench, Cell, Host, Metric, MigrationStyle, Scenario, Sheet, Workload
from scenarios.moves import CPU_METRICS, attempt, record_cpu, two_hosts, wait_for_phase, working_guest
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.survival import SETTLE_S, longest_silence_s, prove_survival_alone
from scenarios.unlimited import COUNT, REFUSAL

WORKLOAD = Workload(memory_mib=32, pages_per_s=500, disk=True)
PATIENCE_S = 20.0  # for a move that hangs
LIMIT_S = 120.0  # then the link comes back, whatever becomes of us


class LinkCut:
    name = "link_cut"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("ended_s", "s", "lower", 0.25, "Cut to the end of the move", judged=False, no_limit=REFUSAL),
        Metric("moved", "guests", "higher", 0.5, "Whether the guest moved", judged=False, no_limit=COUNT),
        Metric("silence_ms", "ms", "lower", 0.5, "Longest silence that an observer heard", judged=False),
        Metric(
            "heard_again_ms",
            "ms",
            "lower",
            0.5,
            "Link back to guest heard",
            judged=False,
            no_limit="a heartbeat may be on its way when the link comes back",
        ),
        *CPU_METRICS,
    )
    parameters: tuple[Parameter, ...] = (
        Number("outage_s", 5, 0, 15, "s", "how long the link is cut; 0 is until the move has ended"),
        Choice("side", "target", ("target", "source"), "whose link is cut"),
        Number("bandwidth_mib_s", 32, 4, 100_000, "MiB/s", "a cap, so that there is a transfer to be cut"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        source, target = two_hosts(bench)
        with sheet.cell(hosts={"source": source.name, "target": target.name}) as cell:
            self._measure(bench, cell, source, target, params)

    def _measure(self, bench: Bench, cell: Cell, source: Host, target: Host, params: Values) -> None:
        disk, _ = source.make_disk("shared")
        guest = working_guest(bench, source, disk, WORKLOAD)
        outage_s, cut_host = number(params, "outage_s"), target if word(params, "side") == "target" else source
        patience_s = PATIENCE_S + 2 * outage_s  # TCP looks for a lost link ever more rarely
        style = MigrationStyle(bandwidth_mib_s=number(params, "bandwidth_mib_s"))

        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(attempt, bench, guest, target, style=style, timeout_s=patience_s)
            wait_for_phase(bench, guest, "transfer", moving, timeout_s=PATIENCE_S)
            cut_s = bench.now_s()
            with cut_host.link_cut(limit_s=LIMIT_S):
                if outage_s:
                    bench.pause_s(outage_s)
                else:
                    moving.result()
                whole_s = bench.now_s()
            back_s = bench.now_s()
            move = moving.result()
        settled_s = max(move.ended_s, back_s)
        bench.pause_s(SETTLE_S)

        cell.prove(not (move.report and move.ended_s < whole_s), "the guest moved while the link was cut")
        heard = guest.beats(cut_s, settled_s + SETTLE_S)
        again = guest.beats(back_s, settled_s + SETTLE_S)
        cell.prove(bool(again), "the guest was not heard again after the link came back")
        record_cpu(cell, [move])
        cell.record("ended_s", move.ended_s - cut_s)
        cell.record("moved", 1 if move.report else 0)
        cell.record("silence_ms", longest_silence_s(heard) * 1e3)
        cell.record("heard_again_ms", (again[0].at_s - back_s) * 1e3)
        cell.evidence(
            str(move.refusal) if move.refusal else f"moved {move.ended_s - back_s:.1f} s after the link came back"
        )

        def verify() -> None:
            where = target if move.report else source
            cell.evidence(prove_survival_alone(bench, guest, WORKLOAD, where.name, settled_s))
            guest.stop()
            disk.remove()

        cell.verify_later(verify, deployed=False)


SCENARIO: Scenario = LinkCut()
