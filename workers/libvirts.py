"""libvirt as a component: an archive with the daemon of a Debian version and what belongs to it, to be sent to hosts.

Only packages of Debian: a libvirtd is root on a host, and nothing that a check-in's author has written may be that.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from scenarios.recipe import DAEMON
from workers import archives
from workers.debian import Apt

PROGRAM = "usr/sbin/libvirtd"
_ARCHIVE = "libvirt.tar"
_KEPT = (
    PROGRAM,
    "usr/lib/x86_64-linux-gnu/libvirt*.so.0",
    "usr/lib/x86_64-linux-gnu/libvirt/*/*.so",
    "usr/lib/libvirt/*",
    "usr/share/libvirt/cpu_map/*",
)
_DRIVER = "libvirt-daemon-driver-qemu"
_VERSION = re.compile(r"[^=]+=(?:\d+:)?(\d+)\.(\d+)\.(\d+)(?!\d)")


@dataclass(frozen=True)
class Libvirt:
    """An archive with the SHA-256 of its content, and the version that its daemon has to say it is."""

    archive: Path
    digest: str
    pin: str
    version: int  # as libvirt tells it: 9.0.0 is 9000000

    @property
    def told(self) -> str:
        return told(self.version)


def told(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1_000 % 1_000}.{version % 1_000}"


def of_package(pin: str, apt: Apt, target: Path) -> None:
    """Make the archive of a Debian package in the empty folder `target`."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        root = Path(folder)
        packages = apt.unpack(pin, (), root, also=(_DRIVER,))
        if not (root / PROGRAM).is_file():
            raise Failed("stack", f"component {DAEMON}: {pin} has no {PROGRAM}")
        archives.pack(root, target / _ARCHIVE, _KEPT)
    (target / "packages.txt").write_text("".join(f"{package.pin} sha256:{package.sha256}\n" for package in packages))


def read(folder: Path, pin: str) -> Libvirt:
    """What lies in a folder that was made here. Raises Failed (stack) for a version that libvirt cannot have."""
    version = _VERSION.match(pin)
    if version is None:
        raise Failed("stack", f"component {DAEMON}: {pin} is no version of libvirt")
    major, minor, micro = map(int, version.groups())
    made = archives.read(folder / _ARCHIVE)
    return Libvirt(made.archive, made.digest, pin, major * 1_000_000 + minor * 1_000 + micro)
