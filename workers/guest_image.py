"""The guests' kernel and initramfs, built from Debian's kernel and `guest/init.c`.

The kernel is unpacked from its self-extracting file: started through its PVH entry it saves every boot the
unpacking, a quarter of the CPU time that a boot under emulation takes.

An image is known by the digest of its content; the same inputs give the same bytes on every machine with the
same compiler. Extra folders of kernel modules, which a stack's recipe may ask for, are packed in, not loaded.
"""

import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from workers.turns import take_turn

_SOURCE = Path(__file__).parent / "guest" / "init.c"
_TOOL_TIMEOUT_S = 120
_TURN_TIMEOUT_S = 600.0
_LZ4_MAGIC = b"\x02\x21\x4c\x18"  # of the legacy frame, which kernels use
_KEPT_IMAGES = 8

# In the order in which they must be loaded
_NETWORK_MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
)
_DISK_MODULES = ("drivers/block/virtio_blk",)


@dataclass(frozen=True)
class GuestImage:
    """A kernel and an initramfs; `digest` is the SHA-256 over both files' contents."""

    kernel: Path
    initrd: Path
    digest: str


def build_guest_image(home: Path, extra_modules: Sequence[str] = ()) -> GuestImage:
    """The image with these extra module folders, from the cache under `home` or built now (seconds, once).

    Raises Failed('stack') for a module folder that the kernel does not have, Failed('farm') for anything else.
    """
    tree = _kernel_tree(home)
    folders = [_module_folder(tree.modules, name) for name in sorted(set(extra_modules))]
    cache = home / "cache" / "guest"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / _key(tree, extra_modules)
    with (cache / "lock").open("w") as lock:
        take_turn(lock, timeout_s=_TURN_TIMEOUT_S, busy="the guest's image")
        image = _read(target)
        if image is None:
            _remove_oldest(cache, keep=_KEPT_IMAGES - 1)
            _build(target, tree, folders)
            image = _read(target)
    if image is None:
        raise Failed("farm", f"the guest image in {target} does not match its own digest right after it was built")
    os.utime(target)
    return image


@dataclass(frozen=True)
class _KernelTree:
    kernel: Path
    modules: Path  # …/lib/modules/<release>/kernel


def _kernel_tree(home: Path) -> _KernelTree:
    root = home / "cache" / "software" / "guest-kernel" / "root"
    kernels = sorted(root.glob("boot/vmlinuz-*"))
    if not kernels:
        raise Failed("farm", f"no guest kernel under {root}: run setup.sh")
    release = kernels[-1].name.removeprefix("vmlinuz-")
    return _KernelTree(kernels[-1], root / "lib" / "modules" / release / "kernel")


def kernel_of(home: Path) -> Path:
    """The guests' kernel as Debian packed it: what boot loaders load. Raises Failed (farm)."""
    return _kernel_tree(home).kernel


def _module_folder(modules: Path, name: str) -> Path:
    folder = modules / name
    if ".." in name.split("/") or not folder.is_dir():
        raise Failed("stack", f"extra_modules: the guests' kernel has no module folder '{name}'")
    return folder


def _key(tree: _KernelTree, extra_modules: Sequence[str]) -> str:
    """SHA-256 over everything that an image is made of, this file included."""
    key = hashlib.sha256()
    for path in (_SOURCE, Path(__file__), tree.kernel):
        key.update(hashlib.sha256(path.read_bytes()).digest())
    key.update("\0".join(sorted(set(extra_modules))).encode())
    return key.hexdigest()


def _read(folder: Path) -> GuestImage | None:
    """The image in `folder` if it is there and undamaged."""
    kernel, initrd = folder / "vmlinux", folder / "initrd"
    try:
        digest = _digest(kernel, initrd)
        wanted = (folder / "digest").read_text()
    except FileNotFoundError:
        return None
    return GuestImage(kernel, initrd, digest) if digest == wanted else None


def _digest(kernel: Path, initrd: Path) -> str:
    digest = hashlib.sha256()
    for path in (kernel, initrd):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _build(target: Path, tree: _KernelTree, folders: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="part-") as text:
        part = Path(text)
        part.chmod(0o755)
        write_initrd(part / "initrd", _entries(part, tree.modules, folders))
        (part / "init").unlink()
        (part / "vmlinux").write_bytes(_unpacked(tree.kernel))
        (part / "digest").write_text(_digest(part / "vmlinux", part / "initrd"))
        if target.exists():  # damaged
            shutil.rmtree(target)
        shutil.copytree(part, target)


