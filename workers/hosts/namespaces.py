"""A cluster of hosts made of namespaces of this machine: real libvirtd and QEMU, lent hardware in small.

Every namespace, mount and loop device hangs on a process, and every such process carries the cluster's mark in
its environment from its first moment: nothing needs to be written down before it is made, and whatever is
killed when, `up` finds what is left and `down` ends it. The hosts' disks stay in the folder, as hardware's do.
"""

import contextlib
import json
import os
import re
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import libvirt

from scenarios.contract import Failed
from scenarios.crossing import PlannedCluster, PlannedHost, digest_of
from workers import processes
from workers.agent import AgentLink
from workers.deadline import within
from workers.hosts import init, links
from workers.hosts.base import Accelerator, ClusterHosts, Nearby, Storage
from workers.hosts.ground import (
    CHECKOUT,
    PYTHON,
    START_TIMEOUT_S,
    Ground,
    HeldObserver,
    HostStatus,
    agent_command,
    agent_environment,
)
from workers.marks import known_prefixes, live_sessions

_SPECIFICATION_VARIABLE = "FARM_SPECIFICATION"

_NETWORK = "10.77.0"  # in namespaces of our own, so that it can be the same for every cluster
_OBSERVER_ADDRESS, _STORAGE_ADDRESS = f"{_NETWORK}.254", f"{_NETWORK}.253"
_GUEST_ADDRESSES = tuple(f"{_NETWORK}.{number}" for number in range(100, 200))
_STORE_ADDRESSES = tuple(f"{_NETWORK}.{number}" for number in range(200, 250))
_MOST_HOSTS = 99
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_SWITCH, _STORAGE = _NODES = ("switch", "storage")  # beside the hosts
_WORK_MIB = 4096
_ROOM_MIB = 192  # one guest of the usual size, not two

_DAEMON_TIMEOUT_S = 30.0
_STATUS_TIMEOUT_S = 5.0
_POLL_S = 0.02


@dataclass(frozen=True)
class LocalHost:
    """A host of namespaces that runs; implements `workers.hosts.base.Host`."""

    name: str
    zone: str
    address: str
    pid: int  # of its first process, as seen from this machine
    nearby: Nearby
    bridge: str = "br0"
    wire: str = "eth0"
    room_mib: int = _ROOM_MIB
    emulator: str = "/usr/bin/qemu-system-x86_64"
    accelerator: Accelerator = "qemu"  # /dev/kvm of a machine may be there and yet boot no guest
    guest_uid: int = init.GUEST_UID
    work_dir: Path = init.WORK_DIR
    shared_dir: Path = init.SHARED_DIR
    console_dir: Path = init.CONSOLE_DIR
    budget: None = None

    @property
    def uri(self) -> str:
        # through /proc, since a socket's path may have 107 characters and no more
        return f"qemu+unix:///system?socket=/proc/{self.pid}/root/run/libvirt/{init.SOCKET_NAME}"

    @property
    def migration_uri(self) -> str:
        return f"qemu+unix:///system?socket={init.PEERS_DIR / self.name / init.SOCKET_NAME}"

    def uri_of(self, daemon: str) -> str:
        return f"qemu+unix:///system?socket=/proc/{self.pid}/root/run/libvirt/{daemon}/run/{init.SOCKET_NAME}"

    def migration_uri_of(self, daemon: str) -> str:
        return f"qemu+unix:///system?socket={init.PEERS_DIR / self.name / daemon / 'run' / init.SOCKET_NAME}"

    def agent(self, lease: str) -> AgentLink:
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--uts", "--ipc"]
        return AgentLink(self.name, [*enter, *agent_command()], agent_environment(lease, init.CODE_DIR))


