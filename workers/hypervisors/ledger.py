"""What a host can tell of a guest's boot and end, and what its daemon takes: operations of its agent."""

import re
import time
from pathlib import Path

from workers import clocks, processes
from workers.operations import operation

_POLL_S = 0.003
_CPU_POLL_S = 0.01  # the tick of the figure
_DAEMONS = {"libvirtd", "virtqemud"}


@operation
def started_s(guest: str) -> tuple[float, float] | None:
    """When the guest's VMM process was made, on the host's monotonic clock; None when there is none.

    The kernel keeps it in ticks (10 ms, mostly): the beginning and the end of its tick.
    """
    pids = processes.guests().get(guest)
    tick_s = processes.started_s(pids[0]) if pids else None
    if tick_s is None:
        return None
    monotonic_s, boot_s = clocks.at_one_moment(lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    began_s, ended_s = (since_boot_s - (boot_s - monotonic_s) for since_boot_s in tick_s)
    return began_s, ended_s


@operation
def monotonic_s(real_s: float) -> float:
    """A time of the host's calendar clock, a moment ago, on its monotonic clock."""
    now_s, now_real_s = clocks.at_one_moment(time.time)
    return now_s - (now_real_s - real_s)


@operation
def daemon_cpu_s() -> float:
    """CPU seconds so far of the daemon that manages this host's guests."""
    return sum(processes.cpu_s(pid) for pid in processes.all_pids() if processes.program_of(pid) in _DAEMONS)


@operation
def last_cpu_s(guest: str, limit_s: float) -> float:
    """CPU seconds of the guest's VMM when it was last seen: waits until it is gone, or for `limit_s`."""
    pids = processes.guests().get(guest, [])
    deadline_s, last_s = time.monotonic() + limit_s, 0.0
    while (now_s := sum(processes.cpu_s(pid) for pid in pids)) >= last_s and time.monotonic() < deadline_s:
        last_s = now_s
        time.sleep(_CPU_POLL_S)
    return last_s


@operation
def told(path: str, words: str, limit_s: float) -> list[int] | None:
    """The numbers after `words` on the first whole line of a console that has them; None when not in time."""
    deadline_s = time.monotonic() + limit_s
    wanted = re.compile(f"{re.escape(words)}((?: [0-9]+)+)\r?")
    while True:
        for line in _lines(Path(path)):
            if match := wanted.fullmatch(line):
                return [int(number) for number in match[1].split()]
        if time.monotonic() > deadline_s:
            return None
        time.sleep(_POLL_S)


def _lines(path: Path) -> list[str]:
    """All whole lines."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
