"""What of some files is in a host's page cache, and what was really read from its disk: operations of its agent."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from scenarios.contract import Failed, WorkNotProven
from workers import processes
from workers.operations import operation

_TOOL_TIMEOUT_S = 30.0
_EVICT_TIMEOUT_S = 10.0  # pages that are being read or written right now stay a while
_POLL_S = 0.05


@operation
def evict(paths: Sequence[str]) -> None:
    """Drop every page of these files; raises WorkNotProven where some stay, as of files that others have mapped."""
    deadline_s = time.monotonic() + _EVICT_TIMEOUT_S
    for path in paths:
        _drop(path)
    while left := resident_bytes(paths):
        if time.monotonic() > deadline_s:
            raise WorkNotProven(f"{left >> 10} KiB of {', '.join(paths)} cannot be dropped from the page cache")
        time.sleep(_POLL_S)
        for path in paths:
            _drop(path)


@operation
def prove_read(paths: Sequence[str], guest: str, least: int) -> int:
    """Bytes that the guest's VMM has read from disk; raises WorkNotProven for less than it must have.

    That is what is of `paths` in the page cache now, if nothing was before, and at least `least`.
    """
    pids = processes.guests().get(guest)
    if not pids:
        raise Failed("hypervisor", f"no live VMM process of guest {guest}")
    read, needed = sum(processes.read_bytes(pid) for pid in pids), max(least, resident_bytes(paths))
    if read < needed:
        raise WorkNotProven(f"a cold boot reads {needed >> 10} KiB from disk at least, this one read {read >> 10} KiB")
    return read


def resident_bytes(paths: Sequence[str]) -> int:
    """Bytes of these files in the page cache."""
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=True)
    return sum(int(number) for number in done.stdout.split())


def _drop(path: str) -> None:
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())  # dirty pages cannot be dropped
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
