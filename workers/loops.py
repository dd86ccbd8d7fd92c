"""Loop devices by the file behind them.

Files are known by device and inode: the path that the kernel tells is another one in each mount namespace.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from scenarios.contract import Unsupported

_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO64_BYTES = 232
_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
_CONFIGURATION = struct.Struct("=II 52x I 240x")  # file, block size, flags in its loop_info64
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONTROL, _LOOP_MAJOR, _TRIES = os.makedev(10, 237), 7, 20
_COMMAND_TIMEOUT_S = 10.0


def loops_of(path: Path) -> list[str]:
    """Devices (`/dev/loop3`) whose file is `path` or lies under it."""
    files = set(_files(path))
    return [device for device, file in _attached() if file in files] if files else []


@contextlib.contextmanager
def attached(path: Path, *, direct: bool = False) -> Iterator[str]:
    """The file as a device, until nobody has it open or mounted any more; `direct`: past the page cache.

    Raises Unsupported where this host may have no loop device.
    """
    try:
        with path.open("r+b") as file, open_device(Path("/dev/loop-control"), stat.S_IFCHR, _CONTROL) as control:
            device, handle = _configure(file.fileno(), control, _AUTOCLEAR | (_DIRECT_IO if direct else 0))
    except OSError as error:
        raise Unsupported(f"no loop device can be had here: {error}") from None
    try:
        yield device
    finally:
        os.close(handle)


@contextlib.contextmanager
def open_device(node: Path, kind: int, number: int, flags: int = os.O_RDWR) -> Iterator[int]:
    """A handle of a device; its node is made where nothing makes nodes by itself."""
    if not node.exists():
        os.mknod(node, kind | 0o600, number)
    handle = os.open(node, flags | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _configure(file: int, control: int, flags: int) -> tuple[str, int]:
    """A free device with this file behind it, and a handle that keeps it."""
    for _ in range(_TRIES):
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        device = f"/dev/loop{number}"
        with open_device(Path(device), stat.S_IFBLK, os.makedev(_LOOP_MAJOR, number)) as handle:
            try:
                fcntl.ioctl(handle, _LOOP_CONFIGURE, _CONFIGURATION.pack(file, 0, flags))
            except OSError as error:
                if error.errno == errno.EBUSY:  # somebody else was quicker
                    continue
                raise
            return device, os.dup(handle)
    raise OSError(errno.EBUSY, "every free one is taken by somebody else")


def detach(device: str) -> None:
    """Let go of the device's file; the kernel waits with that while the device is mounted."""
    subprocess.run(["losetup", "--detach", device], capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False)


def _files(path: Path) -> Iterator[tuple[int, int]]:
    """Device and inode of every regular file; others may be removing the folder meanwhile."""
    below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for candidate in below if path.is_dir() else [path]:
        with contextlib.suppress(FileNotFoundError):
            if candidate.is_file() and not candidate.is_symlink():
                status = candidate.stat()
                yield status.st_dev, status.st_ino


def _attached() -> Iterator[tuple[str, tuple[int, int]]]:
    for entry in sorted(Path("/sys/block").glob("loop*/loop")):
        device = f"/dev/{entry.parent.name}"
        try:
            handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # detached meanwhile, or not given to this host
        try:
            information = fcntl.ioctl(handle, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64_BYTES))
            yield device, struct.unpack_from("QQ", information)
        except OSError:
            continue
        finally:
            os.close(handle)
