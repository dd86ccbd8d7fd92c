"""A local host's first process: builds the host's root, starts its libvirtd, reaps what is orphaned.

Run by `workers.hosts.namespaces` as the first process of fresh mount, PID, network, UTS and IPC namespaces:
`python3 -m workers.hosts.init SPECIFICATION READY_FD`. The host sees a root of its own that holds nothing of
this machine but programs: no farm state, no keys, no disks but its own. All of it ends with this process.
"""

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

GUEST_UID = 64055  # QEMU's user and group, as Debian numbers them; libvirtd insists that the name exists
LIBVIRT_GID = 64056  # may talk to libvirtd; no guest's VMM is in it
WORK_DIR = Path("/srv/work")
SHARED_DIR = Path("/srv/shared")
CONSOLE_DIR = Path("/srv/console")
ROOM_DIR = Path("/srv/room")  # memory for guests that have theirs set aside
PEERS_DIR = Path("/srv/peers")  # the other hosts' libvirt sockets, for migration
CODE_DIR = Path("/opt/farm")
SOCKET_NAME = "libvirt-sock"

_LIBRARY_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # into /usr, since Debian 12 always
_DEVICES = ("null", "zero", "full", "random", "urandom", "net/tun")  # no kvm: these hosts emulate, and say so
_FAULT_DEVICE = Path("/dev/userfaultfd")
_DAEMON_PAUSE_S = 0.5


@dataclass(frozen=True)
class Specification:
    """Paths are of the machine that makes the host."""

    name: str
    hostname: str
    uuid: str
    address: str
    folder: str
    shared: str
    work_image: str
    room_mib: int
    newer_usr: str | None  # laid over /usr: QEMU and libvirt of another release
    code: tuple[str, ...]  # folders of the checkout that the host's agent imports
    peers: dict[str, str]  # every host of the cluster → its folder of sockets


def main(text: str, ready_fd: int) -> None:
    specification = Specification(**json.loads(text))
    os.umask(0o022)
    try:
        socket.sethostname(specification.hostname)
        root = Path(specification.folder) / "root"
        build_root(specification, root)
        enter(root)
    except (OSError, subprocess.CalledProcessError) as error:
        words = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        os.write(ready_fd, f"{' '.join(words.split())}\n".encode())
        sys.exit(1)
    with contextlib.suppress(BrokenPipeError):  # who asked for the host may be dead; the next one will find it
        os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    serve()


def build_root(host: Specification, root: Path) -> None:
    """Put together what the host will see, under `root`."""
    folder = Path(host.folder)
    _mount("-t", "tmpfs", "-o", "mode=0755,size=64m", "tmpfs", root)
    for name in ("tmp", "var/tmp", "dev/shm", "dev/pts", "proc", "sys", "usr", "etc", "root"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name in _LIBRARY_LINKS:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(Path("/", name)))
    if host.newer_usr:
        _mount("-t", "overlay", "-o", f"ro,lowerdir={host.newer_usr}:/usr", "overlay", root / "usr")
    else:
        _bind("/usr", root / "usr", read_only=True)
    _write_etc(host, root / "etc")
    _make_devices(root / "dev")
    _mount("-t", "proc", "proc", root / "proc")
    _mount("-t", "sysfs", "sysfs", root / "sys")
    _mount("-t", "tmpfs", "-o", "size=4k", "tmpfs", root / "sys/fs/cgroup")
    _empty(folder / "run")  # a host that starts has no running guests
    for name, target in (
        ("run", "run/libvirt"),
        ("etc", "etc/libvirt"),
        ("lib", "var/lib/libvirt"),
        ("cache", "var/cache/libvirt"),
        ("log", "var/log/libvirt"),
        ("console", CONSOLE_DIR),
    ):
        _bind(folder / name, _inside(root, target))
    for peer, sockets in host.peers.items():
        _bind(sockets, _inside(root, PEERS_DIR / peer))
    for code in host.code:
        _bind(code, _inside(root, CODE_DIR / Path(code).name), read_only=True)
    _bind(host.shared, _inside(root, SHARED_DIR))
    room = _inside(root, ROOM_DIR)
    room.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"mode=0755,size={host.room_mib}m", "tmpfs", room)
    work = _inside(root, WORK_DIR)
    work.mkdir(parents=True)
    _mount("-o", "loop", host.work_image, work)
    (work / "sessions").mkdir(exist_ok=True)


