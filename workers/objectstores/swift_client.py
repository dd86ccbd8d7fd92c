"""The upload client for Swift: operations that the observer's agent runs, so that they go over the test network.

The server is code under test: it is held to deadlines, its answers to sizes and digests, and no redirect is followed.
Payload goes from the page cache to the socket by sendfile: memory stays constant, and the client costs next to no CPU.
"""

import hashlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios.contract import Failed
from workers.operations import operation

CONTAINER, SEGMENTS = "farm", "farm_segments"
SOCKET_TIMEOUT_S = 60.0
_BODY_LIMIT_BYTES = 64 << 10
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Endpoint:
    """Where an account is, and the token that opens it. Crosses to the observer as plain data."""

    address: str
    port: int
    account: str  # path, such as /v1/AUTH_farm
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Auth-Token": self.token}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "").strip('"')


@operation
def log_in(address: str, port: int, user: str, password: str, account: str) -> dict[str, Any]:
    """A token for the account, whose containers are then there; returns the fields of an Endpoint."""
    with _connected(address, port) as connection:
        answer = _ask(connection, "GET", "/auth/v1.0", {"X-Auth-User": user, "X-Auth-Key": password})
        token = answer.headers.get("x-auth-token", "")
        if answer.status != 200 or not token.isascii() or not token.isprintable():
            raise Failed("stack", f"no token from the object store: {answer.status}")
        for container in (CONTAINER, SEGMENTS):
            made = _ask(connection, "PUT", f"{account}/{container}", {"X-Auth-Token": token})
            _expect(made, (201, 202), f"making container {container}")
    return {"address": address, "port": port, "account": account, "token": token}


@operation
def upload_single(endpoint: dict[str, Any], name: str, path: str, size: int, md5: str) -> dict[str, Any]:
    """One PUT of `size` bytes of the file; the time is from the first byte to HEAD's confirmation."""
    at = Endpoint(**endpoint)
    with _connected(at.address, at.port) as connection, Path(path).open("rb") as file:
        started = time.monotonic()
        _put_part(connection, at, f"{CONTAINER}/{name}", file, 0, size, md5)
        _confirm(connection, at, name, size, md5)
        return {"total_s": time.monotonic() - started, "segment_s": []}


@operation
def upload_segments(
    endpoint: dict[str, Any], name: str, path: str, size: int, segment_bytes: int, md5s: list[str], parallel: int
) -> dict[str, Any]:
    """Segments over `parallel` connections, then the manifest that makes them one (static large) object."""
    at = Endpoint(**endpoint)
    offsets = range(0, size, segment_bytes)
    paths = [f"{SEGMENTS}/{name}/{number:04d}" for number in range(len(offsets))]
    sizes = [min(segment_bytes, size - offset) for offset in offsets]
    durations_s = [0.0] * len(offsets)
    next_one, failed = itertools.count(), threading.Event()

    def send() -> None:
        with _connected(at.address, at.port) as connection, Path(path).open("rb") as file:
            while not failed.is_set() and (number := next(next_one)) < len(offsets):
                began = time.monotonic()
                try:
                    _put_part(connection, at, paths[number], file, offsets[number], sizes[number], md5s[number])
                except BaseException:
                    failed.set()
                    raise
                durations_s[number] = time.monotonic() - began

    with _connected(at.address, at.port) as connection:
        started = time.monotonic()
        with ThreadPoolExecutor(parallel) as pool:
            for sender in [pool.submit(send) for _ in range(parallel)]:
                sender.result()
        _put_manifest(connection, at, name, list(zip(paths, md5s, sizes, strict=True)))
        whole = hashlib.md5("".join(md5s).encode(), usedforsecurity=False).hexdigest()
        _confirm(connection, at, name, size, whole)
        return {"total_s": time.monotonic() - started, "segment_s": durations_s}


