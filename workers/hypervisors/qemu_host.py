"""A host with the settings of one revision (scenarios.contract.Host): its guests, disks, volumes and links."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scenarios import contract
from scenarios.contract import (
    Disk,
    DiskShape,
    Hardware,
    MarkedVolume,
    OperatorGuest,
    ServedBase,
    System,
    Unsupported,
    Workload,
    WorkNotProven,
)
from scenarios.recipe import GuestSettings
from workers.hypervisors.link import HostLink, Revision
from workers.hypervisors.qemu_guest import QemuGuest
from workers.volumes import disks
from workers.volumes.base import BASE_MIB
from workers.volumes.marked import AgentVolume

if TYPE_CHECKING:
    from workers.hypervisors.qemu import QemuCluster

_CALL_TIMEOUT_S = 30.0
_SEND_TIMEOUT_S = 120.0
_SYSTEM_MIB = 64  # of a guest's memory: its kernel, initramfs and our program
_IDLE = Workload()
_AS_RECIPE = Hardware()
_SMALL = System()
_PLAIN_SHAPE = DiskShape()


def settings_of(recipe: GuestSettings, hardware: Hardware, workload: Workload, *, least_mib: int = 0) -> GuestSettings:
    """A guest's settings: the recipe's, with what is asked for otherwise. Raises Unsupported for what cannot be."""
    settings = _with_hardware(recipe, hardware, least_mib)
    room_mib = settings.memory_mib - _SYSTEM_MIB
    if workload.memory_mib > room_mib:  # its kernel would give up, which is nobody's fault but the question's
        raise Unsupported(f"a working set of {workload.memory_mib} MiB, in guests that have room for {room_mib} MiB")
    return settings


def _with_hardware(settings: GuestSettings, hardware: Hardware, least_mib: int) -> GuestSettings:
    """The recipe's settings, with what is asked for otherwise; raises Unsupported for what no guest can have."""
    asked: dict[str, Any] = {"memory_mib": max(settings.memory_mib, least_mib)}
    asked |= {name: value for name, value in asdict(hardware).items() if value is not None}
    if asked["memory_mib"] < least_mib:
        raise Unsupported(f"{asked['memory_mib']} MiB of memory: this system and firmware need {least_mib}")
    try:
        return replace(settings, **asked)
    except ValueError as error:
        raise Unsupported(str(error)) from None


