"""When a guest's console first shows a word, as its host sees it: operations of the host's agent."""

import threading
import time
from pathlib import Path

from workers.operations import operation

_POLL_S = 0.003

_ends: dict[str, threading.Event] = {}
_lock = threading.Lock()


@operation
def wait_for(path: str, word: str, limit_s: float) -> tuple[float, float] | None:
    """The host's monotonic time when `word` was not in the file yet, and then when it was.

    None after `limit_s` or `end_wait`.
    """
    with _lock:
        end = _ends.setdefault(path, threading.Event())
    deadline_s = time.monotonic() + limit_s
    wanted, seen, missed_s = word.encode(), b"", time.monotonic()
    try:
        while not end.wait(_POLL_S) and time.monotonic() < deadline_s:
            looked_s = time.monotonic()
            seen += _read_from(Path(path), len(seen))
            if wanted in seen:
                return missed_s, time.monotonic()
            missed_s = looked_s
        return None
    finally:
        with _lock:
            _ends.pop(path, None)


@operation
def end_wait(path: str) -> None:
    """Let `wait_for` of this file return now."""
    with _lock:
        if path in _ends:
            _ends[path].set()


def _read_from(path: Path, position: int) -> bytes:
    try:
        if path.stat().st_size <= position:
            return b""
        with path.open("rb") as file:
            file.seek(position)
            return file.read()
    except FileNotFoundError:
        return b""
