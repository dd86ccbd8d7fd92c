"""The client of Swift: operations that the observer's agent runs, so that they go over the test network."""

import hashlib
import json
import sys
from typing import Any
from urllib.parse import quote

from scenarios.contract import Failed
from workers import basics
from workers.objectstores.styles import token
from workers.objectstores.wire import Endpoint, Request, ask, connected, expect
from workers.operations import operation

_READ_BYTES = 1 << 20


@operation
def log_in(address: str, port: int, user: str, password: str) -> str:
    """A token, from the store itself."""
    with connected(Endpoint(address, port, "/auth/v1.0", ""), port) as connection:
        answer = ask(connection, Request("GET", "/auth/v1.0", {"X-Auth-User": user, "X-Auth-Key": password}))
        word = answer.headers.get("x-auth-token", "")
        if answer.status != 200 or not word.isascii() or not word.isprintable():
            raise Failed("stack", f"no token from the object store: {answer.status}")
    return word


@operation
def make_containers(endpoint: dict[str, Any], marks: dict[str, str]) -> None:
    """See that what uploads go to is there; `marks` are headers that say whose it is."""
    at = Endpoint.of(endpoint)
    with connected(at, at.port) as connection:
        for container in (at.container, at.segments):
            made = ask(connection, Request("PUT", f"{at.account}/{container}", {**token(at), **marks}))
            expect(made, (201, 202), f"making container {container}")


@operation
def limits(endpoint: dict[str, Any]) -> dict[str, int]:
    """What the store says that it takes: bytes of one object, segments of a large one."""
    at = Endpoint.of(endpoint)
    with connected(at, at.port) as connection:
        answer = expect(ask(connection, Request("GET", "/info")), (200,), "GET of /info")
    try:
        said = json.loads(answer.body)
        return {
            "object_bytes": int(said["swift"]["max_file_size"]),
            "segments": int(said["slo"]["max_manifest_segments"]),
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        raise Failed("stack", "the store's /info does not say how large an object may be") from None


@operation
def upload(job: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """Send one object by a program of its own; `job` as sender.Job.of takes it. Raises Failed."""
    argv = [sys.executable, "-m", "workers.objectstores.sender"]
    try:
        done = basics.run(argv, limit_s, json.dumps(job))
    except Failed:
        raise Failed("stack", f"the object store took more than {limit_s:.0f} s for an upload") from None
    if done["code"] != 0:
        raise Failed("farm", f"the sender ended with {done['code']}: {str(done['stderr'])[-400:]}")
    report: dict[str, Any] = json.loads(str(done["stdout"]))
    if "error" in report:
        raise Failed(report["fault"], report["error"])
    return report


@operation
def read_back(endpoint: dict[str, Any], name: str, limit_bytes: int) -> dict[str, Any]:
    """SHA-256 and length of the object as it is served; reads on at most one byte beyond the limit."""
    at = Endpoint.of(endpoint)
    digest, length = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_READ_BYTES))
    with connected(at, at.port) as connection:
        connection.request("GET", f"{at.account}/{at.container}/{name}", headers=token(at))
        response = connection.getresponse()
        if response.status != 200:
            raise Failed("stack", f"reading {name} back: {response.status} {response.reason[:80]}")
        while length <= limit_bytes and (count := response.readinto(buffer[: limit_bytes + 1 - length])):
            digest.update(buffer[:count])
            length += count
    return {"sha256": digest.hexdigest(), "length": length}


@operation
def remove(endpoint: dict[str, Any], name: str) -> None:
    """Delete the object with all segments of its name, whatever they belonged to; harmless when it is gone."""
    at = Endpoint.of(endpoint)
    path = f"{at.account}/{at.container}/{name}"
    with connected(at, at.port) as connection:
        found = ask(connection, Request("HEAD", path, token(at)))
        static = found.headers.get("x-static-large-object", "").lower() == "true"
        if found.status != 404:
            whole = Request("DELETE", path + ("?multipart-manifest=delete" if static else ""), token(at))
            expect(ask(connection, whole), (200, 204, 404), f"deleting {name}")
        for container in (at.segments, f"{at.container}+segments"):
            listing = Request("GET", f"{at.account}/{container}?prefix={name}/", token(at))
            for segment in ask(connection, listing).body.decode("utf-8", "replace").splitlines():
                gone = Request("DELETE", f"{at.account}/{container}/{quote(segment)}", token(at))
                expect(ask(connection, gone), (200, 204, 404), f"deleting a segment of {name}")
