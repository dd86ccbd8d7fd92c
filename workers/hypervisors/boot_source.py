"""What one guest boots from on its host: the session's image of its system, a copy that it fetched, or its own disk."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.contract import FetchReport, System, Unsupported, WorkNotProven
from scenarios.recipe import DiskSettings
from workers.agent import AgentLink
from workers.hosts.base import Host
from workers.hypervisors.domain import DiskImage, FirmwareBoot, KernelBoot
from workers.hypervisors.systems import SentSystem, require_uefi

_CALL_TIMEOUT_S = 30.0
_FETCH_TIMEOUT_S = 600.0


@dataclass
class BootSource:
    """Its files carry the guest's name and lie in the session's folder, which the sweep knows."""

    guest: str
    host: Host
    agent: AgentLink
    folder: Path
    system: System
    sent: SentSystem
    settings: DiskSettings
    disk: DiskImage | None  # the guest's own, which firmware boots where there is one
    files: tuple[Path, ...] = ()
    boot: KernelBoot | FirmwareBoot | None = None
    made: list[Path] = field(default_factory=list)

    def prepare(self) -> None:
        """Raises Unsupported where the host lacks the firmware, and for a second disk of a system that has one."""
        if self.disk is not None and self.system.firmware != "none":
            self.boot = FirmwareBoot(self.disk, self._uefi())
        else:
            if self.disk is not None and len(self.sent.files) > 2:
                raise Unsupported(
                    f"the system '{self.system.name}' has a disk, and boots from another with firmware alone"
                )
            self._boot_from(self.sent.files)

    def fetch(self, observer: AgentLink, address: str) -> FetchReport:
        """Boot from a copy that the observer, at this address, serves to the host over the test network."""
        copies = tuple(self.folder / f"{self.guest}.{source.name}" for source in self.sent.sources)
        self.made += copies
        sources = [str(source) for source in self.sent.sources]
        port = observer.call("image_server.start", timeout_s=_CALL_TIMEOUT_S, address=address, files=sources)
        cpu_s, started_s = -self._cpu_s(observer), time.monotonic()
        try:
            fetched = [self._fetch(address, port, number, copy) for number, copy in enumerate(copies)]
            took_s = time.monotonic() - started_s
            cpu_s += self._cpu_s(observer)
        finally:
            observer.call("image_server.stop", timeout_s=_CALL_TIMEOUT_S, port=port)
        self._boot_from(copies)
        return FetchReport(took_s, sum(fetched) / (1 << 20), cpu_s)

    def _cpu_s(self, observer: AgentLink) -> float:
        """So far, of the agents that serve images and fetch them."""
        spent_s = [agent.call("basics.own_cpu_s", timeout_s=_CALL_TIMEOUT_S) for agent in (observer, self.agent)]
        return float(sum(spent_s))

    def prove_fetched(self, observer: AgentLink) -> str:
        if self.files == self.sent.files:
            raise WorkNotProven(f"guest {self.guest} boots from what its host had")
        for source, copy in zip(self.sent.sources, self.files, strict=True):
            wanted, found = _digest(observer, source), _digest(self.agent, copy)
            if wanted is None or found != wanted:
                raise WorkNotProven(f"{copy.name} is not what was served: its SHA-256 is {found}, not {wanted}")
        return (
            f"fetched and booted with the digest they were served with: {', '.join(copy.name for copy in self.files)}"
        )

    def make_cold(self) -> None:
        paths = [str(file) for file in self.files]
        self.agent.call("page_cache.evict", timeout_s=_CALL_TIMEOUT_S, paths=paths)

    def prove_cold(self) -> float:
        read = self.agent.call(
            "page_cache.prove_read",
            timeout_s=_CALL_TIMEOUT_S,
            paths=[str(file) for file in self.files],
            guest=self.guest,
            least=self.sent.least_read_bytes,
        )
        return float(read) / (1 << 20)

    def remove(self) -> None:
        """Harmless when all is gone."""
        for path in self.made:
            self.agent.call("volumes.base.remove", timeout_s=_CALL_TIMEOUT_S, path=str(path))

    def _boot_from(self, files: tuple[Path, ...]) -> None:
        self.files = files
        if self.system.firmware == "none":
            kernel, initrd, *root = files
            self.boot = KernelBoot(kernel, initrd, self._root(root[0]) if root else None)
            return
        self.boot = FirmwareBoot(self._root(files[0]), self._uefi())

    def _root(self, disk: Path) -> DiskImage:
        return DiskImage(self._overlay(disk), "qcow2")

    def _uefi(self) -> Path | None:
        return require_uefi(self.agent, _CALL_TIMEOUT_S) if self.system.firmware == "ovmf" else None

    def _overlay(self, disk: Path) -> Path:
        """A disk of the guest's own over the system's."""
        overlay, uid = self.folder / f"{self.guest}.system.qcow2", self.host.guest_uid
        self.made.append(overlay)
        self.agent.call("basics.make_folder", timeout_s=_CALL_TIMEOUT_S, path=str(self.folder), uid=uid)
        self.agent.call(
            "volumes.overlay.create",
            timeout_s=_CALL_TIMEOUT_S,
            base=str(disk),
            base_format="raw",
            target=str(overlay),
            uid=uid,
            cluster_size_kib=self.settings.cluster_size_kib,
            extended_l2=False,
            preallocation="off",
        )
        return overlay

    def _fetch(self, address: str, port: int, number: int, copy: Path) -> int:
        self.agent.call("basics.make_folder", timeout_s=_CALL_TIMEOUT_S, path=str(self.folder), uid=self.host.guest_uid)
        return int(
            self.agent.call(
                "image_server.fetch",
                timeout_s=_FETCH_TIMEOUT_S,
                address=address,
                port=port,
                number=number,
                target=str(copy),
            )
        )


def _digest(agent: AgentLink, path: Path) -> str | None:
    found = agent.call("basics.sha256_of_file", timeout_s=_FETCH_TIMEOUT_S, path=str(path))
    return None if found is None else str(found)