class LocalCluster(Ground):
    """Brings a cluster of namespace hosts up and down. Its state is under `home/clusters/<name>/`."""

    def __init__(self, home: Path, planned: PlannedCluster) -> None:
        """Raises Failed (farm) for hosts that cannot be made of namespaces."""
        super().__init__(home, planned)
        if len(planned.hosts) > _MOST_HOSTS:
            raise Failed("farm", f"cluster {planned.name}: at most {_MOST_HOSTS} local hosts")
        for name in (planned.name, *(host.name for host in planned.hosts)):
            if not _NAME.fullmatch(name) or name in _NODES:
                raise Failed("farm", f"cluster {planned.name}: {name!r} cannot be the name of a local host or cluster")
        for host in planned.hosts:
            self._newer_usr(host)

    def up(self) -> ClusterHosts:
        """Make what is missing or dead of the cluster; quick when nothing is.

        Raises Failed: farm where this machine cannot make a host, donor where a host's libvirtd does not answer.
        """
        with self._locked():
            self._make_folders()
            try:
                switch, storage = self._lay_network()
            except Failed:  # a holder that was ending when it was found is gone now, and another is made
                switch, storage = self._lay_network()
            indexes = range(len(self._planned.hosts))
            with ThreadPoolExecutor(len(indexes)) as pool:
                hosts = list(pool.map(lambda index: self._ensure_host(index, switch), indexes))
        return ClusterHosts(
            name=self._planned.name,
            folder=self.folder,
            hosts=hosts,
            observer=HeldObserver(_OBSERVER_ADDRESS, switch),
            storage=Storage(Path(links.namespace_path(storage)), _STORAGE_ADDRESS, self._disks()),
            network=f"{_NETWORK}.0/24",
            guest_addresses=_GUEST_ADDRESSES,
            store_addresses=_STORE_ADDRESSES[: len(hosts)],
        )

    def _lay_network(self) -> tuple[int, int]:
        """The processes that hold the switch and the storage network, both laid."""
        switch = self._ensure_holder(_SWITCH)
        links.lay_bridge(switch, f"{_OBSERVER_ADDRESS}/24")
        return switch, self._join(_STORAGE, _STORAGE, _STORAGE_ADDRESS)

    def _join(self, node: str, port: str, address: str) -> int:
        holder = self._ensure_holder(node)
        links.lay_wire(self._ensure_holder(_SWITCH), port, holder, address=f"{address}/24")
        return holder

    def down(self) -> None:
        """End every process of the cluster, and with them its namespaces, mounts and loop devices.

        Raises Failed (donor), naming them, where guests, networks or pools that are not ours run in it;
        Failed (farm) where a session is still at work.
        """
        if not self.folder.is_dir():
            return
        with self._locked():
            if live := live_sessions(self.folder):
                raise Failed(
                    "farm", f"cluster {self._planned.name} is in use by session {', '.join(live)}: it stays up"
                )
            foreign = [f"{thing} on {host}" for host in self._host_names() for thing in self._foreign(host)]
            if foreign:
                raise Failed("donor", f"cluster {self._planned.name} stays up, not ours: {', '.join(foreign)}")
            self._end(self._processes)
            self._wait_for_loops(self.folder)

    def status(self) -> list[HostStatus]:
        """What is there of each host; changes nothing."""
        return [self._status(planned) for planned in self._planned.hosts]

    # -- what is there ------------------------------------------------------------------------------------------

    def _first_process(self, host: str) -> int | None:
        """The host's first process: number 1 in a PID namespace of its own."""
        return next((pid for pid in self._processes(host) if _is_first(pid)), None)

    def _host_names(self) -> list[str]:
        """Hosts of the plan and those that an earlier plan had."""
        made = self.folder / "hosts"
        return sorted(entry.name for entry in made.iterdir()) if made.is_dir() else []

    def _guests(self, host: str) -> list[str]:
        pid = self._first_process(host)
        namespace = processes.pid_namespace(pid) if pid is not None else None
        return sorted(processes.guests(namespace)) if namespace is not None else []

    def _foreign(self, host: str) -> list[str]:
        """What runs on the host without a mark of ours. Read from processes and libvirt's own state files,
        since its daemon may not answer."""
        if self._first_process(host) is None:
            return []
        ours = known_prefixes(self.folder)
        guests = [f"guest {name}" for name in self._guests(host) if not name.startswith(ours)]
        run = self.folder / "hosts" / host / "run"
        networks = [f"network {path.stem}" for path in sorted(run.glob("network/*.xml"))]
        pools = [f"pool {path.stem}" for path in sorted(run.glob("storage/*.xml"))]
        return guests + networks + pools

    def _status(self, planned: PlannedHost) -> HostStatus:
        pid = self._first_process(planned.name)
        answers = False
        if pid is not None:
            with contextlib.suppress(Failed, libvirt.libvirtError):
                _ask_daemon(self._local_host(planned, pid), timeout_s=_STATUS_TIMEOUT_S)
                answers = True
        return HostStatus(planned.name, pid, answers, tuple(self._guests(planned.name)))

    # -- making -------------------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        self._make_disks(self._disks())
        (self.folder / "shared" / "sessions").mkdir(parents=True, exist_ok=True)
        for host in self._planned.hosts:
            folder = self.folder / "hosts" / host.name
            for name in ("run", "etc", "lib", "cache", "log", "console", "root"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            os.chown(folder / "console", init.GUEST_UID, init.GUEST_UID)
            _make_xfs(folder / "work.img", _WORK_MIB)

    def _ensure_host(self, index: int, switch: int) -> LocalHost:
        planned = self._planned.hosts[index]
        specification = self._specification(index)
        pid = self._first_process(planned.name)
        if pid is not None and not _is_current(pid, specification):
            self._replace(planned.name)
            pid = None
        if pid is None:
            pid = self._start_host(planned.name, specification)
        links.lay_bridge(pid, f"{_address(index)}/24")
        links.lay_wire(switch, f"port{index + 1}", pid)
        host = self._local_host(planned, pid)
        _wait_for_daemon(host)
        return host

    def _replace(self, name: str) -> None:
        """Make room for a host that is to be made anew; not while it runs what is not ours."""
        if foreign := self._foreign(name):
            raise Failed(
                "donor", f"host {name} was made for another plan and runs {', '.join(foreign)}: it stays as it is"
            )
        self._end(lambda: self._processes(name))

    def _start_host(self, name: str, specification: init.Specification) -> int:
        self._end(lambda: self._processes(name))
        self._wait_for_loops(Path(specification.work_image))
        ready, ready_fd = os.pipe()
        namespaces = ["--mount", "--propagation=private", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        command = [PYTHON, "-m", "workers.hosts.init", json.dumps(asdict(specification)), str(ready_fd)]
        environment = {"PYTHONPATH": str(CHECKOUT), _SPECIFICATION_VARIABLE: digest_of(specification)}
        try:
            self._start(name, ["unshare", *namespaces, *command], environment, keep_fd=ready_fd)
        finally:
            os.close(ready_fd)
        with open(ready, encoding="utf-8") as pipe:
            answer = within(START_TIMEOUT_S, f"start of host {name}", pipe.readline, fault="farm").strip()
        pid = self._first_process(name)
        if answer != "ready" or pid is None:
            raise Failed("farm", f"host {name} of cluster {self._planned.name} cannot be made: {answer or 'it ended'}")
        return pid

    def _specification(self, index: int) -> init.Specification:
        host = self._planned.hosts[index]
        folder = self.folder / "hosts" / host.name
        return init.Specification(
            name=host.name,
            hostname=f"{host.name}.{self._planned.name}",
            uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, str(folder))),
            address=_address(index),
            folder=str(folder),
            shared=str(self.folder / "shared"),
            work_image=str(folder / "work.img"),
            room_mib=_ROOM_MIB,
            newer_usr=self._newer_usr(host),
            code=(str(CHECKOUT / "workers"), str(CHECKOUT / "scenarios")),
            peers={peer.name: str(self.folder / "hosts" / peer.name / "run") for peer in self._planned.hosts},
        )

    def _newer_usr(self, host: PlannedHost) -> str | None:
        """What is laid over /usr for a host with this URI; raises Failed (farm) for an unknown one."""
        if host.uri == "local:debian12":
            return None
        if host.uri == "local:backports":
            newer = self._home / "cache" / "software" / "backports" / "root" / "usr"
            if not newer.is_dir():
                raise Failed("farm", f"host {host.name}: no backports under {newer}: run setup.sh")
            return str(newer)
        raise Failed("farm", f"host {host.name}: uri '{host.uri}' is neither 'local:debian12' nor 'local:backports'")

    def _local_host(self, planned: PlannedHost, pid: int) -> LocalHost:
        index = self._planned.hosts.index(planned)
        nearby = Nearby(
            Path(links.namespace_path(pid)),
            pid,
            self.folder / "hosts" / planned.name / "run",
            init.LIBVIRT_GID,
            self.folder / "shared",
            f"qemu+unix:///system?socket={init.PEERS_DIR}/%s/{init.SOCKET_NAME}",
        )
        return LocalHost(planned.name, planned.zone, _address(index), pid, nearby)


