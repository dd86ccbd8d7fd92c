"""How long does moving a running guest to another host take, and how long is it away for its users?

The guest rewrites and checks memory and a disk that both hosts reach, all the while, and sends a heartbeat every
5 ms to an observer that is neither of the hosts.

Measured: from the request until the hypervisor says it is done (`total_ms`), the downtime as the hypervisor
tells it (`downtime_ms`), the longest silence that the observer saw around the move (`blackout_ms`: what users of
the guest see, and the longer of the two), and the CPU time of the receiving QEMU (`qemu_cpu_s`).

Not measured: migration without a shared disk, compression, post-copy.

The proof, over some seconds after the move: heartbeats go on, the whole of the memory and the disk are found
to hold what was written, and the guest runs on the target alone. A clean console proves nothing. A guest that
does not survive is the fault of the hypervisor, which belongs to the cluster.
"""

from scenarios.contract import Bench, Cell, Failed, Host, Metric, Scenario, Sheet, Unsupported, Workload
from scenarios.parameters import Number, Parameter, Values, number
from scenarios.survival import (
    MEMORY_MIB,
    PAGES_PER_S,
    SETTLE_S,
    STEADY_S,
    longest_silence_s,
    prove_survival,
    wait_until_steady,
)

TIMEOUT_S = 60.0


class LiveMigration:
    name = "live_migration"
    version = 1
    metrics: tuple[Metric, ...] = (
        Metric("total_ms", "ms", "lower", 0.25, "Request to done"),
        Metric("downtime_ms", "ms", "lower", 0.5, "Downtime as the hypervisor tells it", judged=False),
        Metric("blackout_ms", "ms", "lower", 0.5, "Longest silence that an observer saw", judged=False),
        Metric("qemu_cpu_s", "s", "lower", 0.25, "CPU time of the receiving QEMU", judged=False),
    )
    parameters: tuple[Parameter, ...] = (
        Number("bandwidth_mib_s", 0, 0, 100_000, "MiB/s", "a cap for the transfer; 0 is none"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        roles = dict(zip(("source", "target"), (host.name for host in bench.hosts), strict=False))
        with sheet.cell(hosts=roles) as cell:
            if len(bench.hosts) < 2:
                raise Unsupported(f"live migration needs two hosts, the cluster has {len(bench.hosts)}")
            self._measure(bench, cell, bench.hosts[0], bench.hosts[1], number(params, "bandwidth_mib_s") or None)

    def _measure(self, bench: Bench, cell: Cell, source: Host, target: Host, bandwidth: int | None) -> None:
        disk, _ = source.make_disk("shared")
        workload = Workload(memory_mib=MEMORY_MIB, pages_per_s=PAGES_PER_S, disk=True)
        guest = bench.keep(source.guest(nonce=bench.nonce(), disk=disk, workload=workload))
        guest.start()
        guest.first_answer(timeout_s=TIMEOUT_S)
        wait_until_steady(bench, guest)

        report = guest.migrate(target, timeout_s=TIMEOUT_S, bandwidth_mib_s=bandwidth)
        cpu_s = guest.vmm_cpu_s()
        bench.pause_s(SETTLE_S)
        around = guest.beats(report.started_s - STEADY_S, report.finished_s + SETTLE_S)
        if not around or around[-1].at_s <= report.finished_s:
            raise Failed("hypervisor", f"the guest is silent after its migration to {target.name}")

        cell.record("total_ms", (report.finished_s - report.started_s) * 1e3)
        if report.downtime_ms is not None:
            cell.record("downtime_ms", report.downtime_ms)
        cell.record("blackout_ms", longest_silence_s(around) * 1e3)
        cell.record("qemu_cpu_s", cpu_s)
        cell.evidence(f"{report.memory_processed_mib or 0:.0f} MiB sent, {report.iterations} passes over the memory")

        def verify() -> None:
            cell.evidence(prove_survival(bench, guest, target.name, report.finished_s))
            guest.stop()
            disk.remove()

        cell.verify_later(verify, deployed=False)


SCENARIO: Scenario = LiveMigration()
