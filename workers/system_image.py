"""Guests' systems as disks that firmware boots.

    small    the same kernel and initramfs that `guest_image` gives the hypervisor directly, behind GRUB
    operator an image of the operator's own, as the cluster's inventory file names it
    debian   systemd, Debian's kernel and initramfs, GRUB and 2 GiB of incompressible data, built from packages
             of the mirror that this machine's apt uses; it answers through a service of its own

An image is known by the digest of its bytes and stays as it was built until what it is made of changes here:
newer packages make no other image. The packages it has are kept beside it. The same packages make the same bytes,
wherever and whenever they are put together.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from scenarios.contract import Failed
from scenarios.crossing import PlannedGuest
from workers import disk_image
from workers.guest_image import GuestImage, compile_guest, kernel_of
from workers.turns import take_turn

_DEBIAN = Path(__file__).parent / "guest" / "debian"
_DEBIAN_PACKAGES = ("systemd-sysv", "udev", "linux-image-cloud-amd64", "initramfs-tools", "zstd")
DEBIAN_ARGUMENTS = "root=/dev/vda2 rw console=ttyS0 quiet net.ifnames=0 panic=-1 init=/usr/local/sbin/farm-init"
_DEBIAN_SUITE = "bookworm"
_DATA_MIB = 2048
_DATA_SEED = 20_251_122
_FREE_MIB = 192
# what tells of the building and not of what was built: the mirror's address, and what was there on the way
_OF_THE_BUILD = ("etc/apt/sources.list", "var/cache/debconf/*-old")
# The bootstrap mounts this machine's /proc and /sys in the folder that it fills. Whoever clears that folder away must
# never meet them: they are in sight of the bootstrap alone, and go with it, however it or we end.
_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
_SMALL_ROOT_MIB = 48
_KEPT = 3  # of each system
_BOOTSTRAP_TIMEOUT_S = 1200.0
_CONVERT_TIMEOUT_S = 600.0
_TURN_TIMEOUT_S = 3000.0  # longer than any of them takes to make
_TOOL_TIMEOUT_S = 60.0
_LEAST_BOOT_BYTES = 1 << 20  # of an image that nobody looked into


@dataclass(frozen=True)
class SystemImage:
    """A disk; `boot_bytes` is the size of the kernel and initramfs in it, which every boot reads.

    `kernel` and `initrd` are the Debian's, beside its disk, for whoever boots it without firmware; `packages` are those
    it was built from, 'name version'.
    """

    system: str
    disk: Path
    digest: str
    boot_bytes: int
    packages: tuple[str, ...] = ()

    @property
    def kernel(self) -> Path:
        return self.disk.with_name("vmlinuz")

    @property
    def initrd(self) -> Path:
        return self.disk.with_name("initrd")


def small_system(home: Path, image: GuestImage) -> SystemImage:
    """The small guest's disk, from the cache under `home` or made now."""
    key = _key("small", image.digest.encode())

    def fill(root: Path) -> int:
        shutil.copyfile(kernel_of(home), root / "boot" / "vmlinuz")
        shutil.copyfile(image.initrd, root / "boot" / "initrd")
        (root / "boot" / "grub" / "grub.cfg").write_text(disk_image.grub_cfg(""))
        return _SMALL_ROOT_MIB

    return _cached(home, "small", key, _from_root(fill))


def debian_system(home: Path) -> SystemImage:
    """The Debian's disk, from the cache under `home` or built now, which takes minutes and needs the mirror."""
    made_of = [path.read_bytes() for path in sorted(_DEBIAN.iterdir())]
    recipe = f"{_DEBIAN_PACKAGES} {DEBIAN_ARGUMENTS} {_DEBIAN_SUITE} {_DATA_MIB} {_DATA_SEED}".encode()
    with tempfile.NamedTemporaryFile() as program:
        answering = compile_guest(Path(program.name))
    key = _key("debian", recipe, answering, *made_of)

    def write(part: Path) -> int:
        boot_bytes = _from_root(lambda root: _fill_debian(root, answering))(part)
        for name in ("vmlinuz", "initrd"):
            shutil.copyfile(part / "root" / "boot" / name, part / "made" / name)
        (part / "made" / "packages").write_text(_packages(part / "root"))
        return boot_bytes

    return _cached(home, "debian", key, write)


