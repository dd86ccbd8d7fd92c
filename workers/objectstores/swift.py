"""A deployed Swift as a scenario sees it: uploads, read-back, and what really lies on the disks.

Placement is not asked of Swift but looked up on the disks, by the path that Swift's documentation gives an object's
name; and what lies there is compared with what was sent. Nothing found there is executed, unpickled or followed.
"""

import hashlib
import os
import random
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios.contract import Failed, UploadReport
from workers.agent import AgentLink, CallTimedOut
from workers.objectstores.payload import Payload
from workers.objectstores.swift_client import CONTAINER, SEGMENTS
from workers.stacks.swift import Deployment
from workers.stacks.swift_conf import ACCOUNT, HASH_PREFIX, HASH_SUFFIX

CALL_TIMEOUT_S = 240.0
# The store answers when most replicas are written; the last one may be a moment late
REPLICA_TIMEOUT_S = 5.0
_WINDOWS, _WINDOW_BYTES = 8, 64 << 10
_DATA_FILE = re.compile(r"[0-9]{10}\.[0-9]{5}(_[0-9a-f]{16})?\.data")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


@dataclass(frozen=True)
class _Stored:
    """One object as it must lie on disks: a part of the payload."""

    path: str  # container/object
    offset: int
    length: int


class SwiftStore:
    """Implements scenarios.contract.ObjectStore on a deployment; uploads go through the observer's agent."""

    def __init__(self, deployment: Deployment, observer: AgentLink, payload: Payload) -> None:
        """Log in and make the containers. Raises Failed (stack)."""
        self._deployment = deployment
        self._observer = observer
        self._payload = payload
        self._uploads: dict[str, list[_Stored]] = {}
        self._random = random.Random()
        self.payload_mib = payload.mib
        self.replicas = deployment.replicas
        self._endpoint = self._observed(
            "log_in",
            address=deployment.address,
            port=deployment.port,
            user=deployment.user,
            password=deployment.password,
            account=f"/v1/AUTH_{ACCOUNT}",
        )

    def upload_single(self, name: str) -> UploadReport:
        self._begin(name, [_Stored(f"{CONTAINER}/{name}", 0, self._payload.size)])
        return self._upload("upload_single", name, md5=self._payload.md5)

    def upload_segments(self, name: str, *, segment_mib: int, parallel: int) -> UploadReport:
        step = segment_mib << 20
        md5s = self._payload.segment_md5s(segment_mib)
        parts = [
            _Stored(f"{SEGMENTS}/{name}/{number:04d}", offset, min(step, self._payload.size - offset))
            for number, offset in enumerate(range(0, self._payload.size, step))
        ]
        self._begin(name, parts)
        return self._upload("upload_segments", name, segment_bytes=step, md5s=md5s, parallel=parallel)

    def read_back_digest(self, name: str) -> str:
        answer = self._observed("read_back", endpoint=self._endpoint, name=name, limit_bytes=self._payload.size)
        if answer["length"] != self._payload.size:
            raise Failed("stack", f"{name} reads back as {answer['length']} bytes, {self._payload.size} were sent")
        return str(answer["sha256"])

    def payload_digest(self) -> str:
        return self._payload.sha256

    def disks_of(self, name: str) -> Mapping[str, Sequence[str]]:
        """Disks by stored object. Raises Failed (stack) for a file that does not hold what was sent."""
        deadline = time.monotonic() + REPLICA_TIMEOUT_S
        while True:
            found = {stored.path: self._disks_of(stored) for stored in self._uploads.get(name, [])}
            if all(len(disks) >= self.replicas for disks in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def remove(self, name: str) -> None:
        self._observed("remove", endpoint=self._endpoint, name=name)
        self._uploads.pop(name, None)

    def _begin(self, name: str, parts: list[_Stored]) -> None:
        if not _NAME.fullmatch(name):
            raise Failed("farm", f"{name!r} is no name for an upload")
        self._uploads[name] = parts

    def _upload(self, operation: str, name: str, **arguments: Any) -> UploadReport:
        cpu_before_s = self._deployment.server_cpu_s()
        report = self._observed(
            operation,
            endpoint=self._endpoint,
            name=name,
            path=str(self._payload.path),
            size=self._payload.size,
            **arguments,
        )
        cpu_s = self._deployment.server_cpu_s() - cpu_before_s
        return UploadReport(name, float(report["total_s"]), tuple(report["segment_s"]), cpu_s)

    def _observed(self, operation: str, **arguments: Any) -> Any:
        try:
            return self._observer.call(f"objectstores.swift_client.{operation}", timeout_s=CALL_TIMEOUT_S, **arguments)
        except CallTimedOut:  # the agent itself is local and ours: it waits for the store
            raise Failed("stack", f"the object store took more than {CALL_TIMEOUT_S:.0f} s for {operation}") from None

    def _disks_of(self, stored: _Stored) -> list[str]:
        place = object_place(f"/AUTH_{ACCOUNT}/{stored.path}", self._deployment.settings.part_power)
        return [disk for disk, mount in self._deployment.mounts.items() if self._is_held(disk, mount, place, stored)]

    def _is_held(self, disk: str, mount: Path, place: Sequence[str], stored: _Stored) -> bool:
        with _data_file(mount, place) as file:
            if file is None:
                return False
            status = os.fstat(file)
            if status.st_size != stored.length or status.st_blocks * 512 < stored.length:
                raise Failed(
                    "stack",
                    f"{stored.path} on {disk}: {status.st_size} bytes, {status.st_blocks * 512} of them stored; "
                    f"{stored.length} were sent",
                )
            for _ in range(_WINDOWS):
                at = self._random.randrange(0, max(1, stored.length - _WINDOW_BYTES))
                if os.pread(file, _WINDOW_BYTES, at) != self._expected(stored, at):
                    raise Failed("stack", f"{stored.path} on {disk}: byte {at} and on are not what was sent")
        return True

    def _expected(self, stored: _Stored, at: int) -> bytes:
        return self._payload.read(stored.offset + at, min(_WINDOW_BYTES, stored.length - at))


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
