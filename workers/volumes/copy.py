"""A disk as a full copy of the base: every block read, written and on stable storage."""

import os
import time
from pathlib import Path

from scenarios.contract import WorkNotProven
from workers.operations import operation
from workers.volumes.base import bytes_in_common, extents_of, hand_over, require_room

FORMAT = "raw"
_CHUNK_BYTES = 1 << 20


@operation
def create(base: str, target: str, uid: int) -> float:
    """Make the disk `target`; returns the seconds from the first read until all is on stable storage.

    Raises as `require_room` does.
    """
    require_room(os.stat(base).st_size, Path(target).parent, beside=[Path(base)])
    started = time.monotonic()
    # read and write, since the kernel's own copying calls share blocks where the file system can
    with Path(base).open("rb", buffering=0) as source, Path(target).open("xb", buffering=0) as disk:
        while chunk := source.read(_CHUNK_BYTES):
            disk.write(chunk)
        os.fsync(disk.fileno())
    took_s = time.monotonic() - started
    hand_over(Path(target), uid)
    return took_s


@operation
def prove_sharing(base: str, path: str) -> str:
    """Evidence that it is a copy: all of it allocated, no block the base's; raises WorkNotProven."""
    extents = extents_of(Path(path))
    common = bytes_in_common(extents, extents_of(Path(base)))
    shared = sum(extent.length for extent in extents if extent.shared)
    if common or shared:
        raise WorkNotProven(f"no full copy: {max(common, shared) >> 10} KiB of its blocks are shared with other files")
    size, allocated = os.stat(base).st_size, os.stat(path).st_blocks * 512
    if allocated < size:
        raise WorkNotProven(f"no full copy: {allocated >> 10} KiB allocated for {size >> 10} KiB")
    return f"full copy: {allocated >> 20} MiB allocated, none of it shared"
