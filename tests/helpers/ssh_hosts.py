"""Local hosts that are reached as lent machines are: each has a real sshd, and the worker stands in their network."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scenarios.crossing import PlannedCluster, PlannedHost, PlannedLent
from tests.helpers.labs import Lab, lab_on
from tests.helpers.local_clusters import FARM_HOME, planned_cluster, wait_for
from workers import processes
from workers.hosts.init import GUEST_UID, LIBVIRT_GID
from workers.hosts.namespaces import LocalCluster, LocalHost

_CLONE_NEWNET = 0x40000000
_SSHD = "/usr/sbin/sshd"
_PLACE = "/root/sshd"  # on a host: gone with it
PORT = 22
ACCOUNT_UID = 4711
LENT = PlannedLent(
    folder="/srv",
    bridge="br0",
    network="10.77.0.0/24",
    observer="10.77.0.251",
    storage="10.77.0.252",
    first_guest="10.77.0.100",
    last_guest="10.77.0.249",
    peers="qemu+unix:///system?socket=/srv/peers/%s/libvirt-sock",
    memory_mib=1024,
    disk_mib=2048,
    most_load=1.0,
)


def make_key(path: Path) -> str:
    """A key pair; returns the public half, kind and key alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@dataclass
class SshHosts:
    """Local hosts with a sshd each, and the cluster as an inventory file would tell of it."""

    home: Path  # of the worker
    underneath: LocalCluster
    hosts: Sequence[LocalHost]
    switch: int  # a process in their network, where the worker stands
    planned: PlannedCluster
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_sshd(self, host: LocalHost, port: int, user_key: str) -> str:
        """One more door to this host, for whoever has the key; returns the key that it shows."""
        place = Path(f"/proc/{host.pid}/root{_PLACE}", str(port))
        shown = make_key(place / "host_key")
        place.chmod(0o755)  # whoever logs in reads his own
        (place / "authorized_keys").write_text(f"{user_key}\n")
        inside = f"{_PLACE}/{port}"
        lines = [f"Port {port}", f"ListenAddress {host.address}", f"HostKey {inside}/host_key"]
        lines += [
            f"AuthorizedKeysFile {inside}/authorized_keys",
            "StrictModes no",
            "UsePAM no",
            f"PidFile {inside}/pid",
        ]
        (place / "config").write_text("\n".join([*lines, "PasswordAuthentication no", ""]))
        enter = ["nsenter", f"--target={host.pid}", "--mount", "--net", "--pid", "--uts", "--ipc"]
        with (self.home / f"sshd-{host.name}-{port}.log").open("wb") as log:
            command = [*enter, _SSHD, "-D", "-e", "-f", f"{inside}/config"]
            self.daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        assert wait_for((place / "pid").exists), f"no sshd on {host.name}"
        return shown


@contextlib.contextmanager
def ssh_hosts(
    home: Path, uri: str = "local:backports", hosts: int = 2, name: str = "lent", user: str = "root"
) -> Iterator[SshHosts]:
    """With the worker's key in `home`."""
    (home / "theirs").mkdir()
    (home / "theirs" / "cache").symlink_to(FARM_HOME / "cache")
    underneath = LocalCluster(home / "theirs", planned_cluster("underneath", uri, hosts))
    try:
        up = underneath.up()
        local = [host for host in up.hosts if isinstance(host, LocalHost)]
        switch = int(getattr(up.observer, "pid"))  # noqa: B009  the protocol has none
        made = SshHosts(home, underneath, local, switch, planned_cluster(name, uri, hosts))
        user_key = make_key(home / "secrets" / "ssh" / name)
        for host in local:
            _open_accounts(host, user)
        planned = [
            PlannedHost(host.name, f"ssh://{user}@{host.address}:{PORT}", zone.zone, host.address, key)
            for host, zone in zip(local, made.planned.hosts, strict=True)
            for key in [made.start_sshd(host, PORT, user_key)]
        ]
        made.planned = replace(made.planned, hosts=tuple(planned), lent=LENT)
        try:
            yield made
        finally:
            for daemon in made.daemons:
                daemon.terminate()
                daemon.wait(10)
    finally:  # whatever a failed test left on them
        for status in underneath.status():
            if status.pid is not None:
                os.kill(status.pid, signal.SIGKILL)
        assert wait_for(lambda: all(status.pid is None for status in underneath.status()))
        underneath.down()


