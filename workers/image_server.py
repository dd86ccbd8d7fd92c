"""Images on their way to a host: served by the observer's agent over the test network, fetched by the host's."""

import http.client
import http.server
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from scenarios.contract import Failed
from workers.operations import operation

_CHUNK_BYTES = 1 << 20
_STALL_S = 30.0

_servers: dict[int, http.server.ThreadingHTTPServer] = {}


@operation
def start(address: str, files: Sequence[str]) -> int:
    """Serve these files, and nothing else, as /0, /1 …; returns the port, by which `stop` names this server."""
    by_path = {f"/{number}": Path(file) for number, file in enumerate(files)}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = by_path.get(self.path)
            if file is None:
                self.send_error(404)
                return
            with file.open("rb") as content:
                self.send_response(200)
                self.send_header("Content-Length", str(os.fstat(content.fileno()).st_size))
                self.end_headers()
                shutil.copyfileobj(content, self.wfile, _CHUNK_BYTES)

        def log_message(self, *_: object) -> None:
            """The agent's standard error is for its last words."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    port = int(server.server_address[1])
    _servers[port] = server
    threading.Thread(target=server.serve_forever, daemon=True, name="image server").start()
    return port


@operation
def stop(port: int) -> None:
    """Serve no more; harmless when it has ended."""
    server = _servers.pop(port, None)
    if server is not None:
        server.shutdown()
        server.server_close()


@operation
def fetch(address: str, port: int, number: int, target: str) -> int:
    """Bring a served file to `target`, onto the disk; its bytes. Raises Failed (donor) when it does not come whole."""
    what = f"image from {address}:{port}"
    connection = http.client.HTTPConnection(address, port, timeout=_STALL_S)
    try:
        connection.request("GET", f"/{number}")
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed("farm", f"{what}: answered {answer.status}")
        with open(target, "xb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
            if file.tell() != int(answer.headers["Content-Length"]):
                raise Failed("donor", f"{what}: it broke off after {file.tell()} bytes")
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o444)
            return file.tell()
    except (OSError, http.client.HTTPException) as error:
        raise Failed("donor", f"{what}: {error}") from None
    finally:
        connection.close()
