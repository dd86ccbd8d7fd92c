"""Sends one object, in a program of its own (`python3 -m workers.objectstores.sender`): JSON in, JSON out.

One process for each connection, forked from this one, which has loaded everything already. Payload goes from the page
cache to the socket by sendfile: memory stays the same for any size, and the client costs next to no CPU. Parts are
handed out through a pipe; whoever fails empties it, so that the others end with the part they are at.
"""

import functools
import http.client
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from scenarios.contract import Failed, Harm
from workers.objectstores.payload import extents
from workers.objectstores.styles import STYLES, Part, Style, token
from workers.objectstores.wire import Endpoint, Request, answer_of, ask, connected, expect, persist

VISIBLE_TIMEOUT_S = 30.0  # for a store whose listings say late what is there
_POLL_S = 0.02
_NUMBER_BYTES = 4
_MEMORY_FILES = ("/proc/self/smaps_rollup", "/proc/self/status")
_LONGEST_TEXT = 1500  # a report must go through the pipe in one piece


@dataclass(frozen=True)
class Job:
    """What is sent, and how. `content` says where the payload's bytes are: path, pool_bytes, size."""

    endpoint: Endpoint
    style: str
    name: str
    parts: tuple[Part, ...]
    content: Mapping[str, Any]
    parallel: int
    harm: Mapping[int, Harm]  # number of a part → how it is sent first
    abandoned: bool  # nothing makes the parts one object

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Job":
        parts = tuple(Part(**part) for part in data["parts"])
        harm = {int(number): kind for number, kind in data["harm"].items()}
        endpoint, named = Endpoint.of(data["endpoint"]), ("style", "name", "content", "parallel", "abandoned")
        return cls(endpoint=endpoint, parts=parts, harm=harm, **{name: data[name] for name in named})


def send(job: Job) -> dict[str, Any]:
    """Upload it; times are from the first byte sent. Raises Failed."""
    style = STYLES[job.style](job.endpoint, job.name, job.parts)
    with connected(job.endpoint, style.port) as connection:
        style.begin(connection)
    with _senders(job, style) as team:
        began_s, used_s = time.monotonic(), time.process_time()
        team.hand_out(len(style.parts))
        sent = team.reports(len(style.parts))
        if job.abandoned:
            return {}
        end = _finish(job, style)
        used_s = time.process_time() - used_s
    return {
        "total_s": end.confirmed_s - began_s,
        "segment_s": [sent[number]["s"] for number in range(len(style.parts))],
        "manifest_s": end.finished_s - end.asked_s,
        "readable_s": end.readable_s - end.finished_s,
        "retries": end.retries + sum(report["again"] for report in sent.values()),
        "client_cpu_s": used_s + team.cpu_s,
        "client_memory_mib": (_own_peak_kib() + team.memory_kib) / 1024,
        "paths": [part.path for part in style.parts],
    }


@dataclass(frozen=True)
class _End:
    """When the parts became one object."""

    asked_s: float
    finished_s: float
    confirmed_s: float
    readable_s: float
    retries: int


def _finish(job: Job, style: Style) -> _End:
    """Make the parts one object, and see that it is there. The connection from the beginning may be too old by now."""
    with connected(job.endpoint, style.port) as connection:
        asked_s = time.monotonic()
        _, retries = persist(connection, lambda: style.finish(connection))
        finished_s = time.monotonic()
        _confirm(connection, style, job)
        confirmed_s = time.monotonic()
        _read_first_byte(connection, style, job)
        return _End(asked_s, finished_s, confirmed_s, time.monotonic(), retries)


def put_part(connection: http.client.HTTPConnection, style: Style, number: int, job: Job, file: BinaryIO) -> None:
    """One part, once; raises Busy where it may be sent again."""
    part = style.parts[number]
    _send_body(connection, style.part(number), part.length, file, _extents(job, part, part.length))
    answer = expect(answer_of(connection), (200, 201), f"PUT of {part.path}")
    if answer.etag != part.md5:
        told = f"the store's digest {answer.etag[:64]!r} is not that of what was sent"
        raise Failed("stack", f"PUT of {part.path}: {told}")