def enter(root: Path) -> None:
    """Make `root` the root, and let go of everything else that was mounted here."""
    old = root / "old"
    old.mkdir()
    os.chdir(root)
    _run("pivot_root", ".", "old")
    os.chdir("/")
    _run("umount", "--lazy", "/old")
    Path("/old").rmdir()
    _run("mount", "--make-shared", WORK_DIR)  # a libvirtd that a session deploys sees what is mounted below it later


def serve() -> None:
    """Keep libvirtd running, as a service manager does, and reap orphans (daemonised QEMU among them)."""
    daemon = _start_daemon()
    while True:
        pid, _ = os.waitpid(-1, 0)
        if pid == daemon:
            time.sleep(_DAEMON_PAUSE_S)
            daemon = _start_daemon()


def _start_daemon() -> int:
    with Path("/var/log/libvirt/libvirtd.out").open("ab") as log:
        return subprocess.Popen(
            ["/usr/sbin/libvirtd", "-p", "/run/libvirtd.pid"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ).pid


def _write_etc(host: Specification, etc: Path) -> None:
    for name in ("ld.so.cache", "nsswitch.conf"):
        shutil.copyfile(Path("/etc", name), etc / name)
    users = {"root": 0, "libvirt-qemu": GUEST_UID, "nobody": 65534}
    (etc / "passwd").write_text("".join(f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n" for name, uid in users.items()))
    groups = {**users, "libvirt": LIBVIRT_GID}
    (etc / "group").write_text("".join(f"{name}:x:{gid}:\n" for name, gid in groups.items()))
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.hostname}\n")
    (etc / "hostname").write_text(f"{host.hostname}\n")
    (etc / "resolv.conf").write_text("")
    libvirt = Path(host.folder) / "etc"
    (libvirt / "libvirtd.conf").write_text(libvirtd_conf(host))
    (libvirt / "qemu.conf").write_text(qemu_conf(host))


def libvirtd_conf(host: Specification) -> str:
    """No network listener: the other hosts come by the socket, so that no guest or server can."""
    return f"""\
listen_tls = 0
listen_tcp = 0
auth_unix_rw = "none"
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
unix_sock_ro_perms = "0700"
host_uuid = "{host.uuid}"
max_clients = 100
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def qemu_conf(host: Specification) -> str:
    """QEMU unprivileged, and without what systemd, udev or virtlogd would have to be there for.

    A libvirt that knows no `shared_filesystems` takes no heed of it, and calls moves over the shared folder unsafe.
    """
    return f"""\
user = "+{GUEST_UID}"
group = "+{GUEST_UID}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
migration_host = "{host.address}"
migration_address = "{host.address}"
memory_backing_dir = "{ROOM_DIR}"
shared_filesystems = ["{SHARED_DIR}"]
"""


def _make_devices(dev: Path) -> None:
    for name in _DEVICES:
        node = dev / name
        node.parent.mkdir(exist_ok=True)
        node.touch()
        _bind(Path("/dev", name), node)
    _make_fault_device(dev / _FAULT_DEVICE.name)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(target)
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", dev / "pts")
    (dev / "ptmx").symlink_to("pts/ptmx")
    _mount("-t", "tmpfs", "-o", "mode=1777,size=64m", "tmpfs", dev / "shm")


def _make_fault_device(node: Path) -> None:
    """Let guests' VMMs handle their own page faults: post-copy migration needs it, and they are no root."""
    if _FAULT_DEVICE.exists():
        os.mknod(node, stat.S_IFCHR | 0o600, _FAULT_DEVICE.stat().st_rdev)
        os.chown(node, GUEST_UID, GUEST_UID)


def _inside(root: Path, path: str | Path) -> Path:
    return root / str(path).lstrip("/")


def _bind(source: str | Path, target: Path, *, read_only: bool = False) -> None:
    if not target.exists():
        target.mkdir(parents=True)
    _mount("--bind", source, target)
    if read_only:
        _mount("-o", "remount,bind,ro", target)


def _mount(*arguments: str | Path) -> None:
    _run("mount", *arguments)


def _run(*argv: str | Path) -> None:
    subprocess.run([str(argument) for argument in argv], check=True, capture_output=True, text=True)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
