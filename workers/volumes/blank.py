"""An empty disk as large as the base, for a guest's disk that is copied to it from another host as the guest moves."""

import os
import time
from pathlib import Path

from scenarios.contract import WorkNotProven
from workers.operations import operation
from workers.volumes.base import JOURNAL_BYTES, bytes_in_common, extents_of, hand_over

FORMAT = "raw"
_CHUNK_BYTES = 1 << 20


@operation
def create(base: str, target: str, uid: int) -> float:
    """Make the disk `target`; returns the seconds it took."""
    started = time.monotonic()
    with Path(target).open("xb") as disk:
        disk.truncate(os.stat(base).st_size)
    took_s = time.monotonic() - started
    hand_over(Path(target), uid)
    return took_s


@operation
def prove_sharing(base: str, path: str) -> str:
    """Evidence that a copy of the base has arrived, but for the guest's own journal; raises WorkNotProven."""
    if common := bytes_in_common(extents_of(Path(path)), extents_of(Path(base))):
        raise WorkNotProven(f"nothing was copied: {common >> 10} KiB of the disk are blocks of the base here")
    left = os.stat(base).st_size - JOURNAL_BYTES
    with Path(base).open("rb") as wanted, Path(path).open("rb") as found:
        while left > 0:
            bytes_now = min(left, _CHUNK_BYTES)
            if wanted.read(bytes_now) != found.read(bytes_now):
                at = os.stat(base).st_size - JOURNAL_BYTES - left
                raise WorkNotProven(f"the disk was not copied whole: it differs in the MiB at {at >> 20} MiB")
            left -= bytes_now
    return f"all but the last {JOURNAL_BYTES >> 10} KiB, which the guest wrote, were copied as they were"
