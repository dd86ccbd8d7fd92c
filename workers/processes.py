"""Processes of this machine (or PID namespace) as /proc shows them: found by mark, ended for certain.

A process that ends while it is looked at is simply not there.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

Finder = Callable[[], Iterable[int]]

LEASE_VARIABLE = "FARM_LEASE"  # in the environment of every process of a session: the session's id

_PROC = Path("/proc")
_VMM = re.compile(r"qemu-system-\w+|qemu-kvm|kvm")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TERM_GRACE_S = 1.0
_POLL_S = 0.02


def all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]


def environment(pid: int) -> dict[str, str]:
    """The environment the process was started with; empty when it is gone, a zombie or not ours to read."""
    try:
        content = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    entries = (entry.partition("=") for entry in content.decode(errors="replace").split("\0") if "=" in entry)
    return {name: value for name, _, value in entries}


def command_line(pid: int) -> list[str]:
    try:
        content = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return content.decode(errors="replace").rstrip("\0").split("\0")


def marked(variable: str, values: Iterable[str]) -> dict[int, str]:
    """Processes whose environment has `variable` set to one of `values`: process id → value."""
    wanted = set(values)
    found = {pid: environment(pid).get(variable) for pid in all_pids()}
    return {pid: value for pid, value in found.items() if value in wanted and value is not None}


def guests(namespace: str | None = None) -> dict[str, list[int]]:
    """Live VMM processes by their guest's name; all that are seen here, or those of one PID namespace."""
    found: dict[str, list[int]] = {}
    for pid in all_pids():
        name = guest_of(command_line(pid))
        if name is not None and (namespace is None or pid_namespace(pid) == namespace):
            found.setdefault(name, []).append(pid)
    return found


def guest_of(argv: list[str]) -> str | None:
    """The guest's name as libvirt writes it into QEMU's command line (`-name guest=NAME,…`)."""
    if not argv or not _VMM.fullmatch(os.path.basename(argv[0])) or "-name" not in argv[:-1]:
        return None
    options = argv[argv.index("-name") + 1].split(",")
    return next((option.removeprefix("guest=") for option in options if option.startswith("guest=")), options[0])


def pid_namespace(pid: int) -> str | None:
    """What identifies the process's PID namespace; None when it is gone."""
    try:
        return os.readlink(_PROC / str(pid) / "ns" / "pid")
    except OSError:
        return None


def busy_s() -> float:
    """CPU seconds that all processors of this machine have worked since its boot, whoever for."""
    words = (_PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq = (int(word) for word in words[1:8])
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


def cpu_s(pid: int) -> float:
    """CPU seconds (user and system) the process has used, all threads; 0 when it is gone."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def starved_s(pid: int) -> float:
    """The longest that any of its threads was ready and had no processor; 0 when it is gone or that is not told."""
    found = [0.0]
    for statistics in (_PROC / str(pid) / "task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            found.append(int(statistics.read_text().split()[1]) / 1e9)
    return max(found)


def started_s(pid: int) -> tuple[float, float] | None:
    """The clock tick in which the process was made, in seconds since the machine's start; None when it is gone."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    tick = int(fields[19])
    return tick / _TICKS_PER_S, (tick + 1) / _TICKS_PER_S


def read_bytes(pid: int) -> int:
    """Bytes the kernel has fetched from disks for the process; 0 when it is gone."""
    return _counted(pid, "read_bytes")


def asked_bytes(pid: int) -> int:
    """Bytes the process has read from files, wherever the kernel had them; 0 when it is gone."""
    return _counted(pid, "rchar")


def _counted(pid: int, what: str) -> int:
    try:
        lines = (_PROC / str(pid) / "io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def program_of(pid: int) -> str:
    """The name of its program; empty when it is gone."""
    return os.path.basename(next(iter(command_line(pid)), ""))


def ancestry(pid: int) -> set[int]:
    """The process and all it descends from, as far as they are seen here."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = int((_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def end_all(find: Finder, *, timeout_s: float, term_first: bool = True) -> tuple[set[int], set[int]]:
    """End every process that `find` names, until it names none: TERM first, KILL after a grace.

    `find` is asked again right before each signal, through a handle that a new process of the same number
    does not share. Returns the processes that were ended and those still there after `timeout_s`.
    """
    started = time.monotonic()
    ended: set[int] = set()
    while remaining := set(find()):
        now = time.monotonic() - started
        if now > timeout_s:
            return ended - remaining, remaining
        gentle = term_first and now < _TERM_GRACE_S
        number = signal.SIGTERM if gentle else signal.SIGKILL
        _signal_those_still_found(remaining - ended if gentle else remaining, number, find)
        ended |= remaining
        time.sleep(_POLL_S)
    return ended, set()


def _signal_those_still_found(pids: Iterable[int], number: signal.Signals, find: Finder) -> None:
    with contextlib.ExitStack() as handles:
        opened: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                opened[pid] = os.pidfd_open(pid)
                handles.callback(os.close, opened[pid])
        for pid in opened.keys() & set(find()):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(opened[pid], number)
