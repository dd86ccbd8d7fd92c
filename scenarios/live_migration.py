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

from collections.abc import Mapping, Sequence

from scenarios.contract import (
    Beat,
    Bench,
    Cell,
    Failed,
    Guest,
    Host,
    Metric,
    Scenario,
    Sheet,
    Unsupported,
    Workload,
    WorkNotProven,
)

MEMORY_MIB = 32
PAGES_PER_S = 1000
PAGES_PER_MIB = 256
STEADY_S = 0.5
STEADY_BEATS = 20  # of about 100 in that time: a busy host may delay them, a paused guest sends none
SETTLE_S = 0.5
SILENCE_S = 2.0  # longer than any load delays heartbeats: the guest is dead or stopped
VERIFY_S = 3.0
POLL_S = 0.05
TIMEOUT_S = 60.0
SIGNS_OF_DEATH = ("BUG:", "Oops", "Kernel panic")


class LiveMigration:
    name = "live_migration"
    version = 1
    metrics: tuple[Metric, ...] = (
        Metric("total_ms", "ms", "lower", 0.25, "Request to done"),
        Metric("downtime_ms", "ms", "lower", 0.5, "Downtime as the hypervisor tells it", judged=False),
        Metric("blackout_ms", "ms", "lower", 0.5, "Longest silence that an observer saw", judged=False),
        Metric("qemu_cpu_s", "s", "lower", 0.25, "CPU time of the receiving QEMU", judged=False),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Mapping[str, object]) -> None:
        """`params`: `bandwidth_mib_s`, a cap for the transfer in MiB/s (default: none)."""
        roles = dict(zip(("source", "target"), (host.name for host in bench.hosts), strict=False))
        with sheet.cell(hosts=roles) as cell:
            if len(bench.hosts) < 2:
                raise Unsupported(f"live migration needs two hosts, the cluster has {len(bench.hosts)}")
            self._measure(bench, cell, bench.hosts[0], bench.hosts[1], _bandwidth(params))

    def _measure(self, bench: Bench, cell: Cell, source: Host, target: Host, bandwidth: int | None) -> None:
        disk, _ = source.make_disk("shared")
        workload = Workload(memory_mib=MEMORY_MIB, pages_per_s=PAGES_PER_S, disk=True)
        guest = bench.keep(source.guest(nonce=bench.nonce(), disk=disk, workload=workload))
        guest.start()
        guest.first_answer(timeout_s=TIMEOUT_S)
        _wait_until_steady(bench, guest)

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

        cell.verify_later(verify)


def longest_silence_s(beats: Sequence[Beat]) -> float:
    """The longest time between one heartbeat and the next."""
    return max((later.at_s - earlier.at_s for earlier, later in zip(beats, beats[1:], strict=False)), default=0.0)


def prove_survival(bench: Bench, guest: Guest, target: str, finished_s: float) -> str:
    """Evidence that the guest lives on, whole and once; raises Failed(hypervisor) or WorkNotProven."""
    give_up_s = bench.now_s() + TIMEOUT_S / 3
    pages = blocks = 0
    while bench.now_s() < finished_s + VERIFY_S or pages < MEMORY_MIB * PAGES_PER_MIB or blocks == 0:
        if bench.now_s() > give_up_s:
            raise WorkNotProven(f"since its migration the guest checked {pages} pages and {blocks} blocks, no more")
        bench.pause_s(POLL_S)
        now_s = bench.now_s()
        beats = guest.beats(finished_s, now_s)
        if not beats or now_s - beats[-1].at_s > SILENCE_S:
            heard_s = beats[-1].at_s - finished_s if beats else 0.0
            raise Failed("hypervisor", f"the guest fell silent {heard_s:.1f} s after its migration")
        first, last = beats[0], beats[-1]
        pages, blocks = last.pages_ok - first.pages_ok, last.disk_ok - first.disk_ok
        if last.pages_bad or last.disk_bad:
            bad = f"{last.pages_bad} pages and {last.disk_bad} blocks"
            raise Failed("hypervisor", f"after the guest's migration {bad} are not as it wrote them")
    for sign in SIGNS_OF_DEATH:
        if sign in guest.console():
            raise Failed("hypervisor", f"the guest's kernel says '{sign}' after its migration")
    found_on = list(guest.found_on())
    if found_on != [target]:
        raise Failed("hypervisor", f"the guest is on {', '.join(found_on) or 'no host'}, not on {target} alone")
    return f"alive on {target} alone: {len(beats)} heartbeats, {pages} pages and {blocks} blocks checked, none bad"


def _wait_until_steady(bench: Bench, guest: Guest) -> None:
    """Until the guest beats, and has checked memory and disk; raises WorkNotProven when it does not get there."""
    started_s = bench.now_s()
    while bench.now_s() < started_s + TIMEOUT_S / 3:
        bench.pause_s(POLL_S)
        now_s = bench.now_s()
        recent = guest.beats(now_s - SILENCE_S, now_s)
        if not recent and now_s > started_s + SILENCE_S:
            break
        steady = [beat for beat in recent if beat.at_s > now_s - STEADY_S]
        if len(steady) >= STEADY_BEATS and steady[0].pages_ok > 0 and steady[0].disk_ok > 0:
            if steady[-1].pages_bad or steady[-1].disk_bad:
                raise WorkNotProven("the guest's memory or disk is not as written before any migration")
            return
    raise WorkNotProven("before its migration the guest did not beat, and check memory and disk, steadily")


def _bandwidth(params: Mapping[str, object]) -> int | None:
    value = params.get("bandwidth_mib_s")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Failed("farm", f"live_migration: bandwidth_mib_s = {value!r} must be a whole number of MiB/s from 1")
    return value


SCENARIO: Scenario = LiveMigration()