def put_harmed(connection: http.client.HTTPConnection, style: Style, number: int, job: Job, file: BinaryIO) -> None:
    """One part as broken clients and networks send it. Raises Failed (stack) if the store takes it."""
    part = style.parts[number]
    if job.harm[number] == "digest":
        request, refusal = style.spoiled(number)
        _send_body(connection, request, part.length, file, _extents(job, part, part.length))
        expect(answer_of(connection), (refusal,), f"PUT of {part.path} under a wrong digest")
    else:
        _send_body(connection, style.part(number), part.length, file, _extents(job, part, part.length // 2))
        connection.close()
    found = ask(connection, Request("HEAD", f"{job.endpoint.account}/{part.path}", token(job.endpoint)))
    expect(found, (404,), f"HEAD of {part.path}, which was not sent rightly ({job.harm[number]})")


def _extents(job: Job, part: Part, length: int) -> Iterator[tuple[int, int]]:
    return extents(job.content["pool_bytes"], part.offset, length)


def _send_body(
    connection: http.client.HTTPConnection,
    request: Request,
    length: int,
    file: BinaryIO,
    stretches: Iterable[tuple[int, int]],
) -> None:
    connection.putrequest(request.method, request.target, skip_accept_encoding=True)
    for header, value in {**request.headers, "Content-Length": str(length)}.items():
        connection.putheader(header, value)
    connection.endheaders()
    with suppress(BrokenPipeError, ConnectionResetError):  # refused midway: the answer says why
        for at, count in stretches:
            connection.sock.sendfile(file, at, count)


class _Team:
    """The processes that send, each over a connection of its own."""

    def __init__(self, job: Job, style: Style) -> None:
        self.cpu_s, self.memory_kib = 0.0, 0
        self._queue_read, self._queue = os.pipe()
        reports, self._report = os.pipe()
        self._pids = [self._fork(job, style) for _ in range(min(job.parallel, len(style.parts)))]
        os.close(self._queue_read)
        os.close(self._report)
        self._reports = os.fdopen(reports, "rb")

    def wait_ready(self) -> None:
        """Until all are connected."""
        for _ in self._pids:
            self._take()

    def hand_out(self, parts: int) -> None:
        for number in range(parts):
            os.write(self._queue, number.to_bytes(_NUMBER_BYTES, "big"))
        self._close_queue()

    def reports(self, parts: int) -> dict[int, dict[str, Any]]:
        """One for each part. Raises what went wrong with the first that failed."""
        found: dict[int, dict[str, Any]] = {}
        while len(found) < parts:
            report = self._take()
            found[report["number"]] = report
        return found

    def end(self) -> None:
        """Take what each one says at its end, and wait for it."""
        self._close_queue()
        for line in self._reports:
            self.memory_kib += json.loads(line).get("memory_kib", 0)
        self._reports.close()
        for pid in self._pids:
            usage = os.wait4(pid, 0)[2]
            self.cpu_s += usage.ru_utime + usage.ru_stime

    def _take(self) -> dict[str, Any]:
        while True:
            line = self._reports.readline()
            if not line:
                raise Failed("farm", "a sending process ended without a word")
            report: dict[str, Any] = json.loads(line)
            if "error" in report:
                raise Failed(report["fault"], report["error"])
            if "memory_kib" not in report:
                return report
            self.memory_kib += report["memory_kib"]

    def _close_queue(self) -> None:
        if self._queue >= 0:
            os.close(self._queue)
            self._queue = -1

    def _fork(self, job: Job, style: Style) -> int:
        if pid := os.fork():
            return pid
        status = 1
        try:
            os.close(self._queue)
            _send_parts(job, style, self._queue_read, self._report)
            status = 0
        finally:
            os._exit(status)


@contextmanager
def _senders(job: Job, style: Style) -> Iterator[_Team]:
    team = _Team(job, style)
    try:
        team.wait_ready()
        yield team
    finally:
        team.end()


def _send_parts(job: Job, style: Style, queue: int, reports: int) -> None:
    """A sending process: parts from the queue until there are none."""

    def tell(**report: Any) -> None:
        os.write(reports, json.dumps(report).encode() + b"\n")

    try:
        with connected(job.endpoint, style.port) as connection, Path(job.content["path"]).open("rb") as file:
            tell(ready=True)
            while taken := os.read(queue, _NUMBER_BYTES):
                number = int.from_bytes(taken, "big")
                began_s = time.monotonic()
                if number in job.harm:
                    put_harmed(connection, style, number, job, file)
                put = functools.partial(put_part, connection, style, number, job, file)
                _, again = persist(connection, put)
                tell(number=number, s=time.monotonic() - began_s, again=again + (number in job.harm))
    except Failed as error:
        while os.read(queue, 1 << 12):
            pass
        tell(fault=error.fault, error=str(error)[:_LONGEST_TEXT])
    except Exception as error:  # noqa: BLE001  it must not end without a word
        tell(fault="farm", error=f"the sender broke: {error!r}"[:_LONGEST_TEXT])
    tell(memory_kib=_private_peak_kib())


def _confirm(connection: http.client.HTTPConnection, style: Style, job: Job) -> None:
    """The store says that the whole object is there; what is read through a listing may take a while."""
    size, etag = str(job.content["size"]), style.etag()
    give_up_s = time.monotonic() + (VISIBLE_TIMEOUT_S if job.style == "dlo" else 0.0)
    while True:
        answer = expect(ask(connection, style.ask("HEAD")), (200,), f"HEAD of {job.name}")
        length = answer.headers.get("content-length", "")
        if length == size and answer.etag == etag:
            return
        if time.monotonic() > give_up_s:
            told = f"{length[:20]} bytes, digest {answer.etag[:64]!r}; sent {size}, {etag}"
            raise Failed("stack", f"HEAD of {job.name}: {told}")
        time.sleep(_POLL_S)


def _read_first_byte(connection: http.client.HTTPConnection, style: Style, job: Job) -> None:
    request = style.ask("GET")
    connection.request("GET", request.target, headers={**request.headers, "Range": "bytes=0-0"})
    answer = expect(answer_of(connection), (206,), f"GET of the first byte of {job.name}")
    with Path(job.content["path"]).open("rb") as file:
        if answer.body != file.read(1):
            raise Failed("stack", f"the first byte of {job.name} is not what was sent")


def _own_peak_kib() -> int:
    """What this process had in memory at most. Not by getrusage, which counts what it was before this program too."""
    return _memory_kib()["VmHWM"]


def _private_peak_kib() -> int:
    """What this process took beside what it shares with the one it was forked from, at its highest."""
    kib = _memory_kib()
    return kib["Private_Clean"] + kib["Private_Dirty"] + kib["VmHWM"] - kib["VmRSS"]


def _memory_kib() -> dict[str, int]:
    """As the kernel names it."""
    lines = [line for file in _MEMORY_FILES for line in Path(file).read_text().splitlines() if line.endswith(" kB")]
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}


def main() -> None:
    try:
        report = send(Job.of(json.load(sys.stdin)))
    except Failed as error:
        report = {"fault": error.fault, "error": str(error)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
