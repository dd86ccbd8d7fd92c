"""The physical limits that a session probes between its blocks, so that every figure stands beside what is possible.

A probe does as little as can be done: blocks past all caches, one small write after the other with a flush each,
memory copied to memory, bytes sent and thrown away. Nothing under test takes part in it, and nothing is measured
meanwhile. The best value of an epoch is the limit: a busy moment must not make it look smaller than it is.
"""

from dataclasses import dataclass
from typing import Literal

from scenarios.contract import Direction

ProbeName = Literal[
    "disk read", "disk write", "small read", "small write", "flush", "memory copy", "network", "round trip"
]

STORAGE, OBSERVER = "storage", "observer"  # places that are no hosts: the object store's, and where uploads are made
PLACES = {STORAGE: "the store", OBSERVER: "the upload client"}  # as pages call them
OF_LINKS: tuple[ProbeName, ...] = ("network", "round trip")


@dataclass(frozen=True)
class ProbeKind:
    unit: str
    better: Direction
    title: str


KINDS: dict[ProbeName, ProbeKind] = {
    "disk read": ProbeKind("MiB/s", "higher", "Sequential reads of 1 MiB past all caches"),
    "disk write": ProbeKind("MiB/s", "higher", "Sequential writes of 1 MiB past all caches, the last flush included"),
    "small read": ProbeKind("µs", "lower", "One 4 KiB read past all caches, the quickest of many"),
    "small write": ProbeKind("µs", "lower", "One 4 KiB write past all caches, the quickest of many"),
    "flush": ProbeKind("µs", "lower", "One 4 KiB write and its flush, the quickest of many"),
    "memory copy": ProbeKind("MiB/s", "higher", "Memory copied to memory by all processors"),
    "network": ProbeKind("MiB/s", "higher", "Bytes over parallel TCP connections"),
    "round trip": ProbeKind("µs", "lower", "One byte there and back over TCP, the quickest of many"),
}
