"""QEMU clusters through libvirt's `qemu` driver.

`QemuCluster` is one session's hold on a cluster: agents, libvirt connections, heartbeats. `hosts()` gives its
hosts as one revision's settings want them. Times are the observer's monotonic clock throughout.
"""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import libvirt

from scenarios import contract
from scenarios.contract import (
    Failed,
    System,
    Unsupported,
)
from scenarios.crossing import FidelityFact, OperatorImage, PlannedGuest
from scenarios.recipe import DAEMON, VMM, DiskSettings, GuestSettings
from workers import blame, clocks, emulators, facts, marks
from workers.archives import Archive
from workers.hosts import base as hosts_base
from workers.hypervisors import budgets
from workers.hypervisors.calls import ask
from workers.hypervisors.daemons import Daemons
from workers.hypervisors.events import FirstRuns, listen
from workers.hypervisors.link import HostLink, Revision
from workers.hypervisors.qemu_guest import QemuGuest
from workers.hypervisors.qemu_host import QemuHost
from workers.hypervisors.systems import Systems
from workers.hypervisors.watch import Watch
from workers.libvirts import Libvirt
from workers.volumes import disks
from workers.volumes.base import BASE_MIB

_CALL_TIMEOUT_S = 30.0
_FACTS_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 60.0
_SEND_TIMEOUT_S = 120.0
_KEPT_ARCHIVES = 4
_EMULATORS, _LIBVIRTS = "emulators", "libvirts"
_SMALL = System()