class QemuHost:
    """A host with the settings of one revision (scenarios.contract.Host)."""

    def __init__(self, cluster: "QemuCluster", link: HostLink, revision: Revision) -> None:
        self.name = link.name
        self.zone = link.host.zone
        self.room_mib = link.host.room_mib
        self.cluster = cluster
        told = cluster.operator_guest
        self.operator_guest = OperatorGuest(told.firmware, told.memory_mib, told.tcp_port) if told else None
        self.link = link
        self.revision = revision

    @contextlib.contextmanager
    def guest(
        self,
        *,
        nonce: str,
        disk: Disk | None = None,
        workload: Workload = _IDLE,
        hardware: Hardware = _AS_RECIPE,
        reserved: bool = False,
        system: System = _SMALL,
    ) -> Iterator["contract.Guest"]:
        least_mib = self.cluster.systems.least_memory_mib(system)
        settings = settings_of(self.revision.guest, hardware, workload, least_mib=least_mib)
        guest = self.new_guest(settings, nonce, disk, workload, reserved, system)
        guest.enter()
        try:
            guest.prepare()
            yield guest
        finally:
            guest.remove()

    def new_guest(
        self, settings: GuestSettings, nonce: str, disk: Disk | None, workload: Workload, reserved: bool, system: System
    ) -> QemuGuest:
        return QemuGuest(self, settings, nonce, cast(disks.AgentDisk | None, disk), workload, reserved, system)

    def system_digest(self, system: System) -> str:
        return self.cluster.systems.get(system, self.revision.guest).digest

    def daemon_cpu_s(self) -> float:
        return float(self.link.agent.call("hypervisors.ledger.daemon_cpu_s", timeout_s=_CALL_TIMEOUT_S))

    def make_disk(
        self, method: str, shape: DiskShape = _PLAIN_SHAPE, *, system: System | None = None
    ) -> tuple[Disk, float | None]:
        self.cluster.require_disk(self.link, self._size_mib(system))
        host, agent, base = self.link.host, self.link.agent, self._base_of(system)
        folder = self.cluster.shared_dir(host) if method == "shared" else self.cluster.work_dir(host)
        agent.call("basics.make_folder", timeout_s=_CALL_TIMEOUT_S, path=str(folder), uid=host.guest_uid)
        if shape.inside != "none":
            folder /= shape.inside
            base = disks.make_file_system(agent, folder, shape.inside, uid=host.guest_uid, base_mib=BASE_MIB)
        path = folder / f"{self.cluster.next_name()}.{disks.FORMATS.get(method, 'raw')}"
        shape = replace(shape, cluster_size_kib=shape.cluster_size_kib or self.revision.disk.cluster_size_kib)
        return disks.make_disk(agent, method, path, base, uid=host.guest_uid, shape=shape)

    def make_marked_volume(self, mib: int, *, tenant: str) -> MarkedVolume:
        self.cluster.require_disk(self.link, mib)
        return AgentVolume(self.link.agent, self._work_folder() / f"{self.cluster.next_name()}.volume", mib, tenant)

    def written_bytes(self) -> int | None:
        folder = str(self.link.host.work_dir)
        answer = self.link.agent.call("volumes.device.written_bytes", timeout_s=_CALL_TIMEOUT_S, folder=folder)
        return None if answer is None else int(answer)

    def sent_bytes(self) -> int | None:
        wire = self.link.host.wire
        if wire is None:
            return None
        return int(self.link.agent.call("hosts.wire.sent_bytes", timeout_s=_CALL_TIMEOUT_S, interface=wire))

    @contextlib.contextmanager
    def serve_base(self, system: System | None = None, *, latency_ms: int = 0) -> Iterator[ServedBase]:
        host, agent, base = self.link.host, self.link.agent, self._base_of(system)
        folder = self._work_folder()
        server = disks.BaseServer(agent, base, host, folder=folder, system=system, latency_ms=latency_ms)
        try:
            yield server
        finally:
            server.end()

    def make_streamed_disk(self, served: ServedBase, *, pulled: bool = True) -> tuple[Disk, float]:
        self.cluster.require_disk(self.link, BASE_MIB)
        path = self._work_folder() / f"{self.cluster.next_name()}.qcow2"
        shape = DiskShape(cluster_size_kib=self.revision.disk.cluster_size_kib)
        server, uid = cast(disks.BaseServer, served), self.link.host.guest_uid
        base = self._base_of(server.system)
        return disks.make_streamed_disk(self.link.agent, path, server, base, uid=uid, shape=shape, pulled=pulled)

    def served_read_s(self, served: ServedBase) -> float:
        server = cast(disks.BaseServer, served)
        asked = {"address": server.address, "port": server.port}
        return float(self.link.agent.call("volumes.nbd.read_s", timeout_s=_SEND_TIMEOUT_S, **asked))

    def least_read_mib(self, system: System) -> float:
        return self.cluster.systems.get(system, self.revision.guest).least_read_bytes / (1 << 20)

    def _base_of(self, system: System | None) -> disks.Base:
        """What disks are made from: the base image, or the disk of a system."""
        if system is None:
            return self.link.base
        sent = self.cluster.systems.get(system, self.revision.guest)
        if (self.name, sent.digest) not in self.cluster.copied:
            self.cluster.require_disk(self.link, self._size_mib(system))
            self.cluster.copied.add((self.name, sent.digest))
        asked = {"image": str(sent.files[0]), "folder": str(self._work_folder()), "digest": sent.digest}
        copied = self.link.agent.call("volumes.base.copy_base", timeout_s=_SEND_TIMEOUT_S, **asked)
        return disks.Base(Path(copied), sent.digest)

    def _size_mib(self, system: System | None) -> int:
        """What a disk that is made from its base may grow to."""
        if system is None:
            return BASE_MIB
        return self.cluster.systems.get(system, self.revision.guest).sources[0].stat().st_size >> 20

    def _work_folder(self) -> Path:
        """This session's folder on the host's disk, for its guests' VMMs."""
        folder, uid = self.cluster.work_dir(self.link.host), self.link.host.guest_uid
        self.link.agent.call("basics.make_folder", timeout_s=_CALL_TIMEOUT_S, path=str(folder), uid=uid)
        return folder

    @contextlib.contextmanager
    def link_cut(self, *, limit_s: float) -> Iterator[None]:
        with self._harmed("cut", limit_s=limit_s) as carried:
            yield
        if carried[0]:
            raise WorkNotProven(f"{carried[0]} bytes went over the link of {self.name} while it was cut")

    @contextlib.contextmanager
    def link_capped(self, mib_s: int, *, limit_s: float) -> Iterator[None]:
        with self._harmed("cap", mib_s=mib_s, limit_s=limit_s):
            yield

    @contextlib.contextmanager
    def _harmed(self, harm: str, **how: float) -> Iterator[list[int]]:
        """Yields what then holds the bytes that the link carried within."""
        wire, carried = self.link.host.wire, [0]
        if wire is None:
            raise Unsupported(f"the link of {self.name} must stay as it is")
        self.link.agent.call(f"hosts.wire.{harm}", timeout_s=_CALL_TIMEOUT_S, interface=wire, **how)
        try:
            yield carried
        finally:
            carried[0] = int(self.link.agent.call("hosts.wire.mend", timeout_s=_CALL_TIMEOUT_S, interface=wire))