def operator_system(home: Path, guest: PlannedGuest) -> SystemImage:
    """The operator's image as a raw disk. Raises Failed (donor) for one that is not what the inventory says."""

    def write(part: Path) -> int:
        copy = part / "given"
        try:
            shutil.copyfile(guest.image, copy)
        except OSError as error:
            raise Failed("donor", f"the operator's guest image: {error}") from None
        if (found := _digest(copy)) != guest.sha256:
            raise Failed("donor", f"{guest.image}: its SHA-256 is {found}, the inventory says {guest.sha256}")
        told = json.loads(_run(["qemu-img", "info", "--output=json", "-f", guest.format, str(copy)], "read the image"))
        if told.get("backing-filename") or "data-file" in told.get("format-specific", {}).get("data", {}):
            raise Failed("donor", f"{guest.image}: refers to another file, which nobody has vouched for")
        convert = ["qemu-img", "convert", "-f", guest.format, "-O", "raw", str(copy), str(part / "made" / "disk.raw")]
        _run(convert, "unpack the operator's guest image", _CONVERT_TIMEOUT_S)
        return _LEAST_BOOT_BYTES

    return _cached(home, "operator", _key("operator", guest.sha256.encode(), guest.format.encode()), write)


def _fill_debian(root: Path, answering: bytes) -> int:
    shutil.rmtree(root / "boot")  # the bootstrap wants an empty folder
    options = [f"--include={','.join(_DEBIAN_PACKAGES)}", "--variant=minbase", "--quiet"]
    spared = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    command = [*_ALONE, "mmdebstrap", *options, *spared, _DEBIAN_SUITE, str(root), _mirror()]
    _run(command, "build the Debian guest", _BOOTSTRAP_TIMEOUT_S, disk_image.REPRODUCIBLY)
    _take_over(root, "vmlinuz-*", "vmlinuz")
    _take_over(root, "initrd.img-*", "initrd")
    (root / "boot" / "grub").mkdir()
    (root / "boot" / "grub" / "grub.cfg").write_text(disk_image.grub_cfg(DEBIAN_ARGUMENTS))
    _add_service(root, answering)
    (root / "etc" / "machine-id").write_text("")  # each guest makes its own
    (root / "etc" / "hostname").write_text("guest\n")
    for path in (path for pattern in _OF_THE_BUILD for path in root.glob(pattern)):
        path.unlink()
    used_mib = _used_mib(root)
    _write_data(root / "srv" / "data")
    return used_mib + _DATA_MIB + _FREE_MIB


def _packages(root: Path) -> str:
    """A line 'name version' for each, in the order of their names."""
    command = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show", "--showformat=${Package} ${Version}\n"]
    return "\n".join(sorted(_run(command, "list the Debian guest's packages").splitlines())) + "\n"


def _take_over(root: Path, pattern: str, name: str) -> None:
    found = sorted((root / "boot").glob(pattern))
    if not found:
        raise Failed("farm", f"the Debian guest has no /boot/{pattern}")
    found[-1].rename(root / "boot" / name)


def _add_service(root: Path, answering: bytes) -> None:
    programs = root / "usr" / "local" / "sbin"
    for name, content in (("farm-guest", answering), ("farm-init", (_DEBIAN / "farm-init").read_bytes())):
        (programs / name).write_bytes(content)
        (programs / name).chmod(0o755)
    units = root / "etc" / "systemd" / "system"
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    for unit in _DEBIAN.glob("*.service"):
        shutil.copyfile(unit, units / unit.name)
        (wanted / unit.name).symlink_to(f"../{unit.name}")
    (units / "serial-getty@ttyS0.service").symlink_to("/dev/null")  # the console is the farm's


def _write_data(path: Path) -> None:
    generator = random.Random(_DATA_SEED)
    with path.open("wb") as file:
        for _ in range(_DATA_MIB):
            file.write(generator.randbytes(1 << 20))


