"""When a guest's console first shows a word, as its host sees it: operations of the host's agent."""

import os
import threading
import time

from workers.operations import operation

_POLL_S = 0.003
_CHUNK_BYTES = 64 << 10

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
    file: int | None = None
    try:
        while not end.wait(_POLL_S) and time.monotonic() < deadline_s:
            looked_s = time.monotonic()
            file = _opened(path) if file is None else file
            seen += _new_in(file)
            if wanted in seen:
                return missed_s, time.monotonic()
            missed_s = looked_s
        return None
    finally:
        if file is not None:
            os.close(file)
        with _lock:
            _ends.pop(path, None)


@operation
def end_wait(path: str) -> None:
    """Let `wait_for` of this file return now."""
    with _lock:
        if path in _ends:
            _ends[path].set()


def _opened(path: str) -> int | None:
    """The file's descriptor, None as long as there is no file; cheap, since it is asked for every few milliseconds."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _new_in(file: int | None) -> bytes:
    """What was written to it since it was last read."""
    found = b""
    while file is not None and (chunk := os.read(file, _CHUNK_BYTES)):
        found += chunk
    return found
