"""A disk that all hosts of a cluster reach at the same path, as live migration needs it. It has no base."""

import os
import time
from pathlib import Path

from workers.operations import operation
from workers.volumes.base import hand_over

FORMAT = "raw"


@operation
def create(target: str, uid: int, mib: int) -> float:
    """Make an empty disk of `mib` MiB, all allocated; returns the seconds it took."""
    started = time.monotonic()
    with Path(target).open("xb") as disk:
        os.posix_fallocate(disk.fileno(), 0, mib << 20)
    took_s = time.monotonic() - started
    hand_over(Path(target), uid)
    return took_s
