"""Cluster against cluster: the same build in time-matched sessions, one value per session, raw.

The unit is the session: blocks of one visit share the host's mood, so taking them for independent would make
intervals far too narrow. Nothing is corrected by the canary, which would remove the very difference.
"""

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from farm.analysis.blocks import BlockTable
from farm.analysis.rules import Estimate
from farm.analysis.student import two_sided_p


def session_values(table: BlockTable, revision: str) -> dict[str, float]:
    """Per session the median over its blocks of the revision's logarithms; sessions without any are left out."""
    if revision not in table.revisions:
        return {}
    found: dict[str, list[float]] = {}
    for session, value in zip(table.sessions, table.logs[:, table.revisions.index(revision)].tolist(), strict=True):
        if not math.isnan(value):
            found.setdefault(session, []).append(value)
    return {session: median(values) for session, values in found.items()}


def welch(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Welch's t on logarithms, one value per session: log(ours ÷ theirs). `n` is the smaller number of sessions.

    The variances may differ: one cluster may be far noisier than the other.
    """
    n = min(len(ours), len(theirs))
    effect = float(np.mean(ours) - np.mean(theirs))
    if n < 2:
        return Estimate(effect, None, None, n, None)
    a, b = (float(np.var(values, ddof=1)) / len(values) for values in (ours, theirs))
    se = math.sqrt(a + b)
    freedom = float(n - 1)
    if se > 0.0:
        freedom = se**4 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    return Estimate(effect, se, freedom, n, two_sided_p(effect, se, freedom))