def _used_mib(root: Path) -> int:
    """What the files take in a file system, inodes and all, with some room."""
    sizes = [path.lstat().st_size for path in root.rglob("*")]
    return int(sum(size + 4096 for size in sizes) * 1.15) >> 20


def _mirror() -> str:
    """The one that this machine's own apt uses."""
    layout = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines = _run(["apt-get", "indextargets", "--no-release-info", "--format", layout], "ask apt for its mirror")
    for line in lines.splitlines():
        address, _, place = line.partition(" ")
        if place == f"{_DEBIAN_SUITE} main":
            return address
    raise Failed("farm", f"apt has no source for {_DEBIAN_SUITE} main: add one to /etc/apt/sources.list.d")


# ---- the cache


def _key(system: str, *made_of: bytes) -> str:
    parts = [hashlib.sha256(part).hexdigest() for part in made_of]
    return f"{system}-{hashlib.sha256(f'{disk_image.LAYOUT} {parts}'.encode()).hexdigest()}"


def _from_root(fill: Callable[[Path], int]) -> Callable[[Path], int]:
    """A writer of a disk with GRUB, out of a root folder that `fill` fills and tells the size of."""

    def write(part: Path) -> int:
        root = part / "root"
        (root / "boot" / "grub").mkdir(parents=True)
        root.chmod(0o755)
        root_mib = fill(root)
        disk_image.write_disk(part / "made" / "disk.raw", root, root_mib=root_mib)
        return sum((root / "boot" / name).stat().st_size for name in ("vmlinuz", "initrd"))

    return write


def _cached(home: Path, system: str, key: str, write: Callable[[Path], int]) -> SystemImage:
    """The image of that key; `write(part)` makes `part/made/disk.raw` and says how much every boot reads of it."""
    cache = home / "cache" / "systems"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / key
    with (cache / f"{system}.lock").open("w") as lock:
        take_turn(lock, timeout_s=_TURN_TIMEOUT_S, busy=f"the image of the {system} guest")
        image = _read(folder, system)
        if image is None:
            for left_over in cache.glob(f"part-{system}-*"):  # of a killed process: it is our turn
                shutil.rmtree(left_over)
            _make(folder, system, write)
            _remove_oldest(cache, system)
            image = _read(folder, system)
    if image is None:
        raise Failed("farm", f"the system in {folder} does not match its own digest right after it was built")
    os.utime(folder)
    return image


def _read(folder: Path, system: str) -> SystemImage | None:
    """The image in `folder` if it is there and undamaged."""
    try:
        boot_bytes, *sealed = (folder / "seal").read_text().splitlines()
        if sealed != _digests(folder):
            return None
        packages = (folder / "packages").read_text().splitlines() if (folder / "packages").exists() else []
        return SystemImage(system, folder / "disk.raw", _digest(folder / "disk.raw"), int(boot_bytes), tuple(packages))
    except (FileNotFoundError, ValueError):
        return None


def _digests(folder: Path) -> list[str]:
    """A line for each file but the seal."""
    return [f"{_digest(path)} {path.name}" for path in sorted(folder.iterdir()) if path.name != "seal"]


def _make(folder: Path, system: str, write: Callable[[Path], int]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"part-{system}-") as text:
        made = Path(text) / "made"
        made.mkdir(mode=0o755)
        boot_bytes = write(Path(text))
        (made / "seal").write_text("\n".join([str(boot_bytes), *_digests(made)]) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        made.rename(folder)


def _remove_oldest(cache: Path, system: str) -> None:
    folders = sorted(cache.glob(f"{system}-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-_KEPT]:
        shutil.rmtree(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(
    command: Sequence[str],
    purpose: str,
    timeout_s: float = _TOOL_TIMEOUT_S,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed("farm", f"cannot {purpose}: {error}") from None
    if done.returncode:
        raise Failed("farm", f"cannot {purpose}: {done.stderr.strip()[-300:]}")
    return done.stdout
