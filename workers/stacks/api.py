"""HTTP requests to a deployment's services, from the observer's place on the test network."""

import http.client
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scenarios.contract import Failed
from workers.operations import operation

_LIMIT_BYTES = 8 << 20


@operation
def request(
    method: str,
    url: str,
    headers: dict[str, str],
    limit_s: float,
    body: str | None = None,
    file: str | None = None,
    ca_file: str | None = None,
) -> dict[str, Any]:
    """One request; `body` is text, `file` a path here. Returns status, headers, text and the seconds it took.

    `ca_file` holds the certificates that an https server is trusted by, where these are not the system's.
    Raises Failed (stack) when there is no answer.
    """
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, limit_s, ca_file)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    content = Path(file).read_bytes() if file is not None else None if body is None else body.encode()
    began_s = time.monotonic()
    try:
        connection.request(method, path or "/", body=content, headers=headers)
        answer = connection.getresponse()
        text = answer.read(_LIMIT_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Failed("stack", f"{method} {url}: no answer: {error!r}") from None
    finally:
        connection.close()
    return {
        "status": answer.status,
        "headers": dict(answer.getheaders()),
        "text": text,
        "began_s": began_s,
        "took_s": time.monotonic() - began_s,
    }


def _connection(
    scheme: str, host: str, port: int | None, limit_s: float, ca_file: str | None
) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=limit_s)
    try:
        trusted = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Failed("farm", f"no certificates can be read from {ca_file}: {error}") from None
    return http.client.HTTPSConnection(host, port, timeout=limit_s, context=trusted)
