"""One process at a time: a lock on a file, which the kernel lets go of with a process that is killed."""

import fcntl
import time
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
