"""What a cluster's hosts are to a session, whatever they are made of.

A session's code runs in the worker process; whatever happens *on* a host is done by that host's agent. Paths
of a host are the host's own: the worker process may not be able to open them, the host's agent can.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from scenarios.crossing import PlannedCloud, PlannedHost
from workers.agent import AgentLink
from workers.stacks.openstack_client import Login


@dataclass(frozen=True)
class Nearby:
    """What the worker's machine can reach of a host that is made of it."""

    network_namespace: Path  # for `nsenter --net=`
    pid: int  # of a process in its namespaces
    libvirt_dir: Path  # holds the socket of its libvirtd
    libvirt_gid: int  # the group that may use that
    shared_dir: Path  # what the host has at its own `shared_dir`
    peers: str  # libvirt's URI of another host as this one's libvirtd reaches it; `%s` stands for that host's name


# libvirt's types of domains: emulated (TCG), or on the processor itself
Accelerator = Literal["qemu", "kvm"]


@dataclass(frozen=True)
class Budget:
    """What a donor lends of one host to a session."""

    memory_mib: int  # for guests
    disk_mib: int


class Host(Protocol):
    """One lent machine with a hypervisor.

    Virtual machine monitors run as the unprivileged user and group `guest_uid`, and libvirt changes no file's
    owner: images and folders that a guest is to write must be given to that user by whoever makes them;
    kernels and base images need be readable by all.
    """

    @property
    def name(self) -> str: ...

    @property
    def zone(self) -> str: ...

    @property
    def address(self) -> str:
        """Its IPv4 address on the cluster's test network."""

    @property
    def uri(self) -> str:
        """Libvirt's URI for the worker process."""

    @property
    def migration_uri(self) -> str:
        """The libvirt URI at which the other hosts' libvirtd reaches this one, for peer-to-peer migration."""

    def uri_of(self, daemon: str) -> str:
        """The same of a session's own libvirtd, which has a folder of that name (`workers.hypervisors.daemon`)."""

    def migration_uri_of(self, daemon: str) -> str: ...

    @property
    def bridge(self) -> str:
        """The bridge that guests are attached to."""

    @property
    def wire(self) -> str | None:
        """The interface by which it is on the test network, where that may be cut: its agent does not need it."""

    @property
    def room_mib(self) -> int | None:
        """Memory kept for guests that have theirs set aside before they run; None where none is."""

    @property
    def emulator(self) -> str: ...

    @property
    def accelerator(self) -> Accelerator:
        """What guests are asked to run on, and nothing else: a guest that does not boot there is told, not emulated."""

    @property
    def guest_uid(self) -> int:
        """-1 where that is the agent's own user, who may give files to nobody else."""

    @property
    def work_dir(self) -> Path:
        """On an XFS that can share blocks. A session keeps its files in `work_dir / "sessions" / session_id`,
        which the sweep removes; what lies elsewhere (base images, kernels) stays."""

    @property
    def shared_dir(self) -> Path:
        """The same files at the same path on all hosts of the cluster; sessions' files as in `work_dir`."""

    @property
    def console_dir(self) -> Path:
        """Writable for `guest_uid`; files are named after their guest, and swept by that name."""

    @property
    def budget(self) -> Budget | None:
        """None where a session may take what is there."""

    @property
    def nearby(self) -> Nearby | None:
        """None where the host is a machine of its own."""

    def agent(self, lease: str) -> AgentLink:
        """Start an agent on this host that carries the mark of the session `lease`. The caller closes it."""


class Observer(Protocol):
    """A place on the test network that is no host: heartbeats are received and uploads are made here.

    Its agent runs as root on the worker's own files.
    """

    @property
    def address(self) -> str: ...

    def agent(self, lease: str) -> AgentLink: ...


@dataclass(frozen=True)
class Storage:
    """Where the object store under test is deployed: a network without a way out, and its disks."""

    network_namespace: Path  # for `nsenter --net=`
    address: str
    disks: tuple[Path, ...]  # image files on the worker's machine, each `storage_disk_mib` large


@dataclass(frozen=True)
class Cloud:
    """An OpenStack that is there already, and how it is logged in to."""

    planned: PlannedCloud
    login: Login
    hosts: tuple[PlannedHost, ...]  # names of places; nothing of ours is on them


@dataclass(frozen=True)
class ClusterHosts:
    """A cluster that is up. A cloud has no hosts that anything could be done on."""

    name: str
    folder: Path  # of the cluster's state, on the worker's machine
    hosts: Sequence[Host]
    observer: Observer
    storage: Storage
    network: str  # of all addresses, such as "10.77.0.0/24"
    guest_addresses: Sequence[str]  # those that guests may take
    cloud: Cloud | None = None
    store_addresses: Sequence[str] = ()  # of hosts' storage servers, host by host
