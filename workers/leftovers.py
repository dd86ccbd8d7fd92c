"""What ended sessions left on one machine: found by their marks, and cleared. Runs where the leftovers are."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from workers import processes
from workers.loops import detach, loops_of
from workers.marks import guest_prefix
from workers.operations import operation

_END_TIMEOUT_S = 10.0
_UNMOUNT_TIMEOUT_S = 10.0
_LOOPS_TIMEOUT_S = 3.0
_POLL_S = 0.02
_AGENT = ["-m", "workers.agent"]
_FITRIM = 0xC0185879
_WHOLE = struct.pack("=QQQ", 0, 2**64 - 1, 0)  # from the first byte to the last, pieces of any size


@operation
def clear(
    ended: list[str], own: str | None, folders: list[str], keep_folders: list[str], named_after_guests: list[str]
) -> dict[str, list[str]]:
    """Clear away what carries the marks of the sessions `ended` and `own`, and nothing else.

    `folders` are removed, with what is mounted or attached from under them; `keep_folders` are only freed
    of mounts. What lies in `named_after_guests` goes when its name is of a guest of these sessions. The agents
    of `own` stay: they end with the process that holds them. Returns what was found, by kind; `stuck` is what
    could not be ended.
    """
    sessions = [*ended, *([own] if own else [])]
    prefixes = tuple(guest_prefix(session) for session in sessions)
    ended_processes, stuck = _end_processes(sessions, own, prefixes)
    places = [Path(folder) for folder in (*folders, *keep_folders)]
    mounts = [mount for place in places for mount in unmount_below(place)]
    loops = [device for place in places for device in detach_below(place)]
    removed = []
    for folder in folders:
        try:
            if _remove(Path(folder)):
                removed.append(folder)
        except OSError as error:
            stuck.append(f"{folder}: {error}")
    named = [entry for folder in named_after_guests for entry in _named(Path(folder), prefixes)]
    for entry in named:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink(missing_ok=True)
    return {
        "processes": ended_processes,
        "stuck": stuck,
        "mounts": mounts,
        "loops": loops,
        "folders": removed + [str(entry) for entry in named],
    }


@operation
def give_back(folder: str) -> None:
    """Let the file behind the folder's file system hold no more than what lies there, where it can be told so.

    Then it takes no room for what is gone, and every session finds it in the same state.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _FITRIM, _WHOLE)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    finally:
        os.close(handle)


def unmount_below(folder: Path) -> list[str]:
    """Unmount everything at or below `folder` in this mount namespace, the innermost first."""
    found = []
    for mount_point in reversed(_mount_points()):
        if mount_point.is_relative_to(folder):
            for option in ((), ("--lazy",)):  # a file that is still open must not keep it in sight
                command = ["umount", *option, str(mount_point)]
                if (
                    subprocess.run(command, capture_output=True, timeout=_UNMOUNT_TIMEOUT_S, check=False).returncode
                    == 0
                ):
                    break
            found.append(str(mount_point))
    return found


def detach_below(folder: Path) -> list[str]:
    """Detach loop devices with files at or below `folder`; those that the kernel is letting go of are given time."""
    deadline = time.monotonic() + _LOOPS_TIMEOUT_S
    while (held := loops_of(folder)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for device in held:
        detach(device)
    return held


def _end_processes(sessions: list[str], own: str | None, prefixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    spared = processes.ancestry(os.getpid())
    here = processes.pid_namespace(os.getpid())  # guests in a namespace below are those of another host
    names: dict[int, str] = {}

    def find() -> Iterable[int]:
        leases = processes.marked(processes.LEASE_VARIABLE, sessions)
        found = {pid for pid, lease in leases.items() if lease != own or not _is_agent(pid)}
        for guest, pids in processes.guests(here).items():
            if prefixes and guest.startswith(prefixes):
                found.update(pids)
        found -= spared
        for pid in found - names.keys():
            names[pid] = f"{pid} {' '.join(processes.command_line(pid))[:80]}".strip()
        return found

    done, left = processes.end_all(find, timeout_s=_END_TIMEOUT_S)
    return [names[pid] for pid in sorted(done)], [f"process {names[pid]} does not end" for pid in sorted(left)]


def _is_agent(pid: int) -> bool:
    return processes.command_line(pid)[-2:] == _AGENT


def _mount_points() -> list[Path]:
    """In the order they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


def _named(folder: Path, prefixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir() or not prefixes:
        return []
    return sorted(entry for entry in folder.iterdir() if entry.name.startswith(prefixes))


def _remove(folder: Path) -> bool:
    """Whether there was something to remove. Raises OSError, before anything is removed, for what is mounted there."""
    if not folder.exists():
        return False
    if mounted := [str(place) for place in _mount_points() if place.is_relative_to(folder)]:
        raise OSError(f"still mounted: {', '.join(mounted)}")
    shutil.rmtree(folder, onerror=_unless_gone)
    return True


def _unless_gone(_function: object, _path: str, error: tuple[type, BaseException, object]) -> None:
    """Another host of the cluster may be removing the same shared folder."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
