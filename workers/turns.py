"""One process at a time: a lock on a file, which the kernel lets go of with a process that is killed."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from scenarios.contract import Failed

_POLL_S = 0.05


def take_turn(file: IO[Any], *, timeout_s: float, busy: str) -> None:
    """Hold the open `file` until it is closed. Raises Failed (farm), with `busy`, where another has it for too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failed("farm", f"{busy}: another process has it for {timeout_s:g} s") from None
            time.sleep(_POLL_S)


@contextlib.contextmanager
def turn(path: Path, *, timeout_s: float, busy: str) -> Iterator[None]:
    """The same with a file that is there only while somebody holds it or waits for it."""
    deadline = time.monotonic() + timeout_s
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            take_turn(file, timeout_s=max(0.0, deadline - time.monotonic()), busy=busy)
            if not _is_at(file, path):
                continue  # its last holder has removed it: whoever comes now takes another
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
