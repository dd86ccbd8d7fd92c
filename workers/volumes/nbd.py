"""A host's base image, served to the cluster's other hosts by QEMU's own server: operations of the host's agent.

The server runs as the user that guests' VMMs run as, and carries the session's mark like its agent: a sweep ends it.
"""

import socket
import struct
import subprocess
import time
from pathlib import Path

from scenarios.contract import Failed, Unsupported
from workers import processes
from workers.operations import operation

_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 10.0
_PROGRAM = "qemu-nbd"
_READ_TIMEOUT_S = 10.0
_READS, _READ_BYTES = 5, 4096
_FIXED_NEWSTYLE, _EXPORT_NAME, _READ = 1, 1, 0
_REQUEST, _REPLY = 0x25609513, 0x67446698


@operation
def serve(path: str, address: str, uid: int, pid_file: str) -> dict[str, int]:
    """Serve the raw image at `path`; returns the server's `port` and `pid`, and the image's `bytes`.

    Raises Unsupported where the host has no such server.
    """
    port = _free_port(address)
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid >= 0 else ["setpriv"]
    where = [f"--bind={address}", f"--port={port}", f"--pid-file={pid_file}"]
    command = [
        *user,
        "--no-new-privs",
        _PROGRAM,
        "--fork",
        "--persistent",
        "--shared=0",
        "--read-only",
        "--format=raw",
        *where,
        path,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise Unsupported(f"the host has no {error.filename}") from None
    except subprocess.TimeoutExpired:
        raise Failed("donor", f"{_PROGRAM} is not ready within {_START_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise Failed("hypervisor", f"{_PROGRAM} does not start: {' '.join(done.stderr.split())[-300:]}")
    pid = int(Path(pid_file).read_text())
    Path(pid_file).unlink()
    return {"port": port, "pid": pid, "bytes": Path(path).stat().st_size}


@operation
def served_bytes(pid: int) -> int:
    """What the server has read of its image, from disk or page cache; raises Failed (donor) when it has ended."""
    if not _is_server(pid):
        raise Failed("donor", "the server of the base image has ended")
    return processes.asked_bytes(pid)


@operation
def cpu_s(pid: int) -> float:
    """CPU seconds of the server so far; raises Failed (donor) when it has ended."""
    if not _is_server(pid):
        raise Failed("donor", "the server of the base image has ended")
    return processes.cpu_s(pid)


@operation
def end(pid: int) -> None:
    """End the server; harmless when it has ended."""
    _, left = processes.end_all(lambda: [pid] if _is_server(pid) else [], timeout_s=_END_TIMEOUT_S)
    if left:
        raise Failed("donor", f"{_PROGRAM} does not end within {_END_TIMEOUT_S:g} s")


@operation
def read_s(address: str, port: int) -> float:
    """Seconds of the quickest of some reads of what is served there; raises Failed (donor) where it is not."""
    try:
        with socket.create_connection((address, port), timeout=_READ_TIMEOUT_S) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _open_export(server)
            return min(_timed_read(server) for _ in range(_READS))
    except OSError as error:
        raise Failed("donor", f"what {address}:{port} serves cannot be read: {error}") from None


def _open_export(server: socket.socket) -> None:
    """The NBD protocol's newstyle handshake, for the export without a name."""
    _received(server, 18)  # two magic words, the server's flags
    server.sendall(struct.pack(">I8sII", _FIXED_NEWSTYLE, b"IHAVEOPT", _EXPORT_NAME, 0))
    _received(server, 10 + 124)  # its size, flags and zeros


def _timed_read(server: socket.socket) -> float:
    started_s = time.monotonic()
    server.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _READ, 0, 0, _READ_BYTES))
    magic, error = struct.unpack(">II8x", _received(server, 16))
    if (magic, error) != (_REPLY, 0):
        raise OSError(f"it answers {magic:#x}, error {error}")
    _received(server, _READ_BYTES)
    return time.monotonic() - started_s


def _received(server: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while (missing := count - sum(map(len, parts))) > 0:
        parts.append(server.recv(missing))
        if not parts[-1]:
            raise OSError("it broke off")
    return b"".join(parts)


def _is_server(pid: int) -> bool:
    return processes.program_of(pid) == _PROGRAM


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
