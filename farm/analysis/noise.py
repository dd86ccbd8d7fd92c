"""How noisy a metric is on a cluster, and the smallest effect that a check-in's campaign can find through it.

The scatter is what the sum block + revision leaves over within the blocks of each campaign, on logarithms. Where
the canary was deployed beside itself (A/A), nothing but noise can be in it; where that is not known well enough, the
ordinary campaigns' scatter stands in, in which a revision that scatters by itself counts as noise.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr

from farm.analysis.blocks import BlockTable
from farm.analysis.rules import BLOCKS_NEEDED, DETECTABLE_POWER, NOISE_FREEDOM_NEEDED
from farm.analysis.student import t_quantile

_OWN = BLOCKS_NEEDED - 1  # degrees of freedom of a pair; the canary beside it lends as many (rules.LENT allows it)
_GRID = 200  # places at which each of the two scatters is taken: more changes the fourth digit


@dataclass(frozen=True)
class Noise:
    """One metric on one cluster.

    `scatter` is the standard deviation of one block's logarithm, known with `freedom` degrees of freedom; `level`
    the p value at which a campaign calls one comparison different, before any correction. `from_aa` tells where
    the scatter is from: A/A sessions, or an estimate from ordinary ones.
    """

    scatter: float
    freedom: int
    level: float
    from_aa: bool

    @property
    def floor(self) -> float:
        """The noise floor: the coefficient of variation of one block's value; 0.03 is 3 %."""
        return math.expm1(self.scatter)

    @property
    def detectable(self) -> float:
        """The smallest ratio above 1 that `BLOCKS_NEEDED` blocks find with `DETECTABLE_POWER`."""
        return math.exp(_steps_needed(self.level) * self.scatter * math.sqrt(2 / BLOCKS_NEEDED))

    @property
    def known(self) -> bool:
        """Whether enough was measured to rely on the scatter."""
        return self.freedom >= NOISE_FREEDOM_NEEDED

    def fit(self, delta: float) -> bool | None:
        """Whether a change of δ is found; None while the scatter is not known well enough to say so."""
        return self.detectable - 1 <= delta if self.known else None


def noise_of(aa: Iterable[BlockTable], ordinary: Iterable[BlockTable], level: float) -> Noise | None:
    """From one table per campaign; None where no block holds two revisions to tell noise from mood.

    A/A campaigns are used alone where they know enough, and count like any other where they do not.
    """
    alone = _pooled(aa := list(aa))
    squares, freedom = alone if alone[1] >= NOISE_FREEDOM_NEEDED else _pooled([*aa, *ordinary])
    if freedom == 0:
        return None
    return Noise(math.sqrt(squares / freedom), freedom, level, alone[1] >= NOISE_FREEDOM_NEEDED)


def _pooled(tables: Iterable[BlockTable]) -> tuple[float, int]:
    """Sum of squares and degrees of freedom of all campaigns; each has levels of its own."""
    residuals = [table.residual for table in tables]
    return sum(squares for squares, _ in residuals), sum(freedom for _, freedom in residuals)


@cache
def _steps_needed(level: float) -> float:
    """How many standard errors an effect must have to be found with `DETECTABLE_POWER`.

    Integrated over both scatters that the judgement may see, the pair's own and the canary's, because it never
    takes the variance below the pair's own: the textbook's noncentral t would promise 80 % where 70 % are found.
    """
    critical = t_quantile(1 - level / 2, 2 * _OWN)
    chances = (np.arange(_GRID) + 0.5) / _GRID
    variances = gammaincinv(_OWN / 2, chances) / (_OWN / 2)  # chi-squared ÷ its degrees of freedom
    own, lent = np.meshgrid(variances, variances)
    seen = critical * np.sqrt(np.maximum(own, (own + lent) / 2))
    return float(brentq(lambda steps: float(np.mean(ndtr(steps - seen))) - DETECTABLE_POWER, 0.0, 10.0 * critical))
