"""What is physically possible: what a limit is, and the terms that limits are made of.

`farm.analysis.bounds` has the limit of each figure. Every term is known where the figure was measured, or it is left
out, so that the bound is weaker and still true.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from farm.analysis.rules import PROBES_NEEDED
from scenarios.contract import Direction
from scenarios.probes import KINDS, PLACES, ProbeName

Place = tuple[ProbeName, str, str | None]  # kind, where, and the other end of a link


class NoLimit(Exception):
    """Why nothing is known that bounds a figure: one line for people."""


@dataclass(frozen=True)
class Limit:
    """In the metric's unit: the least it can be, or the most. `why` says what it is made of."""

    value: float
    better: Direction
    why: str

    def share(self, value: float) -> float:
        """How much of what is possible a value reached: 1 is all of it, and more cannot be."""
        if self.better == "higher":
            return value / self.value
        return self.value / value if value > 0 else math.inf


@dataclass(frozen=True)
class Term:
    """A number that limits are made of, and what pages call it."""

    value: float
    told: str


@dataclass(frozen=True)
class Circumstances:
    """What is known of a figure besides its value; what is not known is missing.

    `params` are all of the scenario's, `hosts` by role, `beside` the other metrics of the same cells, `cores` and
    `best` what the hosts have and can do, `replicas` on how many disks the revision stores everything, `disks` how
    many the store has, `cache` and `cluster_kib` how the revision's guests have their disks.
    """

    params: Mapping[str, str]
    hosts: Mapping[str, str]
    beside: Mapping[str, float]
    cores: Mapping[str, int]
    best: Mapping[Place, float]
    replicas: int | None
    base_mib: float | None
    disks: int | None = None
    cache: str | None = None
    cluster_kib: int | None = None

    def probed(self, kind: ProbeName, at: str, to: str | None = None) -> Term:
        """The best that was probed there; raises NoLimit."""
        found = self.best.get((kind, at, to))
        if not found:
            place = " to ".join(PLACES.get(end, end) for end in (at, to) if end is not None)
            raise NoLimit(f"{kind} of {place} was not probed {PROBES_NEEDED} times since the facts last changed")
        return Term(found, f"{kind} {found:.0f} {KINDS[kind].unit}")

    def host(self, role: str) -> str:
        """The host in this role; raises NoLimit."""
        if role not in self.hosts:
            raise NoLimit(f"no host is told as {role}")
        return self.hosts[role]

    def measured(self, metric: str) -> float:
        """The median of another metric of the same cells, which is not nothing; raises NoLimit."""
        found = self.beside.get(metric)
        if not found:
            raise NoLimit(f"{metric} is not known")
        return found

    def count(self, param: str) -> int:
        """A parameter that is a number and not 0; raises NoLimit."""
        found = count_of(self.params.get(param))
        if not found:
            raise NoLimit(f"{param} is not known")
        return found


def best_of(probes: Iterable[tuple[Place, float]]) -> dict[Place, float]:
    """The best value of each place that was probed often enough.

    A busy moment makes a probe worse, and nothing makes it better than it is.
    """
    found: dict[Place, list[float]] = {}
    for place, value in probes:
        found.setdefault(place, []).append(value)
    enough = {place: values for place, values in found.items() if len(values) >= PROBES_NEEDED}
    return {
        place: max(values) if KINDS[place[0]].better == "higher" else min(values) for place, values in enough.items()
    }


def count_of(value: object) -> int | None:
    """A number that a worker wrote, which need not be one; None for nothing and nonsense."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) else None
