"""The farm's own processes: started detached, recorded before anything depends on them, ended by identity.

A record names pid and start time; a pid that the kernel has given to somebody else is never signalled.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.1


@dataclass(frozen=True)
class Component:
    """One process of the farm: its name, command, and folder to run in."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    stop_timeout_s: float = 20.0


class ProcessTable:
    """Records under `<home>/run/<name>.json`, logs under `<home>/log/<name>.log`."""

    def __init__(self, home: Path) -> None:
        self.run_dir = home / "run"
        self.log_dir = home / "log"

    def start(self, component: Component) -> None:
        """Start the component in a session of its own, unless it already runs."""
        if self.pid_of(component.name) is not None:
            return
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        with (self.log_dir / f"{component.name}.log").open("ab") as log:
            process = subprocess.Popen(
                component.command,
                cwd=component.folder,
                env=dict(component.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        record = {"pid": process.pid, "start_time": start_time_of(process.pid)}
        self._path(component.name).write_text(json.dumps(record))

    def pid_of(self, name: str) -> int | None:
        """The pid, if the recorded process still runs and is still the same one."""
        try:
            record = json.loads(self._path(name).read_text())
            pid, start_time = int(record["pid"]), record["start_time"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        _reap(pid)
        return pid if start_time is not None and start_time_of(pid) == start_time else None

    def stop(self, name: str, timeout_s: float) -> bool:
        """SIGTERM, then SIGKILL after `timeout_s`; returns whether it had been running."""
        pid = self.pid_of(name)
        if pid is not None:
            for sign, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
                if self._gone_within(name, patience_s):
                    break
        self._path(name).unlink(missing_ok=True)
        return pid is not None

    def names(self) -> list[str]:
        """Components that have a record, running or not."""
        return sorted(path.stem for path in self.run_dir.glob("*.json") if path.stem != "ports")

    def _gone_within(self, name: str, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.pid_of(name) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _path(self, name: str) -> Path:
        return self.run_dir / f"{name}.json"


def start_time_of(pid: int) -> str | None:
    """Clock ticks since the machine's boot at which the process began; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _reap(pid: int) -> None:
    """Collect a child of ours that has ended, so that it is not mistaken for a running one."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
