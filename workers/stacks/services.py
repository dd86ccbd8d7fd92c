"""The services of a deployment behind walls: started by the supervisor in there, waited for, listened to, ended."""

import collections
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from workers import sandbox

LOG_LINES = 1000  # of each service, the last ones
PYTHON = "/usr/bin/python3"
JOB = "/etc/farm/job.json"
SUPERVISOR = {"/farm/supervisor.py": Path(__file__).resolve().parent.parent / "supervisor.py"}
_OUTSIDE = "sandbox"  # what is said by none of the services
_ERRORS = (" ERROR ", " CRITICAL ", "Traceback")


@dataclass(frozen=True)
class Service:
    """What errors call it, and the component that it is of."""

    component: str  # empty where what it says names one
    title: str


class Services:
    """One sandbox with what runs in it. `known`: the supervisor's name of a service → which that is."""

    def __init__(self, stack: str, known: Mapping[str, Service], *, ready_timeout_s: float) -> None:
        self._stack = stack
        self._known = known
        self._ready_timeout_s = ready_timeout_s
        self._sandbox: sandbox.Sandbox | None = None
        self._logs: dict[str, collections.deque[str]] = {}
        self._changed = threading.Condition()
        self._awaited: list[str] = []  # those that are to answer before it is ready, and do not yet
        self._ready = False
        self._ended: dict[str, int] = {}
        self._once: dict[str, int | None] = {}  # what was run so, and the status it ended with

    def start(self, walls: sandbox.Walls, *, lease: str, run_dir: Path) -> None:
        """Run them behind `walls` until they are ready. Raises Failed: stack when they do not get ready."""
        self.begin(walls, lease=lease, run_dir=run_dir)
        try:
            self.wait_ready()
        except BaseException:
            self.end()
            raise

    def begin(self, walls: sandbox.Walls, *, lease: str, run_dir: Path) -> None:
        """Run them behind `walls`; `wait_ready` and `end` are the caller's to call."""
        self._awaited = list(json.loads(walls.texts[JOB])["ready"])
        command = [PYTHON, "-I", "/farm/supervisor.py", JOB]
        self._sandbox = sandbox.start(walls, command, lease=lease, run_dir=run_dir, on_line=self._take)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        with self._changed:
            while not self._ready and not self._ended:
                if time.monotonic() > deadline:
                    raise self._silent()
                if not self.running().alive():
                    raise Failed("stack", f"{self._stack} ended (at: deployment): {self.last_words(_OUTSIDE)}")
                self._changed.wait(0.2)
        self.require_all()

    def require_all(self) -> None:
        """Raises Failed (stack) when one of them has ended."""
        with self._changed:
            for name, status in self._ended.items():
                raise self._failed(name, f"ended with {status}", self.last_words(name))

    def _silent(self) -> Failed:
        """What is to be said of those that are not ready in time."""
        limit = f"{self._ready_timeout_s:.0f} s"
        if not self._awaited:
            return Failed("stack", f"{self._stack} is not ready after {limit} (at: deployment): {self.last_words()}")
        name = self._awaited[0]
        return self._failed(name, f"does not answer with 200 after {limit}", self.last_words(name, errors=True))

    def _failed(self, name: str, how: str, words: str) -> Failed:
        service = self._known.get(name, Service(self._stack, name))
        component = f"component '{service.component}'" if service.component else self._stack
        return Failed("stack", f"{component} (at: deployment): {self._stack}'s {service.title} {how}: {words}")

    def run_once(self, name: str, *, timeout_s: float) -> None:
        """Run what the job has by that name under "once", to its end. Raises Failed (stack) where that goes wrong."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._once[name] = None
            self.running().tell(json.dumps({"run": name}))
            while (status := self._once[name]) is None:
                if time.monotonic() > deadline or not self.running().alive():
                    raise self._failed(name, f"did not end within {timeout_s:g} s", self.last_words(name))
                self._changed.wait(0.2)
        if status:
            raise self._failed(name, f"ended with {status}", self.last_words(name))

    def running(self) -> sandbox.Sandbox:
        if self._sandbox is None:
            raise Failed("farm", f"{self._stack} is not deployed any more")
        return self._sandbox

    def end(self) -> None:
        """Kill everything and see that it is gone; harmless when done already. Raises Failed (farm)."""
        if self._sandbox is not None:
            self._sandbox.end()
            self._sandbox = None

    def logs(self) -> dict[str, str]:
        """What each service said last, as text; also after `end`."""
        with self._changed:
            return {name: "\n".join(lines) for name, lines in self._logs.items()}

    def last_words(self, *names: str, errors: bool = False) -> str:
        """The last lines that these said, or all; with `errors` the last of those that tell of errors, if any do."""
        with self._changed:
            said = [list(self._logs.get(name, ())) for name in names or tuple(self._logs)]
        if errors:
            said = [[line for line in lines if any(sign in line for sign in _ERRORS)] or lines for lines in said]
        return " | ".join(line for lines in said for line in lines[-3:])[-600:] or "nothing was said"

    def _take(self, line: bytes) -> None:
        """One line of the supervisor's; whatever else comes is kept as the sandbox's own words."""
        try:
            message = json.loads(line)
            known = isinstance(message, dict)
        except (ValueError, RecursionError):
            known = False
        with self._changed:
            if not known:
                self._keep(_OUTSIDE, line.decode("utf-8", "replace"))
            elif "line" in message:
                self._keep(str(message.get("from")), str(message["line"]))
            elif "ended" in message:
                name, status = str(message["ended"]), int(str(message.get("status", -1)).lstrip("-") or 0)
                (self._once if name in self._once else self._ended)[name] = status
            elif message.get("up") in self._awaited:
                self._awaited.remove(message["up"])
            elif message.get("ready") is True:
                self._ready = True
            self._changed.notify_all()

    def _keep(self, name: str, line: str) -> None:
        source = name if name in self._known else _OUTSIDE
        text = "".join(letter for letter in line if letter.isprintable() or letter == "\t")
        self._logs.setdefault(source, collections.deque(maxlen=LOG_LINES)).append(text)
