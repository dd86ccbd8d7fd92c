"""Code of a hostile check-in: middleware that tries to get out, when it is imported and again for each request.

It stands alone (a test copies it into a check-in). `targets.json` beside it says what there is to reach. `successes`
returns the names of attempts that worked; the filter answers `GET /escape` with them as JSON and writes them to its log.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).with_name("targets.json")
_LIBC = ctypes.CDLL(None, use_errno=True)
# system calls of x86-64
_CLONE, _PTRACE, _MOUNT, _ADD_KEY, _UNSHARE = 56, 101, 165, 248, 272
_PTRACE_ATTACH = 16
_NAMESPACES = {"user": 0x10000000, "mount": 0x00020000, "network": 0x40000000, "process": 0x20000000}
_DEVICES_AND_KNOBS = (
    "/dev/mem", "/dev/kvm", "/dev/loop-control", "/dev/loop0", "/dev/vda", "/dev/sda", "/dev/kmsg", "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward",
)  # fmt: skip

Attempt = Callable[[], object]


def _reads(path: str) -> bool:
    return bool(os.listdir(path)) if os.path.isdir(path) else bool(Path(path).read_bytes())


def _writes(path: str) -> bool:
    with open(path, "a") as file:
        file.write("x")
    return True


def _connects(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(2)
        link.connect(address)
    return True


def _sees(word: str) -> bool:
    """A process whose command line or environment has the word, in any /proc there is."""
    for entry in os.listdir("/proc"):
        for name in ("cmdline", "environ"):
            try:
                if entry.isdigit() and word.encode() in Path(f"/proc/{entry}/{name}").read_bytes():
                    return True
            except OSError:
                continue
    return False


def _calls(*arguments: Any) -> bool:
    return bool(_LIBC.syscall(*arguments) != -1)


def _has_capabilities() -> bool:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return any(int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))


def _gains_by_program(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0


def _bombs(limit: int) -> bool:
    """Whether `limit` processes can be there at once."""
    children: list[int] = []
    try:
        while len(children) < limit:
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            children.append(child)
    except OSError:
        return False
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return True


def attempts(targets: dict[str, Any]) -> Iterator[tuple[str, Attempt]]:
    """Every way out that is tried, by name. One works if it neither raises nor returns False."""
    for path in targets["secrets"]:
        yield f"read {path}", partial(_reads, path)
        yield f"read /proc/1/root{path}", partial(_reads, f"/proc/1/root{path}")
        yield f"read ../{path}", partial(_reads, "/tmp" + "/.." * 8 + path)
    for path in targets["writable"]:
        yield f"write {path}", partial(_writes, path)
    yield f"signal {targets['pid']}", partial(os.kill, targets["pid"], signal.SIGUSR1)
    yield "see a process", partial(_sees, targets["word"])
    yield "look into a process", partial(_reads, f"/proc/{targets['pid']}/environ")
    yield "loopback", partial(_connects, socket.AF_INET, ("127.0.0.1", targets["port"]))
    yield "abstract socket", partial(_connects, socket.AF_UNIX, "\0" + targets["abstract"])
    yield "socket file", partial(_connects, socket.AF_UNIX, targets["socket"])
    for address in targets["addresses"]:
        yield f"reach {address}", partial(_connects, socket.AF_INET, (address, targets["port"]))
    yield "vsock", partial(socket.socket, socket.AF_VSOCK, socket.SOCK_STREAM)
    yield "raw packets", partial(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
    for change in (os.setuid, os.setgid, os.seteuid, os.setegid):
        yield f"{change.__name__} 0", partial(change, 0)
    yield "join groups", partial(os.setgroups, [0])
    yield "have capabilities", _has_capabilities
    for name, flag in _NAMESPACES.items():
        yield f"unshare {name}", partial(_calls, _UNSHARE, flag)
        yield f"clone {name}", partial(_clones, flag)
    yield "mount", partial(_calls, _MOUNT, b"x", b"/tmp", b"tmpfs", 0, None)
    yield "bind mount", partial(_calls, _MOUNT, b"/proc/1/root", b"/tmp", None, 4096, None)
    yield "chroot", partial(os.chroot, "/tmp")
    yield "device", partial(os.mknod, "/tmp/disk", 0o60600, os.makedev(7, 0))
    yield "ptrace", partial(_calls, _PTRACE, _PTRACE_ATTACH, os.getppid(), 0, 0)
    yield "keyring", partial(_calls, _ADD_KEY, b"user", b"farm", b"x", 1, -3)
    yield "su", partial(_gains_by_program, "su", "-c", "true")
    yield "mount program", partial(_gains_by_program, "mount", "-t", "tmpfs", "x", "/tmp")
    yield "unshare program", partial(_gains_by_program, "unshare", "--user", "--map-root-user", "true")
    for path in _DEVICES_AND_KNOBS:
        yield f"open {path}", partial(os.open, path, os.O_WRONLY)


def _clones(flag: int) -> bool:
    child = _LIBC.syscall(_CLONE, flag | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)
    return bool(child > 0)


def successes(targets: dict[str, Any], *, bomb: bool) -> list[str]:
    """What got out."""
    found = []
    for name, attempt in attempts(targets):
        try:
            if attempt() is not False:
                found.append(name)
        except Exception:  # noqa: BLE001  refused, in whatever way
            continue
    if bomb and _bombs(targets["processes"]):
        found.append("fork bomb")
    return found


def filter_factory(global_conf: dict[str, str], **settings: str) -> Callable[[Any], Any]:
    at_import = successes(json.loads(TARGETS.read_text()), bomb=False)
    sys.stderr.write(f"escaped at import: {json.dumps(at_import)}\n")

    def wrap(app: Any) -> Any:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["PATH_INFO"] != "/escape":
                return app(environ, start_response)
            targets = json.loads(TARGETS.read_text())
            tried = len(list(attempts(targets)))
            found = {"import": at_import, "request": successes(targets, bomb=True), "tried": tried}
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(found).encode()]

        return answer

    return wrap
