"""Keeps the farm's processes running: starts them, starts again what died, ends them all.

One supervisor per FARM_HOME, by a lock. Whatever a killed one left behind is ended before anything is started.
"""

import fcntl
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from farm.cli.errors import UsageError
from farm.cli.processes import Component, ProcessTable

_RESTARTS_ALLOWED = 5
_RESTARTS_WITHIN_S = 300.0


class Supervisor:
    """Runs `components`, in their order; ends them in the opposite order."""

    def __init__(self, home: Path, components: Sequence[Component]) -> None:
        self.components = components
        self.table = ProcessTable(home)
        self._lock_path = home / "run" / "supervisor.lock"
        self._lock: IO[str] | None = None
        self._restarts: dict[str, deque[float]] = {c.name: deque(maxlen=_RESTARTS_ALLOWED) for c in components}

    def start(self) -> None:
        """Take the lock and start everything; raises UsageError where another supervisor holds it."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock_path.open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"the farm runs already (pid {supervisor_pid(self._lock_path)}): "
                "'farm status' shows it, 'farm down' ends it"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        self.stop()
        for component in self.components:
            self.table.start(component)

    def watch(self) -> None:
        """Start again what has died; raises UsageError when a component dies again and again."""
        for component in self.components:
            if self.table.pid_of(component.name) is None:
                self._count_restart(component)
                print(f"{component.name} had ended: starting it again", file=sys.stderr, flush=True)
                self.table.start(component)

    def stop(self) -> None:
        """End every recorded process, also those of an earlier supervisor."""
        patience_s = {component.name: component.stop_timeout_s for component in self.components}
        order = [component.name for component in reversed(self.components)]
        for name in [*order, *(name for name in self.table.names() if name not in order)]:
            self.table.stop(name, patience_s.get(name, 20.0))

    def _count_restart(self, component: Component) -> None:
        restarts, now = self._restarts[component.name], time.monotonic()
        restarts.append(now)
        if len(restarts) == _RESTARTS_ALLOWED and now - restarts[0] < _RESTARTS_WITHIN_S:
            log = self.table.log_dir / f"{component.name}.log"
            raise UsageError(
                f"{component.name} ended {_RESTARTS_ALLOWED} times within "
                f"{_RESTARTS_WITHIN_S:.0f} s: its last words are in {log}"
            )


def supervisor_pid(lock_path: Path) -> int | None:
    """The pid of the supervisor that holds the lock, or None when nobody does."""
    try:
        with lock_path.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
    except (OSError, ValueError):
        pass
    return None
