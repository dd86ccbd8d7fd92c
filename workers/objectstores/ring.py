"""Swift's ring, read from its file: on which disks a name lands; and names that make disks share the load.

The file is what the code under test wrote: its claims are only used to choose names, and what comes of it is looked up
on the disks. Format 1: gzip of "R1NG", version (2 bytes), length (4 bytes) of a JSON text (devs, part_shift,
replica_count, byteorder), the text, then for each replica the disk's number (2 bytes) of every partition.
"""

import array
import json
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scenarios.contract import Failed, Unsupported

_MOST_BYTES = 64 << 20
_GZIP = 16 + zlib.MAX_WBITS
_MOST_REPLICAS = 16
_TRIES = 256  # names for one segment


@dataclass(frozen=True)
class Ring:
    """Which disks hold a partition: one row for each replica."""

    disks: Sequence[str]
    rows: Sequence[Sequence[int]]

    def disks_of(self, partition: int) -> list[str]:
        return [self.disks[row[partition]] for row in self.rows]


def read_ring(packed: bytes, part_power: int) -> Ring:
    """The ring of 2**part_power partitions.

    Raises Unsupported for a format that is not known, Failed (stack) for one that is broken.
    """
    try:
        content = zlib.decompressobj(_GZIP).decompress(packed, _MOST_BYTES)
        magic, version, length = struct.unpack_from("!4sHI", content)
        if magic != b"R1NG" or version != 1:
            raise Unsupported(f"the store's ring is of format {magic!r} {version}; names can be chosen by R1NG 1 only")
        told = json.loads(content[10 : 10 + length])
        if told["part_shift"] != 32 - part_power or not 1 <= told["replica_count"] <= _MOST_REPLICAS:
            raise ValueError("it is of another size than the settings say")
        row_bytes = 2 << part_power
        places = range(10 + length, 10 + length + told["replica_count"] * row_bytes, row_bytes)
        rows = [array.array("H", content[at : at + row_bytes]) for at in places]
        if told["byteorder"] != sys.byteorder:
            for row in rows:
                row.byteswap()
        ring = Ring([str(disk["device"]) if disk else "" for disk in told["devs"]], rows)
        if any(len(row) < 1 << part_power or max(row) >= len(ring.disks) for row in rows):
            raise ValueError("it has holes")
    except (zlib.error, struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failed("stack", f"the store's ring cannot be read: {str(error)[:200]}") from None
    return ring


def spread(ring: Ring, names: Sequence[str], lengths: Sequence[int], partition_of: Callable[[str], int]) -> list[str]:
    """For each name the same with a suffix, so that the fullest disk has as little as can be when all are stored."""
    load = dict.fromkeys(ring.disks, 0)
    chosen = []
    for name, length in zip(names, lengths, strict=True):
        places = {f"{name}-{salt}": set(ring.disks_of(partition_of(f"{name}-{salt}"))) for salt in range(_TRIES)}
        best = min(places, key=lambda one: sorted((load[disk] for disk in places[one]), reverse=True))
        for disk in places[best]:
            load[disk] += length
        chosen.append(best)
    return chosen
