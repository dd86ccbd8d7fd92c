"""How long does moving a running guest to another host take, and how long is it away for its users?

The guest rewrites and checks memory and a disk all the while, and sends a heartbeat every 5 ms to an observer that is
neither of the hosts. Its pages hold words that look random: they neither compress nor repeat. Both hosts reach its
disk, unless it is asked for as copied: then it moves along.

Measured: from the request until the hypervisor says it is done (`total_ms`), the downtime as the hypervisor
tells it (`downtime_ms`), the longest silence that the observer saw around the move (`blackout_ms`: what users of
the guest see, and the longer of the two), how many times longer that is than what the hypervisor tells
(`blackout_per_downtime`), the pause as the guest felt it (`guest_stall_ms`: the longest gap of a 1 ms ticker, and
what the guest's clock hid of it, as its machine's real-time clock shows), how far the three tales are apart
(`downtime_disagreement`: longest ÷ shortest), the work that the guest lost from the request until it worked as
before (`brownout_ms`, in ms of its full work), the memory sent and the passes over it (`sent_mib`, `passes`), all
that went over the source's link (`wire_mib`), and the CPU time of the receiving QEMU (`qemu_cpu_s`), of the sending
one to its last 10 ms (`source_cpu_s`) and of both hosts' libvirtd (`daemon_cpu_s`). Where an API is asked for
the move, `api_ms` is the time until it has answered that it will see to it.

Not measured: what the guest's work loses when it is not memory but disk or network that it works on.

The proof, over some seconds after the move: heartbeats go on, the whole of the memory and the disk are found
to hold what was written, and the guest runs on the target alone. A clean console proves nothing. Where the disk was
copied, the source's is removed at once, and the target's is compared with the base that both were made from. A guest
that does not survive is the fault of the hypervisor, which belongs to the cluster.
"""

from scenarios.contract import Bench, Cell, Failed, Guest, Host, Metric, MigrationReport, Scenario, Sheet
from scenarios.disturbance import brownout_ms, disagreement, guest_stall_ms
from scenarios.moves import PLACEMENT, STYLE, TIMEOUT_S, WORKLOAD, style_of, two_hosts, working_guest, workload_of
from scenarios.parameters import Choice, Parameter, Values, word
from scenarios.sight import seen
from scenarios.survival import SETTLE_S, STEADY_S, VERIFY_S, is_heard, last_words, longest_silence_s, prove_survival
from scenarios.unlimited import API, COUNT, CPU, RATIO

# the guest's disk → how it is made on the source, and what it is copied to on the target
DISKS = {"shared": ("shared", None), "copied": ("copy", "blank"), "copied-overlay": ("overlay", "overlay")}


class LiveMigration:
    name = "live_migration"
    version = 5
    metrics: tuple[Metric, ...] = (
        Metric("total_ms", "ms", "lower", 0.25, "Request to done"),
        Metric("api_ms", "ms", "lower", 0.25, "Request to the answer of the API", no_limit=API),
        Metric("downtime_ms", "ms", "lower", 0.5, "Downtime as the hypervisor tells it", judged=False),
        Metric("blackout_ms", "ms", "lower", 0.5, "Longest silence that an observer saw", judged=False),
        Metric(
            "blackout_per_downtime",
            "ratio",
            "lower",
            0.5,
            "Silence seen against downtime told",
            judged=False,
            no_limit=RATIO,
        ),
        Metric("guest_stall_ms", "ms", "lower", 0.5, "Pause as the guest felt it", judged=False),
        Metric(
            "downtime_disagreement",
            "ratio",
            "lower",
            0.5,
            "Longest told of the pause ÷ shortest",
            judged=False,
            no_limit=RATIO,
        ),
        Metric(
            "brownout_ms",
            "ms",
            "lower",
            0.5,
            "Work lost, in time of full work",
            judged=False,
            no_limit="a guest may catch up on what it lost",
        ),
        Metric("sent_mib", "MiB", "lower", 0.25, "Memory sent", judged=False),
        Metric("wire_mib", "MiB", "lower", 0.25, "Sent over the source's link", judged=False),
        Metric("passes", "passes", "lower", 0.5, "Passes over the memory", judged=False, no_limit=COUNT),
        Metric("qemu_cpu_s", "s", "lower", 0.25, "CPU time of the receiving QEMU", judged=False, no_limit=CPU),
        Metric("source_cpu_s", "s", "lower", 0.25, "CPU time of the sending QEMU", judged=False, no_limit=CPU),
        Metric("daemon_cpu_s", "s", "lower", 0.25, "CPU time of both libvirtd", judged=False, no_limit=CPU),
    )
    parameters: tuple[Parameter, ...] = (
        *STYLE,
        *WORKLOAD,
        Choice("disk", "shared", tuple(DISKS), "whether both hosts reach the guest's disk, or it is copied along"),
        PLACEMENT,
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        source, target = two_hosts(bench, word(params, "placement"))
        with sheet.cell(hosts={"source": source.name, "target": target.name}) as cell:
            self._measure(bench, cell, source, target, params)

    def _measure(self, bench: Bench, cell: Cell, source: Host, target: Host, params: Values) -> None:
        here, there = DISKS[word(params, "disk")]
        disk, _ = source.make_disk(here)
        copied_to = target.make_disk(there)[0] if there else None
        workload = workload_of(params)
        guest = working_guest(bench, source, disk, workload)

        sent_before = source.sent_bytes()
        report = guest.migrate(target, timeout_s=TIMEOUT_S, style=style_of(params), disk=copied_to)
        cpu_s, sent_after = seen(cell, "qemu_cpu_s", guest.vmm_cpu_s), source.sent_bytes()
        if copied_to:
            disk.remove()  # nobody needs it any more: what follows is proven without it
        bench.pause_s(SETTLE_S)
        if not is_heard(bench, guest, report.finished_s):
            told = f"the guest is silent after its migration to {target.name}{last_words(guest)}"
            raise Failed("hypervisor", told)

        blackout_ms = longest_silence_s(guest.beats(report.started_s - STEADY_S, bench.now_s())) * 1e3
        cell.record("total_ms", (report.finished_s - report.started_s) * 1e3)
        cell.record("blackout_ms", blackout_ms)
        if cpu_s is not None:
            cell.record("qemu_cpu_s", cpu_s)
        if report.daemon_cpu_s is not None:
            cell.record("daemon_cpu_s", report.daemon_cpu_s)
        if report.source_cpu_s is not None:
            cell.record("source_cpu_s", report.source_cpu_s)
        if report.answered_s is not None:
            cell.record("api_ms", (report.answered_s - report.started_s) * 1e3)
        if report.downtime_ms is not None:
            cell.record("downtime_ms", report.downtime_ms)
            cell.record("blackout_per_downtime", blackout_ms / max(report.downtime_ms, 1.0))
        if report.sent_mib is not None:
            cell.record("sent_mib", report.sent_mib)
        if sent_before is not None and sent_after is not None:
            cell.record("wire_mib", (sent_after - sent_before) / (1 << 20))
        if report.passes is not None:
            cell.record("passes", report.passes)

        def verify() -> None:
            cell.evidence(prove_survival(bench, guest, workload, target.name, report.finished_s))
            _record_disturbance(cell, guest, report, blackout_ms)
            guest.stop()
            if copied_to:
                cell.evidence(copied_to.prove_sharing())
                cell.evidence(copied_to.prove_base_unchanged())
            (copied_to or disk).remove()

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


SCENARIO: Scenario = LiveMigration()