@contextlib.contextmanager
def ssh_lab(home: Path, user: str = "root") -> Iterator[Lab]:
    """A session on them, in the empty folder `home`."""
    with ssh_hosts(home, user=user) as made, standing_in(made.switch), lab_on(made.planned, home) as lab:
        yield lab


@contextlib.contextmanager
def standing_in(pid: int) -> Iterator[None]:
    """This thread, and what it starts, in the network of the process: where a worker's machine would be."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _enter(Path(f"/proc/{pid}/ns/net"))
        yield
    finally:
        assert ctypes.CDLL(None).setns(before, _CLONE_NEWNET) == 0
        os.close(before)


def _enter(namespace: Path) -> None:
    with namespace.open("rb") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), _CLONE_NEWNET) == 0


def _open_accounts(host: LocalHost, user: str) -> None:
    """Somebody can log in; local hosts have nobody who could. One who is not root has what is lent, and QEMU runs as him."""
    root = Path(f"/proc/{host.pid}/root")
    accounts = (root / "etc" / "passwd").read_text().splitlines()
    others = [line for line in accounts if not line.startswith("root:")]
    lines = ["root:*:0:0::/root:/bin/sh", "sshd:*:100:65534::/run/sshd:/usr/sbin/nologin", *others]
    lines += [] if user == "root" else [f"{user}:*:{ACCOUNT_UID}:{ACCOUNT_UID}::/tmp:/bin/sh"]
    (root / "etc" / "passwd").write_text("\n".join(lines) + "\n")
    locked = "".join(f"{name}:*:19000::::::\n" for name in {"root", user})  # no password, and yet not locked
    (root / "etc" / "shadow").write_text(locked)
    (root / "run" / "sshd").mkdir(parents=True, exist_ok=True)
    (root / "var" / "run").symlink_to("../run")  # as on every Debian; libvirt's helper looks there
    if user != "root":
        _lend_to(root, user)


def _lend_to(root: Path, user: str) -> None:
    """As docs/how-to/lend-a-cluster.md says."""
    group = (root / "etc" / "group").read_text().replace(f"libvirt:x:{LIBVIRT_GID}:", f"libvirt:x:{LIBVIRT_GID}:{user}")
    (root / "etc" / "group").write_text(f"{group}{user}:x:{ACCOUNT_UID}:\n")
    for place in (
        "srv/work",
        "srv/work/sessions",
        "srv/shared",
        "srv/shared/sessions",
        "srv/console",
        "var/log/libvirt/qemu",
    ):
        (root / place).mkdir(parents=True, exist_ok=True)
        os.chown(root / place, ACCOUNT_UID, ACCOUNT_UID)
    settings = root / "etc" / "libvirt" / "qemu.conf"
    settings.write_text(settings.read_text().replace(f'"+{GUEST_UID}"', f'"+{ACCOUNT_UID}"'))
    daemon = next(pid for pid in processes.all_pids() if _is_daemon_of(pid, root))
    os.kill(daemon, signal.SIGTERM)  # the host starts it again
    assert wait_for(lambda: any(_is_daemon_of(pid, root) for pid in processes.all_pids() if pid != daemon))


def _is_daemon_of(pid: int, root: Path) -> bool:
    return processes.program_of(pid) == "libvirtd" and processes.pid_namespace(pid) == processes.pid_namespace(
        int(root.parts[2])
    )
