"""How long does moving a running guest to another host take, and how long is it away for its users?

The guest rewrites and checks memory and a disk that both hosts reach, all the while, and sends a heartbeat every
5 ms to an observer that is neither of the hosts. Its pages hold words that look random: they neither compress nor
repeat.

Measured: from the request until the hypervisor says it is done (`total_ms`), the downtime as the hypervisor
tells it (`downtime_ms`), the longest silence that the observer saw around the move (`blackout_ms`: what users of
the guest see, and the longer of the two), how many times longer that is than what the hypervisor tells
(`blackout_per_downtime`), the pause as the guest felt it (`guest_stall_ms`: the longest gap of a 1 ms ticker, and
what the guest's clock hid of it, as its machine's real-time clock shows), how far the three tales are apart
(`downtime_disagreement`: longest ÷ shortest), the work that the guest lost from the request until it worked as
before (`brownout_ms`, in ms of its full work), the memory sent and the passes over it (`sent_mib`, `passes`), and
the CPU time of the receiving QEMU (`qemu_cpu_s`).

Not measured: what the guest's work loses when it is not memory but disk or network that it works on.

The proof, over some seconds after the move: heartbeats go on, the whole of the memory and the disk are found
to hold what was written, and the guest runs on the target alone. A clean console proves nothing. A guest that
does not survive is the fault of the hypervisor, which belongs to the cluster.
"""

from scenarios.contract import (
    Bench,
    Cell,
    Failed,
    Guest,
    Host,
    Metric,
    MigrationReport,
    MigrationStyle,
    Scenario,
    Sheet,
    Unsupported,
    Workload,
)
from scenarios.disturbance import brownout_ms, disagreement, guest_stall_ms
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.survival import SETTLE_S, STEADY_S, VERIFY_S, longest_silence_s, prove_survival, wait_until_steady

TIMEOUT_S = 60.0


class LiveMigration:
    name = "live_migration"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("total_ms", "ms", "lower", 0.25, "Request to done"),
        Metric("downtime_ms", "ms", "lower", 0.5, "Downtime as the hypervisor tells it", judged=False),
        Metric("blackout_ms", "ms", "lower", 0.5, "Longest silence that an observer saw", judged=False),
        Metric("blackout_per_downtime", "ratio", "lower", 0.5, "Silence seen against downtime told", judged=False),
        Metric("guest_stall_ms", "ms", "lower", 0.5, "Pause as the guest felt it", judged=False),
        Metric(
            "downtime_disagreement", "ratio", "lower", 0.5, "Longest tale of the pause against shortest", judged=False
        ),
        Metric("brownout_ms", "ms", "lower", 0.5, "Work lost, in time of full work", judged=False),
        Metric("sent_mib", "MiB", "lower", 0.25, "Memory sent", judged=False),
        Metric("passes", "passes", "lower", 0.5, "Passes over the memory", judged=False),
        Metric("qemu_cpu_s", "s", "lower", 0.25, "CPU time of the receiving QEMU", judged=False),
    )
    parameters: tuple[Parameter, ...] = (
        Number("bandwidth_mib_s", 0, 0, 100_000, "MiB/s", "a cap for the transfer; 0 is none"),
        Choice("mode", "pre-copy", ("pre-copy", "post-copy"), "whether the guest moves after its memory or before"),
        Number("connections", 0, 0, 16, "connections", "parallel connections; 0 is the ordinary single one"),
        Choice("compression", "none", ("none", "xbzrle", "zstd"), "of the memory on its way"),
        Choice("auto_converge", "no", ("no", "yes"), "slow the guest down until its memory can be caught up with"),
        Number("working_set_mib", 32, 1, 1024, "MiB", "memory that the guest rewrites"),
        Number("dirty_pages_per_s", 1000, 100, 100_000, "pages/s", "how fast it rewrites it, 4 KiB each"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        roles = dict(zip(("source", "target"), (host.name for host in bench.hosts), strict=False))
        with sheet.cell(hosts=roles) as cell:
            if len(bench.hosts) < 2:
                raise Unsupported(f"live migration needs two hosts, the cluster has {len(bench.hosts)}")
            self._measure(bench, cell, bench.hosts[0], bench.hosts[1], params)

    def _measure(self, bench: Bench, cell: Cell, source: Host, target: Host, params: Values) -> None:
        disk, _ = source.make_disk("shared")
        workload = Workload(
            memory_mib=number(params, "working_set_mib"), pages_per_s=number(params, "dirty_pages_per_s"), disk=True
        )
        guest = bench.keep(source.guest(nonce=bench.nonce(), disk=disk, workload=workload))
        guest.start()
        guest.first_answer(timeout_s=TIMEOUT_S)
        wait_until_steady(bench, guest)

        report = guest.migrate(target, timeout_s=TIMEOUT_S, style=_style(params))
        cpu_s = guest.vmm_cpu_s()
        bench.pause_s(SETTLE_S)
        around = guest.beats(report.started_s - STEADY_S, report.finished_s + SETTLE_S)
        if not around or around[-1].at_s <= report.finished_s:
            raise Failed("hypervisor", f"the guest is silent after its migration to {target.name}")

        blackout_ms = longest_silence_s(around) * 1e3
        cell.record("total_ms", (report.finished_s - report.started_s) * 1e3)
        cell.record("blackout_ms", blackout_ms)
        cell.record("qemu_cpu_s", cpu_s)
        if report.downtime_ms is not None:
            cell.record("downtime_ms", report.downtime_ms)
            cell.record("blackout_per_downtime", blackout_ms / max(report.downtime_ms, 1.0))
        if report.sent_mib is not None:
            cell.record("sent_mib", report.sent_mib)
        if report.passes is not None:
            cell.record("passes", report.passes)

        def verify() -> None:
            cell.evidence(prove_survival(bench, guest, workload, target.name, report.finished_s))
            _record_disturbance(cell, guest, report, blackout_ms)
            guest.stop()
            disk.remove()

        cell.verify_later(verify, deployed=False)


def _record_disturbance(cell: Cell, guest: Guest, report: MigrationReport, blackout_ms: float) -> None:
    """What the guest tells; when it was proven to live on, it has told enough."""
    beats = guest.beats(report.started_s - STEADY_S, report.finished_s + VERIFY_S)
    stall_ms = guest_stall_ms(beats)
    lost_ms = brownout_ms(beats, report.started_s, report.finished_s)
    if stall_ms is not None:
        cell.record("guest_stall_ms", stall_ms)
    if stall_ms is not None and report.downtime_ms is not None:
        cell.record("downtime_disagreement", disagreement(stall_ms, report.downtime_ms, blackout_ms))
    if lost_ms is not None:
        cell.record("brownout_ms", lost_ms)


def _style(params: Values) -> MigrationStyle:
    compression = word(params, "compression")
    return MigrationStyle(
        bandwidth_mib_s=number(params, "bandwidth_mib_s") or None,
        post_copy=word(params, "mode") == "post-copy",
        connections=number(params, "connections"),
        compression="xbzrle" if compression == "xbzrle" else "zstd" if compression == "zstd" else "none",
        auto_converge=word(params, "auto_converge") == "yes",
    )


SCENARIO: Scenario = LiveMigration()
