"""A host's base image, served to the cluster's other hosts by QEMU's own server: operations of the host's agent.

The server runs as the user that guests' VMMs run as, and carries the session's mark like its agent: a sweep ends it.
"""

import socket
import subprocess
from pathlib import Path

from scenarios.contract import Failed, Unsupported
from workers import processes
from workers.operations import operation

_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 10.0
_PROGRAM = "qemu-nbd"


@operation
def serve(path: str, address: str, uid: int, pid_file: str) -> dict[str, int]:
    """Serve the raw image at `path`; returns the server's `port` and `pid`, and the image's `bytes`.

    Raises Unsupported where the host has no such server.
    """
    port = _free_port(address)
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    where = [f"--bind={address}", f"--port={port}", f"--pid-file={pid_file}"]
    command = [*user, _PROGRAM, "--fork", "--persistent", "--shared=0", "--read-only", "--format=raw", *where, path]
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


def _is_server(pid: int) -> bool:
    return processes.program_of(pid) == _PROGRAM


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
