"""How an object is put together: in one piece, or of segments that a manifest or a listing makes one."""

import hashlib
import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import quote

from scenarios.contract import Failed
from workers.objectstores import s3
from workers.objectstores.wire import Endpoint, Request, ask, expect

CONTAINER, SEGMENTS = "farm", "farm_segments"


@dataclass(frozen=True)
class Part:
    """One stored object: these bytes of the content at `path` (container/object)."""

    path: str
    offset: int
    length: int
    md5: str


class Style(Protocol):
    """One object called `name` on its way into the store."""

    parts: Sequence[Part]

    @property
    def port(self) -> int: ...

    def begin(self, connection: http.client.HTTPConnection) -> None:
        """What has to be said before the first part; may change the parts' paths."""

    def part(self, number: int) -> Request:
        """The request that part `number` is sent with."""

    def finish(self, connection: http.client.HTTPConnection) -> None:
        """Make the parts one object."""

    def ask(self, method: str) -> Request:
        """A request for the whole object."""

    def etag(self) -> str:
        """What the store has to call the whole object."""


@dataclass
class Single:
    """One PUT."""

    endpoint: Endpoint
    name: str
    parts: Sequence[Part]

    @property
    def port(self) -> int:
        return self.endpoint.port

    def begin(self, connection: http.client.HTTPConnection) -> None:
        pass

    def part(self, number: int) -> Request:
        part = self.parts[number]
        headers = {**token(self.endpoint), "ETag": part.md5}
        return Request("PUT", f"{self.endpoint.account}/{part.path}", headers)

    def finish(self, connection: http.client.HTTPConnection) -> None:
        pass

    def ask(self, method: str) -> Request:
        return Request(method, f"{self.endpoint.account}/{CONTAINER}/{self.name}", token(self.endpoint))

    def etag(self) -> str:
        return self.parts[0].md5


class StaticLarge(Single):
    """Segments, then a manifest that lists them: what is read does not depend on listings (SLO)."""

    def finish(self, connection: http.client.HTTPConnection) -> None:
        manifest = [{"path": f"/{part.path}", "etag": part.md5, "size_bytes": part.length} for part in self.parts]
        put = replace(self.ask("PUT"), body=json.dumps(manifest).encode())
        put = replace(put, target=f"{put.target}?multipart-manifest=put")
        expect(ask(connection, put), (201,), f"PUT of the manifest of {self.name}")

    def etag(self) -> str:
        joined = "".join(part.md5 for part in self.parts)
        return hashlib.md5(joined.encode(), usedforsecurity=False).hexdigest()


class DynamicLarge(StaticLarge):
    """Segments, and an empty object that names their prefix: whatever the listing has is read (DLO)."""

    def finish(self, connection: http.client.HTTPConnection) -> None:
        put = self.ask("PUT")
        folder = self.parts[0].path.rpartition("/")[0]
        headers = {**put.headers, "X-Object-Manifest": quote(f"{folder}/")}
        expect(ask(connection, replace(put, headers=headers)), (201,), f"PUT of the manifest of {self.name}")


@dataclass
class S3Single(Single):
    """One PUT over S3."""

    @property
    def port(self) -> int:
        return s3.access_of(self.endpoint).port

    def part(self, number: int) -> Request:
        return s3.signed(self.endpoint, "PUT", self.path, headers=s3.content_md5(self.parts[number].md5))

    def ask(self, method: str) -> Request:
        return s3.signed(self.endpoint, method, self.path)

    @property
    def path(self) -> str:
        return f"/{CONTAINER}/{self.name}"


@dataclass
class S3Multipart(S3Single):
    """A multipart upload over S3."""

    upload: dict[str, str] = field(default_factory=dict)

    def begin(self, connection: http.client.HTTPConnection) -> None:
        begun = s3.signed(self.endpoint, "POST", self.path, {"uploads": ""})
        self.upload = {"uploadId": s3.upload_id(ask(connection, begun))}
        folder = f"{CONTAINER}+segments/{self.name}/{self.upload['uploadId']}"
        self.parts = [replace(part, path=f"{folder}/{number}") for number, part in enumerate(self.parts, 1)]

    def part(self, number: int) -> Request:
        query = {**self.upload, "partNumber": str(number + 1)}
        return s3.signed(self.endpoint, "PUT", self.path, query, headers=s3.content_md5(self.parts[number].md5))

    def finish(self, connection: http.client.HTTPConnection) -> None:
        body = s3.completion([part.md5 for part in self.parts])
        done = ask(connection, s3.signed(self.endpoint, "POST", self.path, self.upload, body=body))
        expect(done, (200,), f"completing the upload of {self.name}")
        if b"<CompleteMultipartUploadResult" not in done.body:  # S3 may still say no after it has said 200
            raise Failed("stack", f"completing the upload of {self.name}: {done.body[:160]!r}")

    def etag(self) -> str:
        return s3.whole_etag([part.md5 for part in self.parts])


STYLES: dict[str, Callable[[Endpoint, str, Sequence[Part]], Style]] = {
    "single": Single,
    "slo": StaticLarge,
    "dlo": DynamicLarge,
    "s3": S3Multipart,
    "s3-single": S3Single,
}


def token(endpoint: Endpoint) -> dict[str, str]:
    return {"X-Auth-Token": endpoint.token}
