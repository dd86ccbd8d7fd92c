"""Walls for code under test: it sees what it was given and the cluster's test network, and nothing else.

A user of its own with no capability; mount, process, IPC and UTS namespaces of its own; the network namespace it is
told; a file system of the system's programs (read-only), the folders it was given (read-only), small memory file
systems for what it writes, and its disks. Everything in it dies with its first process, and with it go the disks' loop
mounts, which live in mount namespaces that only its processes hold, whoever is killed, however.

    nsenter (network) ▸ unshare (mounts) ▸ sh: mount the disks ▸ bwrap: the walls ▸ prlimit, setpriv ▸ the command
"""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.contract import Failed
from workers import seccomp
from workers.loops import loops_of
from workers.processes import LEASE_VARIABLE, all_pids, pid_namespace

START_TIMEOUT_S = 20.0
END_TIMEOUT_S = 15.0
MKFS_TIMEOUT_S = 60.0
# Numbers that no account, container or systemd gets on Debian
FIRST_UID, UIDS = 1_900_000_000, 1 << 20

_SYSTEM_FOLDERS = ("/usr/bin", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")
_SYSTEM_LINKS = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64", "/sbin": "usr/bin"}
# Libraries of the machine that would get in among the build's own, and make it differ from machine to machine
_HIDDEN_FOLDERS = ("/usr/lib/python3/dist-packages",)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ETC_FILES = {
    "/etc/hosts": "127.0.0.1 localhost store\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# What the first process is while the walls are put up
_BUILDERS = ("bwrap", "prlimit", "setpriv")
_MOUNT_DISKS = """
printf 900 >/proc/self/oom_score_adj
owner=$1; shift
while [ "$1" != -- ]; do
	mount -t xfs -o loop,noatime,nosuid,nodev,noexec "$1" "$2"; chown "$owner:$owner" "$2"; shift 2
done
shift
exec "$@"
"""


class _NotUp(Exception):
    """The walls did not stand, or what was to run behind them ended at once."""


@dataclass(frozen=True)
class Walls:
    """What is inside. Paths inside → what is there; a disk is an image file, which becomes an empty XFS."""

    network_namespace: Path | None  # None: one of its own, with no network in it
    folders: Mapping[str, Path]
    texts: Mapping[str, str]
    disks: Mapping[str, Path]
    writable: Sequence[str]  # folders in memory, besides /tmp
    environment: Mapping[str, str]
    processes: int  # threads count too
    memory_mib: int  # address space of each process
    scratch_mib: int = 64  # each writable folder
    shared: Mapping[str, Path] = field(default_factory=dict)  # folders that it shares with others, and may write
    uid: int | None = None  # the user it runs as, where that is to be one that others know
    groups: Sequence[int] = ()


@dataclass
class Sandbox:
    """A running one: its first process, and where its disks are mounted, both as the worker sees them."""

    pid: int
    mounts: Mapping[str, Path]
    _pidfd: int
    _launcher: subprocess.Popen[bytes]
    _pid_namespace: str
    _images: Sequence[Path]
    _reader: threading.Thread = field(repr=False)

    def processes(self) -> list[int]:
        """Process ids of everything inside, as the worker sees them."""
        return [pid for pid in all_pids() if pid_namespace(pid) == self._pid_namespace]

    def cpu_s(self) -> float:
        """CPU seconds that everything inside has used so far, ended children included."""
        return sum(_cpu_ticks(pid) for pid in self.processes()) / os.sysconf("SC_CLK_TCK")

    def read(self, inside: str, limit_bytes: int) -> bytes | None:
        """A file of the code under test, no link and no more than the limit; None when it is no such thing."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(f"/proc/{self.pid}/root{inside}", flags), "rb") as file:
                status = os.fstat(file.fileno())
                return file.read(limit_bytes) if stat.S_ISREG(status.st_mode) else None
        except OSError:
            return None

    def tell(self, line: str) -> None:
        """Write a line to the command's standard input. Raises Failed (stack) where it has ended."""
        assert self._launcher.stdin is not None
        try:
            self._launcher.stdin.write(f"{line}\n".encode())
            self._launcher.stdin.flush()
        except OSError:
            raise Failed("stack", "the stack under test has ended") from None

    def alive(self) -> bool:
        return self._launcher.poll() is None

    def end(self) -> None:
        """Kill all of it and wait until processes and disks' mounts are gone; raises Failed (farm) if they stay."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        deadline = time.monotonic() + END_TIMEOUT_S
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._launcher.wait(END_TIMEOUT_S)
        while left := [*map(str, self.processes()), *(loop for image in self._images for loop in loops_of(image))]:
            if time.monotonic() > deadline:
                raise Failed("farm", f"left over after the stack under test was killed: {', '.join(left)}")
            time.sleep(0.01)
        self._reader.join(END_TIMEOUT_S)
        os.close(self._pidfd)
        for stream in (self._launcher.stdin, self._launcher.stdout):
            if stream is not None:
                stream.close()


def start(
    walls: Walls, command: Sequence[str], *, lease: str, run_dir: Path, on_line: Callable[[bytes], None]
) -> Sandbox:
    """Put up the walls and run `command` inside as process 1.

    `on_line` gets each line of its output, at most 8 KiB, in a thread of its own. The command's standard input is a
    pipe that closes when the worker dies. `run_dir` is an empty folder of the worker. Raises Failed (farm).
    """
    uid = FIRST_UID + zlib.crc32(str(run_dir).encode()) % UIDS if walls.uid is None else walls.uid
    mounts = _prepare_disks(walls, run_dir)
    _write_texts(walls, run_dir, uid)
    with contextlib.ExitStack() as stack:
        filter_fd = _pipe_of(stack, seccomp.program())
        status_fd, status_write = os.pipe()
        stack.callback(os.close, status_fd)
        bwrap = _bwrap(walls, run_dir, uid, mounts, lease, filter_fd, status_write)
        try:
            launcher = subprocess.Popen(
                [*_outer(walls, uid, mounts), *bwrap, *_limits(walls, uid), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", LEASE_VARIABLE: lease},
                pass_fds=(filter_fd, status_write),
                start_new_session=True,
            )
        finally:
            os.close(status_write)
        said: list[bytes] = []
        reader = threading.Thread(
            target=_read_lines, args=(launcher, on_line, said), name="sandbox-output", daemon=True
        )
        reader.start()
        try:
            pid, pidfd, namespace = _first_process(status_fd)
        except _NotUp:
            launcher.kill()
            launcher.wait(END_TIMEOUT_S)
            reader.join(1.0)
            raise Failed("farm", f"the sandbox does not start: {_text_of(said)}") from None
    outside = Path(f"/proc/{launcher.pid}/root")
    seen = {inside: outside / mount.relative_to("/") for inside, mount in mounts.items()}
    return Sandbox(pid, seen, pidfd, launcher, namespace, list(walls.disks.values()), reader)


def _prepare_disks(walls: Walls, run_dir: Path) -> dict[str, Path]:
    """Empty file systems on the images; returns path inside → mount point outside (in the launcher's namespace)."""
    mounts: dict[str, Path] = {}
    for number, (inside, image) in enumerate(walls.disks.items(), 1):
        mounts[inside] = run_dir / "disks" / f"d{number}"
        mounts[inside].mkdir(parents=True)
        if held := loops_of(image):
            raise Failed("farm", f"the disk {image} is in use by {', '.join(held)}")
        _run("fallocate", "--punch-hole", "--offset", "0", "--length", str(image.stat().st_size), str(image))
        _run("/sbin/mkfs.xfs", "-q", "-f", "-K", "-i", "size=512", str(image))
    return mounts


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MKFS_TIMEOUT_S, check=False)
    if done.returncode:
        raise Failed("farm", f"{' '.join(command)}: {done.stderr.strip()[-300:]}")


def _write_texts(walls: Walls, run_dir: Path, uid: int) -> None:
    accounts = {
        "/etc/passwd": f"root:x:0:0::/:/usr/sbin/nologin\nstack:x:{uid}:{uid}::/tmp:/usr/sbin/nologin\n",
        "/etc/group": f"root:x:0:\nstack:x:{uid}:\n",
    }
    for inside, text in (_ETC_FILES | accounts | dict(walls.texts)).items():
        path = _text_path(run_dir, inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _text_path(run_dir: Path, inside: str) -> Path:
    return run_dir / "texts" / inside.lstrip("/")


def _outer(walls: Walls, uid: int, mounts: Mapping[str, Path]) -> list[str]:
    disks = [text for inside, image in walls.disks.items() for text in (str(image), str(mounts[inside]))]
    network = (
        ["unshare", "--net"] if walls.network_namespace is None else ["nsenter", f"--net={walls.network_namespace}"]
    )
    return [
        *network,
        "unshare", "--mount", "--propagation", "slave",
        "sh", "-euc", _MOUNT_DISKS, "sh", str(uid), *disks, "--",
    ]  # fmt: skip


def _bwrap(
    walls: Walls, run_dir: Path, uid: int, mounts: Mapping[str, Path], lease: str, filter_fd: int, status_fd: int
) -> list[str]:
    command = [
        "bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "store",
        "--as-pid-1", "--new-session", "--json-status-fd", str(status_fd), "--seccomp", str(filter_fd), "--clearenv",
        # what setpriv needs to become the unprivileged user, and then gives away
        "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP",
    ]  # fmt: skip
    for folder in _parents(walls, mounts):  # bwrap would make them for root alone
        command += ["--perms", "0755", "--dir", folder]
    for folder in _SYSTEM_FOLDERS:
        command += ["--ro-bind", folder, folder]
    for folder in _HIDDEN_FOLDERS:
        command += ["--tmpfs", folder]
    for link, target in _SYSTEM_LINKS.items():
        command += ["--symlink", target, link]
    command += ["--proc", "/proc", "--symlink", "/proc/self/fd", "/dev/fd"]
    for device in _DEVICES:
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for folder in ("/tmp", *walls.writable):
        command += ["--perms", "1777", "--size", str(walls.scratch_mib << 20), "--tmpfs", folder]
    for inside in (*_ETC_FILES, "/etc/passwd", "/etc/group", *walls.texts):
        command += ["--ro-bind", str(_text_path(run_dir, inside)), inside]
    # where the machine's libraries lie
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for inside, outside in walls.folders.items():
        command += ["--ro-bind", str(outside), inside]
    for inside, mount in mounts.items():
        command += ["--bind", str(mount), inside]
    for inside, outside in walls.shared.items():
        command += ["--bind", str(outside), inside]
    for name, value in {"PATH": "/usr/bin", "LANG": "C.UTF-8", **walls.environment, LEASE_VARIABLE: lease}.items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", "/tmp", "--remount-ro", "/", "--"]


def _parents(walls: Walls, mounts: Mapping[str, Path]) -> list[str]:
    """Every folder above something that is put inside, outermost first."""
    inside = [
        *_SYSTEM_FOLDERS,
        *walls.folders,
        *walls.shared,
        *walls.texts,
        *walls.writable,
        *mounts,
        "/etc/passwd",
        "/dev/null",
    ]
    return sorted({str(parent) for path in inside for parent in Path(path).parents if str(parent) != "/"})


def _limits(walls: Walls, uid: int) -> list[str]:
    groups = f"--groups={','.join(map(str, walls.groups))}" if walls.groups else "--clear-groups"
    return [
        "prlimit", f"--nproc={walls.processes}", f"--as={walls.memory_mib << 20}", "--core=0", "--nofile=4096",
        "setpriv", f"--reuid={uid}", f"--regid={uid}", groups, "--inh-caps=-all", "--ambient-caps=-all",
        "--bounding-set=-all", "--no-new-privs",
    ]  # fmt: skip


def _pipe_of(stack: contextlib.ExitStack, content: bytes) -> int:
    read, write = os.pipe()
    stack.callback(os.close, read)
    with open(write, "wb") as file:
        file.write(content)
    return read


def _read_lines(launcher: subprocess.Popen[bytes], on_line: Callable[[bytes], None], said: list[bytes]) -> None:
    assert launcher.stdout is not None
    while line := launcher.stdout.readline(8192):
        if len(said) < 20:  # of the walls themselves, should they not stand
            said.append(line)
        on_line(line)


def _first_process(status_fd: int) -> tuple[int, int, str]:
    """Process id (in our numbering), handle and PID namespace of the command, once it runs; raises _NotUp."""
    deadline = time.monotonic() + START_TIMEOUT_S
    report = b""
    while b"\n" not in report:  # bwrap writes it piece by piece
        ready, _, _ = select.select([status_fd], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(status_fd, 4096) if ready else b""
        if not piece:
            raise _NotUp
        report += piece
    pid = int(json.loads(report.splitlines()[0])["child-pid"])
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        raise _NotUp from None
    try:
        while Path(f"/proc/{pid}/comm").read_text().strip() in _BUILDERS:
            if time.monotonic() > deadline:
                raise _NotUp
            time.sleep(0.002)
        return pid, pidfd, os.readlink(f"/proc/{pid}/ns/pid")
    except (OSError, _NotUp):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        raise _NotUp from None


def _text_of(said: Sequence[bytes]) -> str:
    return b" ".join(said).decode("utf-8", "replace").strip()[-400:] or "it says nothing"


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))  # user and system time, its own and that of ended children