class QemuCluster(Watch):
    """A context manager: agents and connections on entering, all of its guests removed on leaving."""

    def __init__(
        self, cluster: hosts_base.ClusterHosts, home: Path, session: str, operator_guest: PlannedGuest | None = None
    ) -> None:
        super().__init__(cluster, home, session)
        self.operator_guest = operator_guest
        self.links: list[HostLink] = []
        self._numbers = itertools.count(1)
        self._exits = contextlib.ExitStack()
        self._guests: list[QemuGuest] = []
        self._used_archives: set[str] = set()
        self._daemons = Daemons()
        self.copied: set[tuple[str, str]] = set()  # hosts, and digests of systems that they have as a base
        self.accelerators: set[str] = set()  # libvirt's domain types of guests that answered

    def __enter__(self) -> "QemuCluster":
        """Raises Failed: donor where a host does not answer."""
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors come as exceptions; no second copy on stderr
        listen()
        with contextlib.ExitStack() as exits:
            self.begin(exits)
            self.links = [self._link(host, exits) for host in self.cluster.hosts]
            first = self.links[0]
            self.systems = Systems(self._home, first.agent, first.host.shared_dir / "images", self.operator_guest)
            exits.callback(self._daemons.retire, lambda _links: False)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._exits:
            for guest in list(self._guests):
                guest.remove()

    def clock_jumps_s(self) -> dict[str, float]:
        """Hosts whose clocks have jumped since they were compared last, and how far; they are compared anew."""
        jumps = {}
        for link in self.links:
            before, link.clock = link.clock, clocks.compare(link.agent, self.observer)
            for other in self._daemons.links():
                other.clock = link.clock if other.name == link.name else other.clock
            if (jump_s := clocks.jump_s(before, link.clock)) is not None:
                jumps[link.name] = jump_s
        return jumps

    def hosts(
        self, guest: GuestSettings, disk: DiskSettings, emulator: Archive | None = None, daemon: Libvirt | None = None
    ) -> list["QemuHost"]:
        """The cluster's hosts, ready for guests of a revision with these settings, on the QEMU and libvirt it deploys.

        Raises Failed: stack for settings that cannot be met, and for a QEMU or libvirt that does not start.
        """
        self.systems.get(_SMALL, guest)
        self._daemons.retire(lambda links: any(one.links is links for one in self._guests))
        links = self.links if daemon is None else self._start(daemon)
        path = None if emulator is None else self._send(emulator, _EMULATORS) / emulators.PROGRAM
        if emulator is not None or daemon is not None:
            blamed = [name for name, one in ((VMM, emulator), (DAEMON, daemon)) if one is not None]
            with ThreadPoolExecutor(len(links)) as pool:
                list(pool.map(lambda link: _probe_emulator(link, path, guest.machine, blamed), links))
        return [QemuHost(self, link, Revision(guest, disk, links, path)) for link in links]

    def next_name(self) -> str:
        return f"{marks.guest_prefix(self.session)}{next(self._numbers)}"

    def next_address(self) -> str:
        """The address for a new guest, with the network's prefix."""
        free = set(self.cluster.guest_addresses) - {guest.address.split("/")[0] for guest in self._guests}
        if not free:
            raise Failed("farm", "no address is left for another guest")
        prefix = self.cluster.network.rpartition("/")[2]
        return f"{min(free, key=self.cluster.guest_addresses.index)}/{prefix}"

    def facts(self) -> dict[str, dict[str, Any]]:
        """Of each host, as its agent reads them."""
        return {
            link.name: link.agent.call("facts.read", timeout_s=_FACTS_TIMEOUT_S, emulator=link.host.emulator)
            for link in self.links
        }

    def declared(self, read: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Those of the facts that open an epoch."""
        return facts.declared_facts(read)

    def packages(self) -> dict[str, list[str]]:
        """What the systems that guests ran are made of, by their digests."""
        return {digest: list(packages) for digest, packages in self.systems.packages.items()}

    def operator_image(self) -> OperatorImage | None:
        """The operator's own, if a guest booted from it."""
        return self.systems.operator_image

    def fidelity(self, read: Mapping[str, Mapping[str, Any]]) -> FidelityFact:
        return facts.conclude_fidelity(self.accelerators, read)

    def _link(self, host: hosts_base.Host, exits: contextlib.ExitStack) -> HostLink:
        agent = exits.enter_context(host.agent(self.session))
        clock = clocks.compare(agent, self.observer)
        counter_khz = agent.call("counter.khz", timeout_s=_CALL_TIMEOUT_S)
        connection = ask(f"connect to libvirt of {host.name}", _CALL_TIMEOUT_S, lambda: libvirt.open(host.uri))
        made = agent.call("volumes.base.make_base", timeout_s=_SEND_TIMEOUT_S, folder=str(host.work_dir), mib=BASE_MIB)
        base = disks.Base(Path(made["path"]), made["digest"])
        runs = ask(f"listen to libvirt of {host.name}", _CALL_TIMEOUT_S, lambda: FirstRuns(connection))
        exits.callback(_stop_listening, host.name, runs)
        return HostLink(host, agent, connection, clock, counter_khz, base, runs, host.migration_uri)

    def work_dir(self, host: hosts_base.Host) -> Path:
        return host.work_dir / "sessions" / self.session

    def shared_dir(self, host: hosts_base.Host) -> Path:
        return host.shared_dir / "sessions" / self.session

    def _send(self, component: Archive | Libvirt, place: str) -> Path:
        """Bring a component's programs to where images lie; returns their folder there."""
        link = self.links[0]
        folder = link.host.shared_dir / place
        archive = folder / component.digest / component.archive.name
        link.agent.send_file(component.archive, archive, timeout_s=_SEND_TIMEOUT_S)
        link.agent.call("hypervisors.images.unpack", timeout_s=_SEND_TIMEOUT_S, archive=str(archive))
        self._used_archives.add(component.digest)
        link.agent.call(
            "hypervisors.images.trim",
            timeout_s=_CALL_TIMEOUT_S,
            folder=str(folder),
            used=sorted(self._used_archives),
            most=_KEPT_ARCHIVES,
        )
        return archive.parent

    def _start(self, daemon: Libvirt) -> Sequence[HostLink]:
        """A libvirtd of the session's own on every host; what it learns of QEMUs is kept for the session."""
        programs = self._send(daemon, _LIBVIRTS) / "usr"
        knowledge = f"{marks.guest_prefix(self.session)}{daemon.digest[:12]}"
        return self._daemons.deploy(daemon, self.next_name(), knowledge, str(programs), self.links)

    def enter(self, guest: "QemuGuest") -> None:
        """Raises Unsupported, before anything of it is made, where its host does not lend as much memory."""
        self.require_memory(guest.link, guest.memory_mib)
        self._guests.append(guest)

    def require_memory(self, link: HostLink, mib: int) -> None:
        """For one more guest there; raises Unsupported."""
        budgets.require_memory(link, mib, [guest.memory_mib for guest in self._guests if guest.link is link])

    def require_disk(self, link: HostLink, mib: int) -> None:
        """For something that may grow so large there; raises Unsupported."""
        budgets.require_disk(link, mib, [self.work_dir(link.host), self.shared_dir(link.host)])

    def leave(self, guest: "QemuGuest") -> None:
        self._guests.remove(guest)


def _probe_emulator(link: HostLink, deployed: Path | None, machine: str, components: Sequence[str]) -> None:
    """Let libvirt learn what the QEMU can do before it is measured; raises Failed (stack) where it cannot run it."""
    path = link.host.emulator if deployed is None else str(deployed)

    def probe() -> str:
        return str(link.connection.getDomainCapabilities(path, "x86_64", machine, link.host.accelerator))

    try:
        ask(f"start the QEMU on {link.name}", _START_TIMEOUT_S, probe)
    except (Unsupported, Failed) as error:
        failed = error if blame.is_daemons(error) else Failed("hypervisor", str(error))
        raise blame.of(components)(failed) from None


def _stop_listening(name: str, runs: FirstRuns) -> None:
    with contextlib.suppress(contract.ScenarioError):  # whoever is gone tells nothing any more
        ask(f"stop listening to libvirt of {name}", _CALL_TIMEOUT_S, runs.stop)
