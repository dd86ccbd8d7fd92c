"""QEMU clusters through libvirt's `qemu` driver.

`QemuCluster` is one session's hold on a cluster: agents, libvirt connections, heartbeats. `hosts()` gives its
hosts as one revision's settings want them. Times are the observer's monotonic clock throughout.
"""

import contextlib
import itertools
from collections.abc import Mapping
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
from scenarios.recipe import DiskSettings, GuestSettings
from workers import clocks, emulators, facts, marks
from workers.emulators import Emulator
from workers.hosts import base as hosts_base
from workers.hypervisors.calls import ask
from workers.hypervisors.domain import (
    DOMAIN_TYPE,
)
from workers.hypervisors.events import FirstRuns, listen
from workers.hypervisors.link import HostLink, Revision
from workers.hypervisors.qemu_guest import QemuGuest
from workers.hypervisors.qemu_host import QemuHost
from workers.hypervisors.systems import Systems
from workers.hypervisors.watch import Watch
from workers.volumes import disks
from workers.volumes.base import BASE_MIB

_CALL_TIMEOUT_S = 30.0
_FACTS_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 60.0
_SEND_TIMEOUT_S = 120.0
_KEPT_EMULATORS = 4
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
        self._used_emulators: set[str] = set()
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
            if (jump_s := clocks.jump_s(before, link.clock)) is not None:
                jumps[link.name] = jump_s
        return jumps

    def hosts(self, guest: GuestSettings, disk: DiskSettings, emulator: Emulator | None = None) -> list["QemuHost"]:
        """The cluster's hosts, ready for guests of a revision with these settings, on the QEMU that it deploys.

        Raises Failed: stack for settings that cannot be met, and for a QEMU that does not start.
        """
        self.systems.get(_SMALL, guest)
        path = None if emulator is None else self._deploy(emulator, guest.machine)
        return [QemuHost(self, link, Revision(guest, disk, path)) for link in self.links]

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
        return HostLink(host, agent, connection, clock, counter_khz, base, runs)

    def work_dir(self, host: hosts_base.Host) -> Path:
        return host.work_dir / "sessions" / self.session

    def shared_dir(self, host: hosts_base.Host) -> Path:
        return host.shared_dir / "sessions" / self.session

    def _deploy(self, emulator: Emulator, machine: str) -> Path:
        """Bring a QEMU to where images lie; each host's libvirt has learned what it can do before it is measured."""
        link = self.links[0]
        folder = link.host.shared_dir / "emulators"
        archive = folder / emulator.digest / emulator.archive.name
        link.agent.send_file(emulator.archive, archive, timeout_s=_SEND_TIMEOUT_S)
        link.agent.call("hypervisors.images.unpack", timeout_s=_SEND_TIMEOUT_S, archive=str(archive))
        self._used_emulators.add(emulator.digest)
        link.agent.call(
            "hypervisors.images.trim",
            timeout_s=_CALL_TIMEOUT_S,
            folder=str(folder),
            used=sorted(self._used_emulators),
            most=_KEPT_EMULATORS,
        )
        path = archive.parent / emulators.PROGRAM
        with ThreadPoolExecutor(len(self.links)) as pool:
            list(pool.map(lambda link: _probe_emulator(link, path, machine), self.links))
        return path

    def enter(self, guest: "QemuGuest") -> None:
        self._guests.append(guest)

    def leave(self, guest: "QemuGuest") -> None:
        self._guests.remove(guest)


def _probe_emulator(link: HostLink, path: Path, machine: str) -> None:
    """Raises Failed: stack where libvirt cannot run it for this machine type."""

    def probe() -> str:
        return str(link.connection.getDomainCapabilities(str(path), "x86_64", machine, DOMAIN_TYPE))

    try:
        ask(f"start the deployed QEMU on {link.name}", _START_TIMEOUT_S, probe)
    except (Unsupported, Failed) as error:
        if isinstance(error, Failed) and error.fault == "donor":
            raise
        raise emulators.to_blame(Failed("hypervisor", str(error))) from None


def _stop_listening(name: str, runs: FirstRuns) -> None:
    with contextlib.suppress(contract.ScenarioError):  # whoever is gone tells nothing any more
        ask(f"stop listening to libvirt of {name}", _CALL_TIMEOUT_S, runs.stop)
