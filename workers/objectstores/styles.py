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

_MD5_OF_NOTHING = hashlib.md5(usedforsecurity=False).hexdigest()


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
    def endpoint(self) -> Endpoint: ...

    @property
    def port(self) -> int: ...

    def begin(self, connection: http.client.HTTPConnection) -> None:
        """What has to be said before the first part; may change the parts' paths."""

    def part(self, number: int) -> Request:
        """The request that part `number` is sent with."""

    def finish(self, connection: http.client.HTTPConnection) -> None:
        """Make the parts one object."""

    def spoiled(self, number: int) -> tuple[Request, int]:
        """The same under the digest of something else, and the status that refuses it."""

    def ask(self, method: str) -> Request:
        """A request for the whole object."""

    def etag(self) -> str:
        """What the store has to call the whole object."""

    def copy(self, connection: http.client.HTTPConnection, target: str) -> None:
        """Have the store copy all bytes into one object of that name."""

    def delete(self, connection: http.client.HTTPConnection) -> None:
        """Delete it with all its parts, as its users do."""


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

    def spoiled(self, number: int) -> tuple[Request, int]:
        request = self.part(number)
        return replace(request, headers={**request.headers, "ETag": _MD5_OF_NOTHING}), 422

    def ask(self, method: str) -> Request:
        return Request(method, f"{self.endpoint.account}/{self.endpoint.container}/{self.name}", token(self.endpoint))

    def etag(self) -> str:
        return self.parts[0].md5

    def copy(self, connection: http.client.HTTPConnection, target: str) -> None:
        asked = self.ask("COPY")
        asked = replace(asked, headers={**asked.headers, "Destination": f"{self.endpoint.container}/{target}"})
        expect(ask(connection, asked), (201,), f"copying {self.name}")

    def delete(self, connection: http.client.HTTPConnection) -> None:
        expect(ask(connection, self.ask("DELETE")), (204,), f"deleting {self.name}")


class StaticLarge(Single):
    """Segments, then a manifest that lists them: what is read does not depend on listings (SLO)."""

    def finish(self, connection: http.client.HTTPConnection) -> None:
        manifest = [{"path": f"/{part.path}", "etag": part.md5, "size_bytes": part.length} for part in self.parts]
        put = replace(self.ask("PUT"), body=json.dumps(manifest).encode())
        put = replace(put, target=f"{put.target}?multipart-manifest=put")
        expect(ask(connection, put), (201,), f"PUT of the manifest of {self.name}")

    def delete(self, connection: http.client.HTTPConnection) -> None:
        asked = self.ask("DELETE")
        answer = ask(connection, replace(asked, target=f"{asked.target}?multipart-manifest=delete"))
        expect(answer, (200,), f"deleting {self.name} with its segments")
        if b"Response Status: 200" not in answer.body:  # the answer's own status was sent before the work
            raise Failed("stack", f"deleting {self.name} with its segments: {answer.body[:200]!r}")

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

    def delete(self, connection: http.client.HTTPConnection) -> None:
        Single.delete(self, connection)
        for part in self.parts:
            asked = Request("DELETE", f"{self.endpoint.account}/{part.path}", token(self.endpoint))
            expect(ask(connection, asked), (204,), f"deleting {part.path}")


@dataclass
class S3Single(Single):
    """One PUT over S3."""

    @property
    def port(self) -> int:
        return s3.access_of(self.endpoint).port

    def part(self, number: int) -> Request:
        return s3.signed(self.endpoint, "PUT", self.path, headers=s3.content_md5(self.parts[number].md5))

    def spoiled(self, number: int) -> tuple[Request, int]:
        request = self.part(number)
        return replace(request, headers={**request.headers, **s3.content_md5(_MD5_OF_NOTHING)}), 400

    def ask(self, method: str) -> Request:
        return s3.signed(self.endpoint, method, self.path)

    def copy(self, connection: http.client.HTTPConnection, target: str) -> None:
        asked = s3.signed(
            self.endpoint, "PUT", f"/{self.endpoint.container}/{target}", headers={"x-amz-copy-source": self.path}
        )
        expect(ask(connection, asked), (200,), f"copying {self.name}")

    @property
    def path(self) -> str:
        return f"/{self.endpoint.container}/{self.name}"


@dataclass
class S3Multipart(S3Single):
    """A multipart upload over S3."""

    upload: dict[str, str] = field(default_factory=dict)

    def begin(self, connection: http.client.HTTPConnection) -> None:
        begun = s3.signed(self.endpoint, "POST", self.path, {"uploads": ""})
        self.upload = {"uploadId": s3.upload_id(ask(connection, begun))}
        folder = f"{self.endpoint.container}+segments/{self.name}/{self.upload['uploadId']}"
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
