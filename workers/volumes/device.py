"""The device under a folder's file system, as the kernel counts what it does: operations of a host's agent."""

import os
from pathlib import Path

from workers.operations import operation

_SECTOR_BYTES = 512  # of the kernel's counters, whatever the device's own are
_SECTORS_WRITTEN = 6


@operation
def written_bytes(folder: str) -> int | None:
    """Bytes ever written to the device; None where its file system (btrfs, ZFS) hides which one it is."""
    number = os.stat(folder).st_dev
    try:
        counters = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
    except FileNotFoundError:
        return None
    return int(counters[_SECTORS_WRITTEN]) * _SECTOR_BYTES
