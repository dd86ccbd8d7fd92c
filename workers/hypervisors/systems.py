"""What a session's guests boot from, at the same path on all hosts of the cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import System, Unsupported
from scenarios.crossing import OperatorImage, PlannedGuest
from scenarios.recipe import GuestSettings
from workers.agent import AgentLink
from workers.guest_image import build_guest_image
from workers.hypervisors.domain import BOOT_ARGUMENTS
from workers.system_image import DEBIAN_ARGUMENTS, SystemImage, debian_system, operator_system, small_system

UEFI = Path("/usr/share/ovmf/OVMF.fd")
_SEND_TIMEOUT_S = 900.0
_TRIM_TIMEOUT_S = 30.0
_KEPT_IMAGES = 6
_KERNEL_BYTES = 1 << 20  # none is smaller


@dataclass(frozen=True)
class SentSystem:
    """An image on the hosts: a kernel with its initramfs, with or without a disk, or a disk alone."""

    digest: str
    sources: tuple[Path, ...]  # on the worker's machine
    files: tuple[Path, ...]
    least_read_bytes: int  # by a boot that finds nothing in the page cache
    our_arguments: str = BOOT_ARGUMENTS  # of its kernel's command line


class Systems:
    """Built on the worker, brought to where all hosts see them, and kept there for later sessions."""

    def __init__(self, home: Path, agent: AgentLink, folder: Path, operator: PlannedGuest | None) -> None:
        self.operator = operator
        self._home = home
        self._agent = agent
        self._folder = folder
        self._sent: dict[tuple[object, ...], SentSystem] = {}
        self.packages: dict[str, tuple[str, ...]] = {}  # by the digest of a system that was built from some
        self.operator_image: OperatorImage | None = None

    def get(self, system: System, guest: GuestSettings) -> SentSystem:
        """Raises Failed (farm, or stack for settings that cannot be met), and Unsupported."""
        key = (system.name, system.firmware == "none", guest.extra_modules)
        if key not in self._sent:
            self._sent[key] = self._send_system(system, guest)
        return self._sent[key]

    def _send_system(self, system: System, guest: GuestSettings) -> SentSystem:
        if system.name == "small" and system.firmware == "none":
            image = build_guest_image(self._home, guest.extra_modules)
            sources = (image.kernel, image.initrd)
            return SentSystem(image.digest, sources, self._send(image.digest, sources), _KERNEL_BYTES)
        if system.name == "small":
            return self._send_disk(small_system(self._home, build_guest_image(self._home, guest.extra_modules)))
        if system.name == "debian":
            return self._send_debian(debian_system(self._home), system)
        if system.firmware == "none":
            raise Unsupported("what the operator's image boots is known to itself alone: name its firmware")
        disk = operator_system(self._home, self._operators())
        self.operator_image = OperatorImage(self._operators().sha256, disk.digest)
        return self._send_disk(disk, our_arguments="")

    def least_memory_mib(self, system: System) -> int:
        """What the system and its firmware do not start without."""
        if system.name == "operator":
            return self._operators().memory_mib
        if system.name == "debian":
            return 512
        return 256 if system.firmware == "ovmf" else 96

    def _operators(self) -> PlannedGuest:
        if self.operator is None:
            raise Unsupported("the cluster's inventory file names no guest of the operator's")
        return self.operator

    def _send_debian(self, image: SystemImage, system: System) -> SentSystem:
        self.packages[image.digest] = image.packages
        if system.firmware != "none":
            return self._send_disk(image, our_arguments="")
        sources = (image.kernel, image.initrd, image.disk)
        files = self._send(image.digest, sources)
        return SentSystem(image.digest, sources, files, image.boot_bytes, DEBIAN_ARGUMENTS)

    def _send_disk(self, image: SystemImage, our_arguments: str = BOOT_ARGUMENTS) -> SentSystem:
        files = self._send(image.digest, (image.disk,))
        return SentSystem(image.digest, (image.disk,), files, image.boot_bytes, our_arguments)

    def _send(self, digest: str, sources: Sequence[Path]) -> tuple[Path, ...]:
        sent = tuple(self._folder / digest / source.name for source in sources)
        for source, target in zip(sources, sent, strict=True):
            self._agent.send_file(source, target, timeout_s=_SEND_TIMEOUT_S)
        used = sorted({digest, *(system.digest for system in self._sent.values())})
        self._agent.call(
            "hypervisors.images.trim",
            timeout_s=_TRIM_TIMEOUT_S,
            folder=str(self._folder),
            used=used,
            most=_KEPT_IMAGES,
        )
        return sent


def require_uefi(agent: AgentLink, timeout_s: float) -> Path:
    """Where the host has it; raises Unsupported where it has none."""
    if agent.call("basics.sha256_of_file", timeout_s=timeout_s, path=str(UEFI)) is None:
        raise Unsupported(f"host {agent.name} has no UEFI firmware: there is no {UEFI}")
    return UEFI
