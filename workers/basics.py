"""Operations on a host that every part of a session uses."""

import base64
import contextlib
import hashlib
import os
import subprocess
import threading
import time
from pathlib import Path

from scenarios.contract import Failed
from workers import processes
from workers.operations import operation

_children: set[subprocess.Popen[str]] = set()
_children_lock = threading.Lock()


@operation
def clock_ns() -> int:
    """The host's monotonic clock."""
    return time.monotonic_ns()


@operation
def own_cpu_s() -> float:
    """CPU seconds of this agent so far, without the programs it started."""
    return time.process_time()


@operation
def read_text(path: str) -> str:
    """A whole text file; what is no UTF-8 is replaced."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


@operation
def sha256_of_file(path: str) -> str | None:
    """None when there is no such file."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@operation
def write_chunk(path: str, offset: int, content: str, mode: int) -> None:
    """Write base64 `content` at `offset` of a file (made at offset 0, with its folders)."""
    target = Path(path)
    if offset == 0:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.touch(mode=mode)
        target.chmod(mode)
    with target.open("r+b") as file:
        file.seek(offset)
        file.write(base64.b64decode(content))


@operation
def put_in_place(path: str, target: str) -> None:
    """Rename a file that is complete to the name it is known by."""
    os.replace(path, target)


@operation
def make_folder(path: str, uid: int) -> None:
    """Make a folder for the user and group `uid`; harmless when it exists."""
    Path(path).mkdir(parents=True, exist_ok=True)
    os.chown(path, uid, uid)


@operation
def run(argv: list[str], limit_s: float, text: str = "") -> dict[str, str | int]:
    """Run a program to its end, `text` on its standard input; returns `code`, `stdout` and `stderr`.

    Raises Failed (farm) when it takes longer.
    """
    with _children_lock:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        _children.add(child)
    try:
        stdout, stderr = child.communicate(text, timeout=limit_s)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        raise Failed("farm", f"{argv[0]} did not end within {limit_s:g} s") from None
    finally:
        with _children_lock:
            _children.discard(child)
    return {"code": child.returncode, "stdout": stdout, "stderr": stderr}


@operation
def guests() -> dict[str, list[int]]:
    """Live virtual machine monitors of this host by their guest's name: their process ids here."""
    return processes.guests()


@operation
def guest_cpu_s(guest: str) -> float:
    """CPU seconds so far of the guest's VMM process; raises Failed (hypervisor) when there is none."""
    found = processes.guests().get(guest)
    if not found:
        raise Failed("hypervisor", f"no live VMM process of guest {guest}")
    return sum(processes.cpu_s(pid) for pid in found)


@operation
def guest_starved_s(guest: str) -> float:
    """The longest that a thread of the guest's VMM was ready and had no processor."""
    return max(map(processes.starved_s, processes.guests().get(guest, ())), default=0.0)


def end_children() -> None:
    """Kill what `run` has started and is still waiting for."""
    with _children_lock:
        for child in _children:
            _kill_group(child)


def _kill_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, 9)
    child.wait()