def _address(index: int) -> str:
    return f"{_NETWORK}.{index + 1}"


def _is_first(pid: int) -> bool:
    """Whether the process is number 1 of a PID namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(numbers) > 1 and numbers[-1] == "1"


def _is_current(pid: int, specification: init.Specification) -> bool:
    """Whether the host was made as it would be now, from folders that still are the same ones."""
    if processes.environment(pid).get(_SPECIFICATION_VARIABLE) != digest_of(specification):
        return False
    inside = Path(f"/proc/{pid}/root{init.CODE_DIR}")
    try:
        return all((inside / Path(code).name).samefile(code) for code in specification.code)
    except OSError:
        return False


def _make_xfs(image: Path, size_mib: int) -> None:
    """A sparse image with an XFS that shares blocks; appears whole or not at all."""
    if image.exists():
        return
    part = image.with_suffix(".part")
    with part.open("wb") as file:
        file.truncate(size_mib << 20)
    command = ["mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Failed("farm", f"mkfs.xfs {image}: {done.stderr.strip()}")
    part.rename(image)


def _ask_daemon(host: LocalHost, *, timeout_s: float) -> None:
    """Ask libvirtd what its QEMU can do (seconds the very first time); raises libvirtError or Failed (donor)."""
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors come as exceptions; no second copy on stderr

    def ask() -> None:
        connection = libvirt.open(host.uri)
        try:
            connection.getCapabilities()
        finally:
            connection.close()

    within(timeout_s, f"libvirtd of host {host.name}", ask)


def _wait_for_daemon(host: LocalHost) -> None:
    deadline = time.monotonic() + _DAEMON_TIMEOUT_S
    while True:
        try:
            return _ask_daemon(host, timeout_s=max(0.1, deadline - time.monotonic()))
        except libvirt.libvirtError as error:
            if time.monotonic() > deadline:
                raise Failed("donor", f"libvirtd of host {host.name} does not answer: {error}") from None
            time.sleep(_POLL_S)
