"""The worker's own side of a cluster: its folder, the store's disks, and networks that processes hold.

Every such process carries the cluster's mark in its environment from its first moment: nothing needs to be written
down before it is made, and whatever is killed when, what is left is found and ended.
"""

import abc
import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scenarios.contract import Failed
from scenarios.crossing import PlannedCluster
from workers import processes
from workers.agent import AgentLink
from workers.hosts import links
from workers.hosts.base import ClusterHosts, Storage
from workers.loops import loops_of
from workers.turns import take_turn

CLUSTER_VARIABLE = "FARM_CLUSTER"
NODE_VARIABLE = "FARM_NODE"
CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_TIMEOUT_S = 20.0
_LOCK_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 15.0
_POLL_S = 0.02


@dataclass(frozen=True)
class HostStatus:
    """What is there of one host. `pid` is None where it is down; `guests` are names of live VMMs."""

    name: str
    pid: int | None
    answers: bool
    guests: tuple[str, ...]


@dataclass(frozen=True)
class HeldObserver:
    """An address on the test network in a namespace of its own; implements `workers.hosts.base.Observer`."""

    address: str
    pid: int  # of a process in the namespace

    def agent(self, lease: str) -> AgentLink:
        enter = ["nsenter", f"--net={links.namespace_path(self.pid)}"]
        return AgentLink("observer", [*enter, *agent_command()], agent_environment(lease, CHECKOUT))


class Ground(abc.ABC):
    """What a cluster has on the worker's machine, under `home/clusters/<name>/`."""

    def __init__(self, home: Path, planned: PlannedCluster) -> None:
        self._home = home.resolve()
        self._planned = planned
        self.folder = self._home / "clusters" / planned.name
        self._mark = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]

    def part(self, cluster: ClusterHosts, hosts: Collection[str]) -> ClusterHosts:
        """What a session has of the cluster that is up, when it was promised these of its hosts.

        They are all it knows of; a share of the guests' addresses is theirs, and a store of their own.
        """
        own = [index for index, host in enumerate(cluster.hosts) if host.name in hosts]
        if len(own) == len(cluster.hosts) or not own:
            return cluster
        share = len(cluster.guest_addresses) // len(cluster.hosts)
        shares = [cluster.guest_addresses[index * share : (index + 1) * share] for index in own]
        (store, *first), *others = shares
        disks = self._disks(cluster.hosts[own[0]].name)
        with self._locked():
            self._make_disks(disks)
            holder = self._join(f"storage.{cluster.hosts[own[0]].name}", f"store{own[0] + 1}", store)
        return replace(
            cluster,
            hosts=[cluster.hosts[index] for index in own],
            guest_addresses=[address for addresses in (first, *others) for address in addresses],
            store_addresses=[address for index, address in enumerate(cluster.store_addresses) if index in own],
            storage=Storage(Path(links.namespace_path(holder)), store, disks),
        )

    @abc.abstractmethod
    def _join(self, node: str, port: str, address: str) -> int:
        """The process that holds a namespace which is in the test network, by this port, under this address."""

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            take_turn(lock, timeout_s=_LOCK_TIMEOUT_S, busy=str(self.folder))
            yield

    def _disks(self, part: str = "") -> tuple[Path, ...]:
        folder = self.folder / "storage" / part
        return tuple(folder / f"d{number}.img" for number in range(self._planned.storage_disks))

    def _make_disks(self, disks: Sequence[Path]) -> None:
        """And the folder of sessions."""
        (self.folder / "sessions").mkdir(parents=True, exist_ok=True)
        for disk in disks:
            disk.parent.mkdir(parents=True, exist_ok=True)
            with disk.open("ab") as file:
                file.truncate(self._planned.storage_disk_mib << 20)

    def _processes(self, node: str | None = None) -> dict[int, str]:
        """Marked processes → node they belong to. A host's guests carry no mark; they end with its first process."""
        found = {}
        for pid in processes.marked(CLUSTER_VARIABLE, [self._mark]):
            belongs_to = processes.environment(pid).get(NODE_VARIABLE)
            if belongs_to is not None and node in (None, belongs_to):
                found[pid] = belongs_to
        return found

    def _holder(self, node: str) -> int | None:
        """The process that holds the node's network."""
        ours = os.readlink("/proc/self/ns/net")
        for pid in self._processes(node):
            with contextlib.suppress(OSError):
                if os.readlink(links.namespace_path(pid)) != ours:
                    return pid
        return None

    def _ensure_holder(self, node: str) -> int:
        """A process that does nothing but hold a network namespace."""
        holder = self._holder(node)
        if holder is not None:
            return holder
        self._start(node, ["unshare", "--net", "sleep", "infinity"])
        deadline = time.monotonic() + START_TIMEOUT_S
        while (holder := self._holder(node)) is None:
            if time.monotonic() > deadline:
                raise Failed("farm", f"cluster {self._planned.name}: no network namespace for its {node}")
            time.sleep(_POLL_S)
        return holder

    def _start(
        self, node: str, command: list[str], environment: dict[str, str] | None = None, keep_fd: int | None = None
    ) -> None:
        """Start a process that outlives us, marked as this node of this cluster."""
        mark = {CLUSTER_VARIABLE: self._mark, NODE_VARIABLE: node, "PATH": PATH, "LC_ALL": "C.UTF-8"}
        with (self.folder / f"{node}.log").open("wb") as log:
            subprocess.run(
                ["setsid", "--fork", *command],
                env={**mark, **(environment or {}), "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if keep_fd is None else (keep_fd,),
                check=True,
                timeout=START_TIMEOUT_S,
            )

    def _end(self, find: processes.Finder) -> None:
        _, left = processes.end_all(find, timeout_s=_END_TIMEOUT_S, term_first=False)
        if left:
            raise Failed("farm", f"cluster {self._planned.name}: processes {sorted(left)} do not end")

    def _wait_for_loops(self, path: Path) -> None:
        """The kernel lets go of a host's disk a little after the host's end; mounted twice it would break."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        while held := loops_of(path):
            if time.monotonic() > deadline:
                raise Failed("farm", f"{', '.join(held)} still hold {path}")
            time.sleep(_POLL_S)


def agent_command() -> list[str]:
    return [PYTHON, "-P", "-m", "workers.agent"]  # from the code it is given, wherever it is started


def agent_environment(lease: str, code: Path) -> dict[str, str]:
    return {
        processes.LEASE_VARIABLE: lease,
        "PYTHONPATH": str(code),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
    }
