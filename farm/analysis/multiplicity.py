"""Many comparisons at once: Holm's correction."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float], share: int = 1) -> list[float]:
    """Holm's adjusted p values, in the order given; valid under any dependence between the comparisons.

    `share` further multiplies them: the number of families (clusters of a campaign) that split one error rate,
    so that each can be judged when it is complete without knowing the others.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1) * share
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]
