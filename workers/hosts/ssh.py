"""Machines that donors lend, each reached by OpenSSH.

Nothing is installed on them: an agent's code goes over its connection and stays in memory, libvirt is reached through
the same client with the same settings. Whoever does not show the key that the inventory file has is not spoken to, and
no password is ever asked for. What a session makes lies in folders that the donor has named, under its mark.
"""

import functools
import json
import os
import shlex
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed, Unsupported
from scenarios.crossing import PlannedCluster, PlannedHost, PlannedLent, SshTarget, ssh_target
from workers import processes
from workers.agent import AgentLink
from workers.hosts import links
from workers.hosts.base import Accelerator, Budget, ClusterHosts, Storage
from workers.hosts.ground import CHECKOUT, PATH, PYTHON, Ground, HeldObserver, HostStatus, agent_environment
from workers.hosts.init import GUEST_UID
from workers.marks import live_sessions

_OBSERVER, _STORAGE = "observer", "storage"
_OWN_USER = -1
_LOGIN_TIMEOUT_S = 60.0
_START = (
    "import sys; sys.version_info < (3, 11) and sys.exit('it needs Python 3.11, this is ' + sys.version.split()[0]); "
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
# hosts that hang must be given up by the client, too: whoever waits for them has gone by then
_SETTINGS = """\
BatchMode yes
StrictHostKeyChecking yes
GlobalKnownHostsFile /dev/null
UpdateHostKeys no
CheckHostIP no
PreferredAuthentications publickey
IdentitiesOnly yes
IdentityAgent none
ForwardAgent no
ControlPath none
ConnectTimeout 20
ServerAliveInterval 5
ServerAliveCountMax 3
LogLevel ERROR
"""


@dataclass(frozen=True)
class SshHost:
    """A machine of its own; implements `workers.hosts.base.Host`."""

    name: str
    zone: str
    address: str
    login: "Login"
    lent: PlannedLent
    guest_uid: int
    accelerator: Accelerator
    emulator: str = "/usr/bin/qemu-system-x86_64"
    wire: None = None  # what others need too is not cut
    room_mib: None = None
    nearby: None = None

    @property
    def bridge(self) -> str:
        return self.lent.bridge

    @property
    def uri(self) -> str:
        program = urllib.parse.quote(str(self.login.program))
        return f"qemu+ssh://{self.name}/system?command={program}&proxy=native"  # libvirt's own helper, no `nc`

    @property
    def migration_uri(self) -> str:
        return self.lent.peers % self.name

    def uri_of(self, daemon: str) -> str:
        raise Unsupported("a libvirtd of a revision's own is not started on somebody else's machine")

    def migration_uri_of(self, daemon: str) -> str:
        raise Unsupported("a libvirtd of a revision's own is not started on somebody else's machine")

    @property
    def work_dir(self) -> Path:
        return Path(self.lent.folder, "work")

    @property
    def shared_dir(self) -> Path:
        return Path(self.lent.folder, "shared")

    @property
    def console_dir(self) -> Path:
        return Path(self.lent.folder, "console")

    @property
    def budget(self) -> Budget:
        return Budget(self.lent.memory_mib, self.lent.disk_mib)

    def agent(self, lease: str) -> AgentLink:
        return self.login.agent(self.name, lease)


@dataclass(frozen=True)
class Login:
    """How the worker logs in to a cluster's hosts: by their names, with what `write` has written."""

    folder: Path

    @property
    def program(self) -> Path:
        """OpenSSH's client with our settings and no others."""
        return self.folder / "ssh"

    def write(self, planned: PlannedCluster, key: Path) -> None:
        """The settings for these hosts, and their keys. Raises Failed (farm) where the worker has no key to show."""
        if not key.is_file():
            raise Failed("farm", f"the worker has no ssh key to log in with: there is no {key}")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        targets = {host: _target(host) for host in planned.hosts}
        lines = [line for host, target in targets.items() for line in _settings_of(host, target)]
        lines += ["Host *", *_SETTINGS.splitlines(), f'IdentityFile "{key}"', f'UserKnownHostsFile "{self._known}"']
        _put(self._config, "\n".join(lines) + "\n")
        _put(self._known, "".join(f"{host.name} {host.host_key}\n" for host in planned.hosts))
        _put(self.program, f'#!/bin/sh\nexec ssh -F {shlex.quote(str(self._config))} "$@"\n', mode=0o700)

    def agent(self, host: str, lease: str) -> AgentLink:
        """It has answered; raises Failed (donor) where it does not."""
        there = [f"{processes.LEASE_VARIABLE}={lease}", f"PATH={PATH}", "LC_ALL=C.UTF-8"]
        run = ["env", *there, PYTHON, "-IB", "-c", shlex.quote(_START)]
        # written apart, so that it is known for an agent's on either side
        command = [str(self.program), "-T", "--", host, *run, "-m", "workers.agent"]
        link = AgentLink(host, command, agent_environment(lease, CHECKOUT), code=_code())
        try:
            link.call("basics.clock_ns", timeout_s=_LOGIN_TIMEOUT_S)  # no other call has time for a login
        except Failed:
            link.close()
            raise
        return link

    @property
    def _config(self) -> Path:
        return self.folder / "config"

    @property
    def _known(self) -> Path:
        return self.folder / "known_hosts"


class SshCluster(Ground):
    """The worker's side of lent machines, which are up already: the store's disks, and where guests are heard."""

    def __init__(self, home: Path, planned: PlannedCluster) -> None:
        """Raises Failed (farm) for hosts that ssh cannot be told of."""
        super().__init__(home, planned)
        if planned.lent is None:
            raise Failed("farm", f"cluster {planned.name}: its inventory file does not say what its hosts lend")
        self._lent = planned.lent
        for host in planned.hosts:
            _target(host)

    def up(self) -> ClusterHosts:
        """Asks no host: one that does not answer keeps nobody from the others.

        Raises Failed (farm) where the worker's machine is not in the network, or cannot log in.
        """
        with self._locked():
            if (lacking := self.lacking()) is not None:
                raise Failed("farm", lacking)
            hosts = self.hosts(Login(self.folder / "ssh"))
            self._make_disks(self._disks())
            observer = self._join(_OBSERVER, _OBSERVER, self._lent.observer)
            storage = self._join(_STORAGE, _STORAGE, self._lent.storage)
        return ClusterHosts(
            name=self._planned.name,
            folder=self.folder,
            hosts=hosts,
            observer=HeldObserver(self._lent.observer, observer),
            storage=Storage(Path(links.namespace_path(storage)), self._lent.storage, self._disks()),
            network=self._lent.network,
            guest_addresses=self._lent.guest_addresses,
        )

    def hosts(self, login: Login) -> list[SshHost]:
        """Raises Failed (farm) where the worker has no key to show."""
        login.write(self._planned, self._home / "secrets" / "ssh" / self._planned.name)
        accelerator: Accelerator = "kvm" if self._planned.driver == "kvm" else "qemu"
        uids = [GUEST_UID if _target(planned).user == "root" else _OWN_USER for planned in self._planned.hosts]
        return [
            SshHost(planned.name, planned.zone, planned.address, login, self._lent, uid, accelerator)
            for planned, uid in zip(self._planned.hosts, uids, strict=True)
        ]

    def lacking(self) -> str | None:
        """What the worker's machine would need to be in the hosts' network."""
        if self._lent.bridge in links.interfaces(os.getpid()):
            return None
        return f"the worker's machine has no bridge {self._lent.bridge} into the network {self._lent.network}"

    def down(self) -> None:
        """End what is on the worker's machine. Raises Failed (farm) where a session is still at work."""
        if not self.folder.is_dir():
            return
        with self._locked():
            if live := live_sessions(self.folder):
                raise Failed("farm", f"cluster {self._planned.name} is in use by session {', '.join(live)}")
            self._end(self._processes)
            self._wait_for_loops(self.folder)

    def status(self) -> list[HostStatus]:
        """They are not ours to bring up: `check` asks them."""
        return []

    def _join(self, node: str, port: str, address: str) -> int:
        holder, length = self._ensure_holder(node), self._lent.network.partition("/")[2]
        port = f"{self._mark[:6]}-{port}"  # the bridge may have ports of other clusters, too
        links.lay_wire(os.getpid(), port, holder, address=f"{address}/{length}", bridge=self._lent.bridge)
        return holder


def _target(host: PlannedHost) -> SshTarget:
    target = ssh_target(host.uri)
    if target is None:
        raise Failed("farm", f"host {host.name}: uri '{host.uri}' is not ssh://USER@MACHINE:PORT")
    return target


def _settings_of(host: PlannedHost, target: SshTarget) -> list[str]:
    where = [f"HostName {target.machine}", f"Port {target.port}", f"User {target.user}"]
    return [f"Host {host.name}", *where, f"HostKeyAlias {host.name}", f"HostKeyAlgorithms {_algorithms(host.host_key)}"]


def _algorithms(host_key: str) -> str:
    """Of this key alone: else a machine with several may show another, which then looks like an attack."""
    kind = host_key.partition(" ")[0]
    return "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind


def _put(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Whole or not at all: another process may be reading it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)


@functools.cache
def _code() -> bytes:
    """What an agent's first words are: how it begins, and what it may import."""
    begin = (CHECKOUT / "workers" / "hosts" / "carried.py").read_bytes() + b"\nserve()\n"
    sources = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for package in ("workers", "scenarios")
        for path in sorted((CHECKOUT / package).rglob("*.py"))
    }
    return b"%d\n%b%b\n" % (len(begin), begin, json.dumps(sources).encode())
