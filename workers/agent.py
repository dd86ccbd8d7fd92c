"""The agent that a session runs on each host, and the link that the session holds to it.

The agent is `python3 -m workers.agent` (standard library alone) inside the host. One JSON object a line:

    {"id": 1, "operation": "basics.clock_ns", "arguments": {}}   →   {"id": 1, "result": …}
                                                                 or  {"id": 1, "error": {"kind", "fault", "message"}}

Each request runs in a thread of its own. The agent ends when its standard input does, so that it never
outlives the session. Errors of `scenarios.contract` arrive at the caller as what they were.
"""

import base64
import collections
import concurrent.futures
import contextlib
import errno
import hashlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from scenarios.contract import Failed, ScenarioError, Unsupported, WorkNotProven
from workers.operations import find_operation

_CLOCK_ROUND_TRIPS = 15
_CLOSE_S = 3.0
_LAST_WORDS_S = 1.0
_CHUNK_BYTES = 1 << 20
# what a host's own disk or file system says: nobody's mistake but its owner's
_HOSTS_OWN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class OperationFailed(Failed):
    """The operation raised something that no scenario may expect: a fault of the farm."""

    def __init__(self, reason: str) -> None:
        super().__init__("farm", reason)


class LinkDead(Failed):
    """The agent ended, or the host with it."""

    def __init__(self, reason: str) -> None:
        super().__init__("donor", reason)


class CallTimedOut(Failed):
    """The agent did not answer in time. What was asked for may still be going on there."""

    def __init__(self, reason: str) -> None:
        super().__init__("donor", reason)