def _unpacked(kernel: Path) -> bytes:
    """The ELF image inside a self-extracting kernel that was packed with LZ4, as Debian's are."""
    packed = kernel.read_bytes()
    start = packed.find(_LZ4_MAGIC)
    if start < 0:
        raise Failed("farm", f"{kernel.name} is not packed with LZ4: its ELF image cannot be unpacked")
    done = _run(["lz4", "-dc"], f"unpack {kernel.name}", packed[start:], may_complain=True)
    if not done.startswith(b"\x7fELF"):
        raise Failed("farm", f"what lz4 unpacks from {kernel.name} is not an ELF image")
    return done


def _remove_oldest(cache: Path, *, keep: int) -> None:
    folders = sorted((p for p in cache.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder)


# ---- the initramfs: a gzipped cpio archive ("newc") whose bytes depend on nothing but its contents


@dataclass(frozen=True)
class Entry:
    """A file, folder or device of an initramfs; `mode` says which."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def _entries(part: Path, modules: Path, folders: Sequence[Path]) -> Iterator[Entry]:
    for folder in ("dev", "proc", "modules"):
        yield Entry(folder, stat.S_IFDIR | 0o755)
    yield Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield Entry("init", stat.S_IFREG | 0o755, compile_guest(part / "init"))
    for name, wanted in (("network", _NETWORK_MODULES), ("disk", _DISK_MODULES)):
        for module in wanted:
            data = _stripped(modules / f"{module}.ko")
            yield Entry(_module_path(module), stat.S_IFREG | 0o644, data)
        listed = "".join(f"/{_module_path(module)}\n" for module in wanted)
        yield Entry(f"modules/{name}", stat.S_IFREG | 0o644, listed.encode())
    for extra in folders:
        yield from _tree(extra, f"extra/{extra.relative_to(modules)}")


def _module_path(module: str) -> str:
    return f"modules/{module.rsplit('/', 1)[-1]}.ko"


def _tree(folder: Path, name: str) -> Iterator[Entry]:
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        yield Entry("/".join(parts[:depth]), stat.S_IFDIR | 0o755)
    for path in sorted(folder.rglob("*")):
        inside = f"{name}/{path.relative_to(folder)}"
        if path.is_dir():
            yield Entry(inside, stat.S_IFDIR | 0o755)
        elif path.is_file():
            yield Entry(inside, stat.S_IFREG | 0o644, path.read_bytes())


def compile_guest(program: Path) -> bytes:
    """Compile the guest's program to `program`; its bytes."""
    command = [
        "gcc",
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-static",
        "-pthread",
        "-s",
        "-o",
        str(program),
        str(_SOURCE),
    ]
    _run(command, "compile the guest's init")
    return program.read_bytes()


def _stripped(module: Path) -> bytes:
    """The module without its signature, which the guest would spend milliseconds to check."""
    with tempfile.NamedTemporaryFile(suffix=".ko") as stripped:
        _run(["strip", "--strip-debug", "-o", stripped.name, str(module)], f"strip {module.name}")
        return Path(stripped.name).read_bytes()


def _run(command: Sequence[str], purpose: str, data: bytes = b"", *, may_complain: bool = False) -> bytes:
    """Run a tool on `data`; its standard output. `may_complain`: a bad exit status is the caller's to judge."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed("farm", f"cannot {purpose}: {error}") from None
    if done.returncode and not may_complain:
        raise Failed("farm", f"cannot {purpose}: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout


def write_initrd(path: Path, entries: Iterator[Entry]) -> None:
    """Write an initramfs; the kernel takes several of them one behind the other."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as archive:
        for inode, entry in enumerate(entries, start=1):
            archive.write(_cpio_record(entry, inode))
        archive.write(_cpio_record(Entry("TRAILER!!!", 0), 0))


def _cpio_record(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (
        *(inode, entry.mode, 0, 0, 1, 0, len(entry.data)),  # …, uid, gid, links, mtime, size
        *(0, 0, *entry.device, len(name), 0),  # device it lies on, device it is, name's length, no checksum
    )
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
