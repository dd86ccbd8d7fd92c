"""A deployed Swift as a scenario sees it: uploads, read-back, and what really lies on the disks.

Placement is not asked of Swift but looked up on the disks, by the path that Swift's documentation gives an object's
name; and what lies there is compared with what was sent. Nothing found there is executed, unpickled or followed.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import random
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scenarios.contract import (
    Failed,
    Harm,
    PlacedBy,
    Placement,
    ScenarioError,
    Unsupported,
    UploadReport,
    UploadStyle,
    Usage,
)
from workers.agent import AgentLink, CallTimedOut
from workers.objectstores.payload import Content, Payload
from workers.objectstores.ring import read_ring, spread
from workers.objectstores.styles import Part
from workers.objectstores.wire import Endpoint, S3Access
from workers.stacks.swift import Deployment
from workers.stacks.swift_conf import ACCOUNT, HASH_PREFIX, HASH_SUFFIX

CALL_TIMEOUT_S = 240.0
_SLOWEST_BYTES_S = 8 << 20  # for which an upload gets more time
_PATIENCE_S = 10.0  # until the agent has ended what took too long
_FULL_BYTES = 96 << 20  # a disk with less left has refused, or will
# The store answers when most replicas are written; the last one may be a moment late
REPLICA_TIMEOUT_S = 5.0
_WINDOWS, _WINDOW_BYTES = 8, 64 << 10
_DATA_FILE = re.compile(r"[0-9]{10}\.[0-9]{5}(_[0-9a-f]{16})?\.data")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


@dataclass(frozen=True)
class _Upload:
    """An object that was uploaded: what it holds, and the stored objects that it is made of."""

    style: str
    content: Content
    parts: list[Part]


@dataclass
class Spent:
    """CPU seconds; None where nobody sees whose they are."""

    spent_s: float | None = None


@dataclass(frozen=True)
class Visitor:
    """Who uploads to a store that trusts an identity service: the account that is theirs there, and their token."""

    account: str
    token: str = field(repr=False)


class SwiftStore:
    """Implements scenarios.contract.ObjectStore on a deployment; uploads go through the observer's agent."""

    def __init__(
        self, deployment: Deployment, observer: AgentLink, payload: Payload, visitor: Visitor | None = None
    ) -> None:
        """Make the containers, having logged in where the store gives tokens itself. Raises Failed (stack)."""
        self._deployment = deployment
        self._observer = observer
        self.replicas = deployment.replicas
        self._account, token = (visitor.account, visitor.token) if visitor else (f"AUTH_{ACCOUNT}", self._log_in())
        s3 = S3Access(deployment.s3_port, deployment.user, deployment.password) if deployment.s3_port else None
        self.open(Endpoint(deployment.address, deployment.port, f"/v1/{self._account}", token, s3), observer, payload)

    def open(
        self, at: Endpoint, observer: AgentLink, payload: Payload, marks: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Make the containers at the endpoint, with headers that mark them."""
        self._at = at
        self._endpoint = dataclasses.asdict(at)
        self._observer = observer
        self._payload = payload
        self._uploads: dict[str, _Upload] = {}
        self._begun: collections.Counter[str] = collections.Counter()
        self._random = random.Random()
        self._observed("swift_client.make_containers", endpoint=self._endpoint, marks=dict(marks))
        self._limits: dict[str, int] = self._observed("swift_client.limits", endpoint=self._endpoint)

    def _log_in(self) -> str:
        at = self._deployment
        login: dict[str, Any] = {"address": at.address, "port": at.port, "user": at.user, "password": at.password}
        return str(self._observed("swift_client.log_in", **login))

    def upload_single(self, name: str, *, size_mib: int, style: UploadStyle = "slo") -> UploadReport:
        content = self._payload.content(size_mib)
        if content.size > self._limits["object_bytes"]:
            raise Unsupported(f"the store's /info: an object has at most {self._limits['object_bytes']} bytes")
        part = Part(f"{self._at.container}/{name}", 0, content.size, content.md5s(content.size)[0])
        return self._upload(name, content, [part], "s3-single" if style == "s3" else "single", parallel=1)

    def upload_segments(
        self,
        name: str,
        *,
        size_mib: int,
        segment_mib: int,
        parallel: int,
        style: UploadStyle = "slo",
        placed_by: PlacedBy = "hash",
        harm: Mapping[int, Harm] = MappingProxyType({}),
    ) -> UploadReport:
        content = self._payload.content(size_mib)
        parts = self._parts(name, content, segment_mib, style, placed_by)
        return self._upload(name, content, parts, style, parallel=parallel, harm=harm)

    def abandon_upload(self, name: str, *, size_mib: int, segment_mib: int) -> int:
        content = self._payload.content(size_mib)
        parts = self._parts(name, content, segment_mib, "slo", "hash")
        self._send(self._job(name, content, parts, "slo", parallel=1, harm={}, abandoned=True))
        return len(parts)

    def check_range(self, name: str, offset: int, length: int) -> float:
        read = self._observed("files.read_range", stored=self._stored(name), offset=offset, length=length)
        if read["sha256"] != self._uploads[name].content.sha256_of(offset, length):
            raise Failed("stack", f"bytes {offset} to {offset + length} of {name} are not what was sent")
        return float(read["s"])

    def copy(self, name: str, target: str) -> float:
        content = self._uploads[name].content
        spent_s = self._observed("files.copy", _limit_s(content.size), stored=self._stored(name), target=target)
        part = Part(f"{self._at.container}/{target}", 0, content.size, content.md5s(content.size)[0])
        self._uploads[target] = _Upload("single", content, [part])
        return float(spent_s)

    def share(self, name: str, target: str) -> None:
        self._observed("files.share", endpoint=self._endpoint, name=name, target=target)
        self._uploads[target] = self._uploads[name]

    def delete(self, name: str) -> float:
        content, parts = self._uploads[name].content, self._uploads[name].parts
        spent_s = self._observed("files.delete", stored=self._stored(name))
        deadline = time.monotonic() + REPLICA_TIMEOUT_S
        while left := [part.path for part in parts if self._disks_of(content, part)]:
            if time.monotonic() > deadline:
                raise Failed("stack", f"{name} was deleted with its segments; still on disks: {', '.join(left)}")
            time.sleep(0.1)
        return float(spent_s)

    def usage(self) -> Usage:
        self._deployment.settle()
        return Usage(**self._observed("files.usage", endpoint=self._endpoint))

    def orphans(self) -> Mapping[str, int]:
        found: dict[str, int] = self._observed("files.orphans", endpoint=self._endpoint)
        return found

    def read_back_digest(self, name: str) -> str:
        size = self._uploads[name].content.size
        limit_s = _limit_s(size)
        answer = self._observed("swift_client.read_back", limit_s, endpoint=self._endpoint, name=name, limit_bytes=size)
        if answer["length"] != size:
            raise Failed("stack", f"{name} reads back as {answer['length']} bytes, {size} were sent")
        return str(answer["sha256"])

    def payload_digest(self, size_mib: int) -> str:
        return self._payload.content(size_mib).sha256

    def placement_of(self, name: str) -> Placement:
        content, parts = self._uploads[name].content, self._uploads[name].parts
        deadline = time.monotonic() + REPLICA_TIMEOUT_S
        while True:
            pieces = {part.path: self._disks_of(content, part) for part in parts}
            if all(len(disks) >= self.replicas for disks in pieces.values()) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        load = dict.fromkeys(self._deployment.mounts, 0)
        for part in parts:
            for disk in pieces[part.path]:
                load[disk] += part.length
        return Placement(pieces, load)

    def remove(self, name: str) -> None:
        self._observed("swift_client.remove", endpoint=self._endpoint, name=name)

    def _parts(
        self, name: str, content: Content, segment_mib: int, style: UploadStyle, placed_by: PlacedBy
    ) -> list[Part]:
        """The segments, in a folder of their own for each upload of that name. Raises Unsupported."""
        step = segment_mib << 20
        md5s = content.md5s(step)
        if len(md5s) > self._limits["segments"]:
            limit = f"the store's /info: an object has at most {self._limits['segments']} segments"
            raise Unsupported(f"{limit}, and {content.size >> 20} MiB by {segment_mib} MiB are {len(md5s)}")
        self._begun[name] += 1
        offsets = range(0, content.size, step)
        lengths = [min(step, content.size - offset) for offset in offsets]
        paths = [f"{self._at.segments}/{name}/{self._begun[name]}/{number:04d}" for number in range(len(md5s))]
        if placed_by == "ring":
            if style == "s3":
                raise Unsupported("S3 names the parts itself: no names can be chosen by the ring")
            paths = self._spread(paths, lengths)
        return [Part(*fields) for fields in zip(paths, offsets, lengths, md5s, strict=True)]

    def _spread(self, paths: list[str], lengths: list[int]) -> list[str]:
        """The same paths with names that the ring puts on disks evenly."""
        ring = read_ring(self._deployment.object_ring(), self._deployment.settings.part_power)
        return spread(ring, paths, lengths, self._partition_of)

    def _upload(
        self,
        name: str,
        content: Content,
        parts: list[Part],
        style: str,
        *,
        parallel: int,
        harm: Mapping[int, Harm] = MappingProxyType({}),
    ) -> UploadReport:
        if style.startswith("s3") and self._endpoint["s3"] is None:
            raise Unsupported("the store that is deployed speaks no S3")
        job = self._job(name, content, parts, style, parallel=parallel, harm=harm, abandoned=False)
        with self._server_cpu() as cpu:
            told = self._send(job)
        stored = [dataclasses.replace(part, path=path) for part, path in zip(parts, told.pop("paths"), strict=True)]
        self._uploads[name] = _Upload(style, content, stored)
        return UploadReport(name, segment_s=tuple(told.pop("segment_s")), server_cpu_s=cpu.spent_s, **told)

    @contextmanager
    def _server_cpu(self) -> Iterator["Spent"]:
        """What the servers use within."""
        spent, before_s = Spent(), self.server_cpu_s()
        yield spent
        spent.spent_s = self.server_cpu_s() - before_s

    def server_cpu_s(self) -> float:
        return self._deployment.server_cpu_s()

    def _job(self, name: str, content: Content, parts: list[Part], style: str, **more: Any) -> dict[str, Any]:
        """As sender.Job.of takes it."""
        if not _NAME.fullmatch(name):
            raise Failed("farm", f"{name!r} is no name for an upload")
        source = {"path": str(content.path), "pool_bytes": content.pool_bytes, "size": content.size}
        plain = [dataclasses.asdict(part) for part in parts]
        return {"endpoint": self._endpoint, "style": style, "name": name, "parts": plain, "content": source, **more}

    def _stored(self, name: str) -> dict[str, Any]:
        """As the operations of files.py take it."""
        upload = self._uploads[name]
        parts = [dataclasses.asdict(part) for part in upload.parts]
        return {"endpoint": self._endpoint, "style": upload.style, "name": name, "parts": parts}

    def _send(self, job: dict[str, Any]) -> Any:
        size = job["content"]["size"]
        self._require_room(size)
        limit_s = _limit_s(size)
        job["harm"] = dict(job["harm"])
        try:
            return self._observed("swift_client.upload", limit_s + _PATIENCE_S, job=job, limit_s=limit_s)
        except ScenarioError as error:
            raise self._cleared(job["name"], error) from None

    def _cleared(self, name: str, error: ScenarioError) -> ScenarioError:
        """The error, with the disks that are full if any is; what had been stored must not be in the next one's way."""
        full: list[str] = []
        with contextlib.suppress(ScenarioError):
            free = self._free_bytes()
            full = [f"{disk} has {left >> 20} MiB left" for disk, left in free.items() if left < _FULL_BYTES]
            self.remove(name)
        return Failed("stack", f"{error}; {', '.join(full)}") if full else error

    def _require_room(self, size: int) -> None:
        free = sum(self._free_bytes().values())
        if size * self.replicas > free:
            need = f"{size >> 20} MiB on {self.replicas} disks each"
            raise Unsupported(f"the disks have {free >> 20} MiB free together, an upload of {need} does not fit")

    def _free_bytes(self) -> dict[str, int]:
        """Of each disk."""
        try:
            found = {disk: os.statvfs(mount) for disk, mount in self._deployment.mounts.items()}
        except OSError:  # they go with the last process of the deployment
            raise Failed("stack", "the object store has ended, and its disks with it") from None
        return {disk: status.f_bavail * status.f_frsize for disk, status in found.items()}

    def _observed(self, operation: str, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any) -> Any:
        try:
            return self._observer.call(f"objectstores.{operation}", timeout_s=timeout_s, **arguments)
        except CallTimedOut:  # the agent itself is local and ours: it waits for the store
            raise Failed("stack", f"the object store took more than {timeout_s:.0f} s for {operation}") from None

    def _partition_of(self, path: str) -> int:
        return int(object_place(f"/{self._account}/{path}", self._deployment.settings.part_power)[1])

    def _disks_of(self, content: Content, part: Part) -> list[str]:
        place = object_place(f"/{self._account}/{part.path}", self._deployment.settings.part_power)
        mounts = self._deployment.mounts
        return [disk for disk, mount in mounts.items() if self._is_held(disk, mount, place, content, part)]

    def _is_held(self, disk: str, mount: Path, place: Sequence[str], content: Content, part: Part) -> bool:
        with _data_file(mount, place) as file:
            if file is None:
                return False
            status = os.fstat(file)
            if status.st_size != part.length or status.st_blocks * 512 < part.length:
                raise Failed(
                    "stack",
                    f"{part.path} on {disk}: {status.st_size} bytes, {status.st_blocks * 512} of them stored; "
                    f"{part.length} were sent",
                )
            for _ in range(_WINDOWS):
                at = self._random.randrange(0, max(1, part.length - _WINDOW_BYTES))
                if os.pread(file, _WINDOW_BYTES, at) != _expected(content, part, at):
                    raise Failed("stack", f"{part.path} on {disk}: byte {at} and on are not what was sent")
        return True


def _expected(content: Content, part: Part, at: int) -> bytes:
    return content.read(part.offset + at, min(_WINDOW_BYTES, part.length - at))


def _limit_s(size: int) -> float:
    """The deadline for so many bytes one way."""
    return CALL_TIMEOUT_S + size / _SLOWEST_BYTES_S


def object_place(path: str, part_power: int) -> tuple[str, ...]:
    """Folders on a disk, outermost first, that hold the files of object `/account/container/object`."""
    name = hashlib.md5(f"{HASH_PREFIX}{path}{HASH_SUFFIX}".encode(), usedforsecurity=False).hexdigest()
    partition = int(name[:8], 16) >> (32 - part_power)
    return ("objects", str(partition), name[-3:], name)


@contextmanager
def _data_file(mount: Path, place: Sequence[str]) -> Iterator[int | None]:
    """The newest data file in that place, opened without following any link, or None."""
    opened: list[int] = []
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            opened.append(os.open(mount, flags | os.O_DIRECTORY))
            for folder in place:
                opened.append(os.open(folder, flags | os.O_DIRECTORY, dir_fd=opened[-1]))
            names = sorted(name for name in os.listdir(opened[-1]) if _DATA_FILE.fullmatch(name))
            opened.append(os.open(names[-1], flags, dir_fd=opened[-1]) if names else -1)
        except OSError:
            yield None
            return
        yield opened[-1] if opened[-1] >= 0 and stat.S_ISREG(os.fstat(opened[-1]).st_mode) else None
    finally:
        for descriptor in opened:
            if descriptor >= 0:
                os.close(descriptor)
