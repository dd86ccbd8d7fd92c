"""A disk as a reflink: the file system makes a second file of the same blocks, and copies each on first write."""

import errno
import fcntl
import os
import time
from pathlib import Path

from scenarios.contract import Unsupported, WorkNotProven
from workers.operations import operation
from workers.volumes.base import bytes_in_common, extents_of, hand_over

FORMAT = "raw"
_FICLONE = 0x40049409
_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL)


@operation
def create(base: str, target: str, uid: int) -> float:
    """Make the disk `target`; returns the seconds the file system took. Raises Unsupported."""
    try:
        with Path(base).open("rb") as source, Path(target).open("xb") as disk:
            started = time.monotonic()
            fcntl.ioctl(disk.fileno(), _FICLONE, source.fileno())
            took_s = time.monotonic() - started
    except OSError as error:
        Path(target).unlink(missing_ok=True)
        if error.errno in _CANNOT:
            raise Unsupported(f"the file system cannot share blocks between files: {error.strerror}") from None
        raise
    hand_over(Path(target), uid)
    return took_s


@operation
def prove_sharing(base: str, path: str) -> str:
    """Evidence that most blocks are still the base's own; raises WorkNotProven."""
    extents = extents_of(Path(path))
    size = os.stat(base).st_size
    common = bytes_in_common(extents, extents_of(Path(base)))
    flagged = sum(extent.length for extent in extents if extent.shared)
    if common < size // 2 or flagged < size // 2:
        raise WorkNotProven(
            f"no reflink of the base: {common >> 20} of {size >> 20} MiB in common, {flagged >> 20} marked shared"
        )
    return f"reflink: {common >> 20} of {size >> 20} MiB are the base's own blocks, marked shared"
