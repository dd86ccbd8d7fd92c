"""Ratios of interleaved pairs, with their 90 % interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Ratio:
    """The geometric mean of first ÷ second over pairs, and its 90 % interval."""

    middle: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.middle:.3f} [{self.low:.3f}, {self.high:.3f}] 90 %, {self.pairs} pairs"

    @property
    def reach(self) -> float:
        """Half the interval's width as a share: 0.05 means within 5 %."""
        return math.sqrt(self.high / self.low) - 1


@dataclass(frozen=True)
class Row:
    """One line of `make bench`."""

    what: str
    figure: str
    target: str
    met: bool

    def __str__(self) -> str:
        return f"{self.what:44} {self.figure:52} {self.target:34} {'met' if self.met else 'MISSED'}"


def ratio_of(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """`pairs` are (first, second), at least two of them, all above 0."""
    logs = [math.log(first / second) for first, second in pairs]
    middle = statistics.fmean(logs)
    reach = float(stats.t.ppf(0.95, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), len(logs))
