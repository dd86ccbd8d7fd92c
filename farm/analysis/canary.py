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
    """`index` is the first session of the new level; `p_value` is the estimate's, times the places tried."""

    index: int
    estimate: Estimate
    p_value: float


def strongest_step(values: Sequence[float]) -> Step | None:
    """Where a series of session values (logarithms, in time order) most likely changes its level.

    The p value is corrected for the number of places tried (Bonferroni). None below four sessions.
    """
    if len(values) < CANARY_SESSIONS_NEEDED:
        return None
    places = range(_SIDE, len(values) - _SIDE + 1)
    series = np.asarray(values, dtype=float)
    steps = [_step(series[:index], series[index:], len(places)) for index in places]
    return min(steps, key=lambda step: (step.p_value, step.index))


def _step(before: NDArray[np.float64], after: NDArray[np.float64], places: int) -> Step:
    """Student's two-sample t, the scatter pooled over both sides."""
    freedom = len(before) + len(after) - 2
    squares = float(np.sum((before - before.mean()) ** 2) + np.sum((after - after.mean()) ** 2))
    se = float(np.sqrt(squares / freedom * (1 / len(before) + 1 / len(after))))
    effect = float(after.mean() - before.mean())
    p_value = two_sided_p(effect, se, freedom)
    estimate = Estimate(effect, se, freedom, min(len(before), len(after)), p_value)
    return Step(len(before), estimate, min(1.0, places * p_value))
