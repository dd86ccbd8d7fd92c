"""The mark of a session: how everything a session makes is known, and how its end is known.

A session that lives holds a lock on a file of its folder; the kernel lets go of it however the session ends.
Its processes carry `FARM_LEASE=<session>`, its guests are named `farm-<session's first 12>-…`, its files lie
in folders `sessions/<session>`.
"""

import fcntl
import os
import re
import time
from pathlib import Path
from typing import IO

from scenarios.contract import Failed
from workers.processes import LEASE_VARIABLE

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")
_PREFIX_LENGTH = 12
_LOCK_TIMEOUT_S = 5.0
_POLL_S = 0.05


def guest_prefix(session: str) -> str:
    """How names of this session's guests begin."""
    return f"farm-{session[:_PREFIX_LENGTH]}-"


class SessionMark:
    """The mark of a session while it lives: a context manager that holds its lock."""

    def __init__(self, cluster_folder: Path, session: str) -> None:
        if not _SESSION.fullmatch(session):
            raise Failed("farm", f"session {session!r} is no session's id")
        self.session = session
        self.folder = cluster_folder / "sessions" / session
        self._lock: IO[bytes] | None = None

    @property
    def guest_prefix(self) -> str:
        return guest_prefix(self.session)

    @property
    def environment(self) -> dict[str, str]:
        """For every process of the session."""
        return {LEASE_VARIABLE: self.session}

    def __enter__(self) -> "SessionMark":
        """Raises Failed (farm) while another process holds this session.

        A sweep or a look at the lock may hold it for a moment: hence a short wait.
        """
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while (lock := take_lock(self.folder)) is None:
            if time.monotonic() > deadline:
                raise Failed("farm", f"session {self.session} is at work in another process")
            time.sleep(_POLL_S)
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        """The folder stays, until a sweep finds it without its lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def take_lock(folder: Path) -> IO[bytes] | None:
    """The lock of a session's folder (made if missing); None while somebody else holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lock"
        try:
            lock = path.open("ab")
        except FileNotFoundError:
            continue  # swept away just now
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            return lock
        lock.close()


def known_sessions(cluster_folder: Path) -> list[str]:
    """Sessions that have a folder: alive, or ended and not yet swept."""
    folder = cluster_folder / "sessions"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _SESSION.fullmatch(entry.name))


def known_prefixes(cluster_folder: Path) -> tuple[str, ...]:
    """How names of guests of ours begin, whether their session lives or not."""
    return tuple(guest_prefix(session) for session in known_sessions(cluster_folder))


def live_sessions(cluster_folder: Path) -> list[str]:
    """Sessions whose lock is held now."""
    return [session for session in known_sessions(cluster_folder) if _is_held(cluster_folder / "sessions" / session)]


def _is_held(folder: Path) -> bool:
    """Looks without making or taking anything for longer than the look."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
