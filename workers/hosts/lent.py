"""A lent machine as its own agent sees it: an operation that reads and changes nothing."""

import json
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any

from workers import processes
from workers.operations import operation

_COMMAND_TIMEOUT_S = 10.0
_LOGS = Path("/var/log/libvirt/qemu")  # libvirt keeps one of each guest


@operation
def look(folder: str, bridge: str, emulator: str, watch_s: float) -> dict[str, Any]:
    """What there is; `busy` is the share of all processors that worked while it was watched."""
    places = {name: _place(Path(folder, name)) for name in ("work", "shared", "console")}
    return {
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "places": places,
        "logs_writable": os.geteuid() == 0 or os.access(_LOGS, os.W_OK | os.X_OK),
        "emulator": os.access(emulator, os.X_OK),
        "bridge": Path(f"/sys/class/net/{bridge}/bridge").is_dir(),
        "addresses": _addresses(),
        "memory_mib": _available_mib(),
        "guests": sorted(processes.guests()),
        "busy": _busy(watch_s),
    }


@operation
def held_mib(folders: list[str]) -> int:
    """What the files in these folders take of their disks."""
    files = (path for folder in folders for path in Path(folder).rglob("*"))
    return sum(path.lstat().st_blocks * 512 for path in files) >> 20


def _place(folder: Path) -> dict[str, Any]:
    """`same` tells whether two hosts see the same folder: as often as not they do not where it is a disk of each."""
    if not folder.is_dir():
        return {"there": False}
    space, status = os.statvfs(folder), folder.stat()
    return {
        "there": True,
        "writable": os.access(folder, os.W_OK | os.X_OK),
        "free_mib": space.f_bavail * space.f_frsize >> 20,
        "same": [status.st_ino, status.st_mtime_ns],
        "kind": _file_system_of(status.st_dev),
    }


def _file_system_of(device: int) -> str:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[2] == wanted:
            return words[words.index("-") + 1]
    return "unknown"


def _addresses() -> list[str]:
    command = ["ip", "-json", "-4", "address", "show"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=True)
    return [address["local"] for link in json.loads(done.stdout) for address in link.get("addr_info", [])]


def _available_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable:"))


def _busy(watch_s: float) -> float:
    before_s, began = processes.busy_s(), time.monotonic()
    time.sleep(watch_s)
    worked_s = processes.busy_s() - before_s
    return min(1.0, worked_s / (time.monotonic() - began) / (os.cpu_count() or 1))