@operation
def read_back(endpoint: dict[str, Any], name: str, limit_bytes: int) -> dict[str, Any]:
    """SHA-256 and length of the object as it is served; reads on at most one byte beyond the limit."""
    at = Endpoint(**endpoint)
    digest, length = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_READ_BYTES))
    with _connected(at.address, at.port) as connection:
        connection.request("GET", f"{at.account}/{CONTAINER}/{name}", headers=at.headers)
        response = connection.getresponse()
        if response.status != 200:
            raise Failed("stack", f"reading {name} back: {response.status} {response.reason[:80]}")
        while length <= limit_bytes and (count := response.readinto(buffer[: limit_bytes + 1 - length])):
            digest.update(buffer[:count])
            length += count
    return {"sha256": digest.hexdigest(), "length": length}


@operation
def remove(endpoint: dict[str, Any], name: str) -> None:
    """Delete the object, with its segments; harmless when it is not there."""
    at = Endpoint(**endpoint)
    path = f"{at.account}/{CONTAINER}/{name}"
    with _connected(at.address, at.port) as connection:
        found = _ask(connection, "HEAD", path, at.headers)
        if found.status == 404:
            return
        large = found.headers.get("x-static-large-object", "").lower() == "true"
        answer = _ask(connection, "DELETE", path + ("?multipart-manifest=delete" if large else ""), at.headers)
        _expect(answer, (200, 204, 404), f"deleting {name}")


@contextmanager
def _connected(address: str, port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection whose every error is the stack's: there is nothing else on this network that could fail."""
    connection = http.client.HTTPConnection(address, port, timeout=SOCKET_TIMEOUT_S)
    try:
        connection.connect()
        yield connection
    except TimeoutError:
        raise Failed("stack", f"the object store does not answer for {SOCKET_TIMEOUT_S:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise Failed("stack", f"talking to the object store: {type(error).__name__}: {str(error)[:200]}") from None
    finally:
        connection.close()


def _put_part(
    connection: http.client.HTTPConnection, at: Endpoint, path: str, file: Any, offset: int, length: int, md5: str
) -> None:
    connection.putrequest("PUT", f"{at.account}/{path}", skip_accept_encoding=True)
    for header, value in {**at.headers, "Content-Length": str(length), "ETag": md5}.items():
        connection.putheader(header, value)
    connection.endheaders()
    with suppress(BrokenPipeError, ConnectionResetError):  # refused midway: the answer says why
        connection.sock.sendfile(file, offset, length)
    answer = _answer(connection)
    _expect(answer, (201,), f"PUT of {path}")
    if answer.etag != md5:
        raise Failed("stack", f"PUT of {path}: the store's digest {answer.etag[:64]!r} is not that of what was sent")


def _put_manifest(
    connection: http.client.HTTPConnection, at: Endpoint, name: str, parts: Sequence[tuple[str, str, int]]
) -> None:
    manifest = json.dumps([{"path": f"/{path}", "etag": md5, "size_bytes": size} for path, md5, size in parts])
    path = f"{at.account}/{CONTAINER}/{name}?multipart-manifest=put"
    _expect(_ask(connection, "PUT", path, at.headers, manifest.encode()), (201,), f"PUT of the manifest of {name}")


def _confirm(connection: http.client.HTTPConnection, at: Endpoint, name: str, size: int, md5: str) -> None:
    answer = _ask(connection, "HEAD", f"{at.account}/{CONTAINER}/{name}", at.headers)
    _expect(answer, (200,), f"HEAD of {name}")
    length = answer.headers.get("content-length", "")
    if length != str(size) or answer.etag != md5:
        raise Failed("stack", f"HEAD of {name}: {length[:20]} bytes, digest {answer.etag[:64]!r}; sent {size}, {md5}")


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
) -> Answer:
    connection.request(method, path, body=body or None, headers={**headers, "Content-Length": str(len(body))})
    return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    body = response.read(_BODY_LIMIT_BYTES)
    if not response.isclosed():
        response.read(1)  # the end that lies behind exactly the limit
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def _expect(answer: Answer, statuses: Sequence[int], what: str) -> None:
    if answer.status not in statuses:
        raise Failed("stack", f"{what}: {answer.status} {answer.body[:160].decode('utf-8', 'replace')!r}")
