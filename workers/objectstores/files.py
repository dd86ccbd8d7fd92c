"""A large object treated as one file, and what the store bills for it: operations that the observer's agent runs."""

import hashlib
import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from scenarios.contract import Failed
from workers.objectstores.styles import STYLES, Part, Style, token
from workers.objectstores.wire import Answer, Endpoint, Request, ask, connected, expect
from workers.operations import operation


@operation
def read_range(stored: dict[str, Any], offset: int, length: int) -> dict[str, Any]:
    """These bytes of the object: their SHA-256, and the seconds it took to have them."""
    style = _style(stored)
    request = style.ask("GET")
    request = replace(request, headers={**request.headers, "Range": f"bytes={offset}-{offset + length - 1}"})
    with connected(style.endpoint, style.port) as connection:
        began_s = time.monotonic()
        answer = ask(connection, request)
        spent_s = time.monotonic() - began_s
    expect(answer, (206,), f"reading bytes {offset} and on of {stored['name']}")
    return {"sha256": hashlib.sha256(answer.body).hexdigest(), "s": spent_s}


@operation
def copy(stored: dict[str, Any], target: str) -> float:
    """Copy all its bytes within the store; the seconds it took."""
    style = _style(stored)
    with connected(style.endpoint, style.port) as connection:
        began_s = time.monotonic()
        style.copy(connection, target)
        return time.monotonic() - began_s


@operation
def share(endpoint: dict[str, Any], name: str, target: str) -> None:
    """A second manifest of the same segments."""
    at = Endpoint.of(endpoint)
    headers = {**token(at), "Destination": f"{at.container}/{target}"}
    asked = Request("COPY", f"{_path(at, name)}?multipart-manifest=get", headers)
    with connected(at, at.port) as connection:
        expect(ask(connection, asked), (201,), f"copying the manifest of {name}")


@operation
def delete(stored: dict[str, Any]) -> float:
    """Delete the object with its segments; the seconds it took."""
    style = _style(stored)
    with connected(style.endpoint, style.port) as connection:
        began_s = time.monotonic()
        style.delete(connection)
        spent_s = time.monotonic() - began_s
        expect(ask(connection, style.ask("HEAD")), (404,), f"HEAD of {stored['name']}, now deleted")
    return spent_s


@operation
def usage(endpoint: dict[str, Any]) -> dict[str, int]:
    """Bytes of the account as billed; of all listings summed; and summed without manifests, which hold none."""
    at = Endpoint.of(endpoint)
    listed = filtered = 0
    for container in (at.container, at.segments):
        for entry in _listing(at, container):
            listed += int(entry["bytes"])
            filtered += 0 if "slo_etag" in entry else int(entry["bytes"])
    with connected(at, at.port) as connection:
        answer = expect(ask(connection, Request("HEAD", at.account, token(at))), (200, 204), "HEAD of the account")
    billed = answer.headers.get("x-account-bytes-used", "")
    if not billed.isdecimal():
        raise Failed("stack", f"the account's bytes are {billed[:40]!r}")
    return {"billed_bytes": int(billed), "listed_bytes": listed, "filtered_bytes": filtered}


@operation
def orphans(endpoint: dict[str, Any]) -> dict[str, int]:
    """Segments that no manifest names: their path and bytes."""
    at = Endpoint.of(endpoint)
    left = {f"{at.segments}/{entry['name']}": int(entry["bytes"]) for entry in _listing(at, at.segments)}
    with connected(at, at.port) as connection:
        for entry in _listing(at, at.container):
            if "slo_etag" in entry:
                path = _path(at, quote(str(entry["name"])))
                answer = ask(connection, Request("GET", f"{path}?multipart-manifest=get", token(at)))
                for segment in _entries(expect(answer, (200,), f"the manifest of {entry['name']}")):
                    left.pop(str(segment["name"]).lstrip("/"), None)
    return left


def _style(stored: dict[str, Any]) -> Style:
    """Of an object that is there; `stored` names its endpoint, style, name and parts."""
    parts = [Part(**part) for part in stored["parts"]]
    return STYLES[stored["style"]](Endpoint.of(stored["endpoint"]), stored["name"], parts)


def _path(at: Endpoint, name: str) -> str:
    return f"{at.account}/{at.container}/{name}"


def _listing(at: Endpoint, container: str) -> list[dict[str, Any]]:
    with connected(at, at.port) as connection:
        answer = ask(connection, Request("GET", f"{at.account}/{container}?format=json", token(at)))
    return _entries(expect(answer, (200,), f"listing {container}"))


def _entries(answer: Answer) -> list[dict[str, Any]]:
    """Of a listing or a manifest: something with a name and bytes each."""
    try:
        found = [dict(entry) for entry in json.loads(answer.body)]
        if all(isinstance(entry["name"], str) and isinstance(entry["bytes"], int) for entry in found):
            return found
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Failed("stack", f"not a listing: {answer.body[:160]!r}")
