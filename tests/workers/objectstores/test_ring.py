"""Rings as files: what is read from one that Swift's format describes, and from such as a hostile revision writes."""

import array
import gzip
import json
import struct
import sys

import pytest

from scenarios.contract import Failed, Unsupported
from workers.objectstores.ring import read_ring, spread

PARTS = 16


def ring_file(rows: list[list[int]], *, disks: int = 4, order: str = sys.byteorder, version: int = 1) -> bytes:
    told = {"part_shift": 28, "replica_count": len(rows), "byteorder": order}
    text = json.dumps({**told, "devs": [None, *({"device": f"d{number}"} for number in range(1, disks + 1))]}).encode()
    arrays = [array.array("H", row) for row in rows]
    if order != sys.byteorder:
        for row in arrays:
            row.byteswap()
    return gzip.compress(
        struct.pack("!4sHI", b"R1NG", version, len(text)) + text + b"".join(row.tobytes() for row in arrays)
    )


ROWS = [[1 + part % 4 for part in range(PARTS)], [1 + (part + 1) % 4 for part in range(PARTS)]]


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_partition_is_on_the_disks_that_the_file_tells(order: str) -> None:
    ring = read_ring(ring_file(ROWS, order=order), 4)
    assert ring.disks_of(0) == ["d1", "d2"]
    assert ring.disks_of(7) == ["d4", "d1"]


def test_names_are_chosen_so_that_no_disk_has_more_than_its_share() -> None:
    ring = read_ring(ring_file(ROWS), 4)
    names = spread(ring, [f"s/{number:04d}" for number in range(8)], [10] * 8, lambda name: sum(name.encode()) % PARTS)
    assert sorted(names) == names
    on = [disk for name in names for disk in ring.disks_of(sum(name.encode()) % PARTS)]
    assert {disk: on.count(disk) for disk in on} == {"d1": 4, "d2": 4, "d3": 4, "d4": 4}


def test_another_format_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="R1NG' 2"):
        read_ring(ring_file(ROWS, version=2), 4)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no gzip",
        ring_file(ROWS)[:60],
        gzip.compress(b"R1NG\0\1\0\0\0\2[]"),
        ring_file([[9] * PARTS]),
        ring_file([[1] * 3]),
        ring_file([]),
    ],
)
def test_a_broken_ring_is_the_stacks_fault(broken: bytes) -> None:
    with pytest.raises(Failed, match="ring cannot be read") as caught:
        read_ring(broken, 4)
    assert caught.value.fault == "stack"
