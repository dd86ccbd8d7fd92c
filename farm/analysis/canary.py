"""The canary's own series: one frozen build over the sessions of one cluster. Where it steps, the host changed.

Such a step is a finding of kind environment and never a check-in's: a check-in is judged by differences
within blocks, which a change of the host between sessions does not touch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farm.analysis.rules import CANARY_SESSIONS_NEEDED, Estimate
from farm.analysis.student import two_sided_p

_SIDE = 2  # sessions that a level needs on each side of a step


@dataclass(frozen=True)
class Step:
    """The strongest step: `index` is the first session of the new level; `estimate.p_value` counts all places."""

    index: int
    estimate: Estimate


def strongest_step(values: Sequence[float]) -> Step | None:
    """Where a series of session values (logarithms, in time order) most likely changes its level.

    The p value is multiplied by the number of places that were tried (Bonferroni). None below four sessions.
    """
    places = range(_SIDE, len(values) - _SIDE + 1)
    if len(values) < CANARY_SESSIONS_NEEDED:
        return None
    steps = [Step(index, _split(np.asarray(values, dtype=float), index, len(places))) for index in places]
    return min(steps, key=lambda step: (step.estimate.p_value or 0.0, step.index))


def _split(values: NDArray[np.float64], index: int, places: int) -> Estimate:
    """Student's two-sample t of the values from `index` on against those before."""
    before, after = values[:index], values[index:]
    freedom = len(values) - 2
    squares = float(np.sum((before - before.mean()) ** 2) + np.sum((after - after.mean()) ** 2))
    se = float(np.sqrt(squares / freedom * (1 / len(before) + 1 / len(after))))
    effect = float(after.mean() - before.mean())
    p_value = min(1.0, places * two_sided_p(effect, se, freedom))
    return Estimate(effect, se, float(freedom), min(len(before), len(after)), p_value)
