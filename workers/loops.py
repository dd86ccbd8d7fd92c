"""Loop devices by the file behind them.

Files are known by device and inode: the path that the kernel tells is another one in each mount namespace.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO64_BYTES = 232
_COMMAND_TIMEOUT_S = 10.0


def loops_of(path: Path) -> list[str]:
    """Devices (`/dev/loop3`) whose file is `path` or lies under it."""
    files = set(_files(path))
    return [device for device, file in _attached() if file in files] if files else []


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