class AgentLink:
    """Calls to one agent; may be used from several threads at once. A context manager that closes."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, code: bytes | None = None
    ) -> None:
        """Start the agent with `command` in exactly this environment; `name` says in errors where it runs.

        `code` is what the command reads first, where the host has none of ours.
        """
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is the session's to handle
        )
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self._dead = False
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        if code is not None:
            self._requests.put(code)
        self._last_words: collections.deque[str] = collections.deque(maxlen=5)
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"{name}: {target.__name__}")
            for target in (self._write_requests, self._read_replies, self._read_last_words)
        ]
        for thread in self._threads:
            thread.start()

    def call(self, operation: str, *, timeout_s: float, **arguments: Any) -> Any:
        """Run an operation on the host and return its result (plain data).

        Raises what the operation raised if it is a ScenarioError, else OperationFailed (fault farm);
        LinkDead or CallTimedOut (fault donor).
        """
        number = next(self._ids)
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        line = json.dumps({"id": number, "operation": operation, "arguments": arguments}) + "\n"
        with self._lock:
            if self._dead:
                raise self._death(operation)
            self._waiting[number] = answer
        self._requests.put(line.encode())
        try:
            reply = answer.result(timeout_s)
        except concurrent.futures.TimeoutError:
            with self._lock:
                self._waiting.pop(number, None)
            raise CallTimedOut(f"agent on {self.name}: no answer to {operation} within {timeout_s:g} s") from None
        except concurrent.futures.CancelledError:
            raise self._death(operation) from None
        if "error" in reply:
            raise _error_of(reply["error"], f"agent on {self.name}: {operation}")
        return reply["result"]

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Run a program on the host; returns its output. OperationFailed with its last words when it fails."""
        done = self.call("basics.run", timeout_s=timeout_s + _CLOSE_S, argv=list(argv), limit_s=timeout_s)
        if done["code"] != 0:
            words = done["stderr"].strip() or done["stdout"].strip()
            raise OperationFailed(f"{' '.join(argv)} on {self.name} ended with {done['code']}: {words[-400:]}")
        return str(done["stdout"])

    def send_file(self, source: Path, target: Path, *, timeout_s: float, mode: int = 0o644) -> None:
        """Bring a file of the worker's machine to the host, unless it is there already with the same content."""
        digest = _sha256(source)
        deadline_s = time.monotonic() + timeout_s

        def call(operation: str, **arguments: Any) -> Any:
            return self.call(operation, timeout_s=max(0.1, deadline_s - time.monotonic()), **arguments)

        if call("basics.sha256_of_file", path=str(target)) == digest:
            return
        part = f"{target}.{os.getpid()}-{next(self._ids)}.part"
        with source.open("rb") as file:
            offset = 0
            while (chunk := file.read(_CHUNK_BYTES)) or offset == 0:
                content = base64.b64encode(chunk).decode()
                call("basics.write_chunk", path=part, offset=offset, content=content, mode=mode)
                if not chunk:
                    break
                offset += len(chunk)
        if call("basics.sha256_of_file", path=part) != digest:
            raise OperationFailed(f"{source} changed while it was sent to {self.name}")
        call("basics.put_in_place", path=part, target=str(target))

    def clock_offset_s(self) -> tuple[float, float]:
        """How far the host's monotonic clock is ahead of ours, and the largest error of that figure, in s."""
        best_bound_s, best_offset_s = float("inf"), 0.0
        for _ in range(_CLOCK_ROUND_TRIPS):
            before = time.monotonic_ns()
            there = self.call("basics.clock_ns", timeout_s=5)
            after = time.monotonic_ns()
            bound_s = (after - before) / 2e9
            if bound_s < best_bound_s:
                best_bound_s, best_offset_s = bound_s, (there - (before + after) / 2) / 1e9
        return best_offset_s, best_bound_s

    def close(self) -> None:
        """End the agent; harmless when it has ended already."""
        self._requests.put(None)
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(_CLOSE_S)

    def __enter__(self) -> "AgentLink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_requests(self) -> None:
        """In a thread of its own: an agent that does not read must not hold up a caller past its deadline."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as requests:  # its death is the reader's to notice
            while (line := self._requests.get()) is not None:
                requests.write(line)
                requests.flush()

    def _read_replies(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                try:
                    reply = json.loads(line)
                    number = reply["id"]
                except (ValueError, KeyError, TypeError):
                    break  # not our agent that speaks here
                with self._lock:
                    answer = self._waiting.pop(number, None)
                if answer is not None:
                    answer.set_result(reply)
        self._threads[-1].join(_LAST_WORDS_S)  # why it ended comes another way, and may come later
        with self._lock:
            self._dead = True
            orphaned, self._waiting = self._waiting, {}
        for answer in orphaned.values():
            answer.cancel()

    def _read_last_words(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            for line in errors:
                self._last_words.append(line.decode(errors="replace").strip())

    def _death(self, operation: str) -> LinkDead:
        words = "; ".join(self._last_words)
        return LinkDead(f"agent on {self.name} is gone, asked for {operation}" + (f": {words}" if words else ""))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _error_of(error: Mapping[str, str], where: str) -> ScenarioError:
    kind, message = error["kind"], error["message"]
    if kind == "Unsupported":
        return Unsupported(message)
    if kind == "WorkNotProven":
        return WorkNotProven(message)
    if kind == "Failed" and error["fault"] in ("stack", "hypervisor", "donor", "farm"):
        return Failed(error["fault"], message)  # type: ignore[arg-type]
    return OperationFailed(f"{where}: {kind}: {message}")


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one request; every error becomes data, since the caller is elsewhere."""
    try:
        result = find_operation(request["operation"])(**request["arguments"])
        json.dumps(result)  # here, so that a result that is no JSON is the operation's error
    except ScenarioError as error:
        fault = error.fault if isinstance(error, Failed) else ""
        kind = next(k.__name__ for k in (Failed, Unsupported, WorkNotProven, ScenarioError) if isinstance(error, k))
        return {"id": request["id"], "error": {"kind": kind, "fault": fault, "message": str(error)}}
    except Exception as error:  # noqa: BLE001  an agent answers whatever happens
        if isinstance(error, OSError) and error.errno in _HOSTS_OWN:
            return {"id": request["id"], "error": {"kind": "Failed", "fault": "donor", "message": str(error)}}
        return {
            "id": request["id"],
            "error": {"kind": type(error).__name__, "fault": "farm", "message": str(error)},
        }
    return {"id": request["id"], "result": result}


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    lock = threading.Lock()

    def handle(request: Mapping[str, Any]) -> None:
        line = json.dumps(_answer(request)).encode() + b"\n"
        with lock, contextlib.suppress(BrokenPipeError):
            replies.write(line)
            replies.flush()

    for line in requests:
        threading.Thread(target=handle, args=(json.loads(line),), daemon=True).start()


def main() -> None:
    """Serve standard input and output; whatever an operation prints goes to standard error instead."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, replies)
    from workers.basics import end_children  # only what a session used needs to be ended

    end_children()
    os._exit(0)  # threads of unfinished operations must not keep the agent


if __name__ == "__main__":
    main()
