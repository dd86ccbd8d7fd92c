"""The constants of the judgement, and how an estimate becomes a verdict. `docs/why/judgement.md` states them all."""

import math
from dataclasses import dataclass
from typing import Literal

from farm.analysis.student import t_quantile

Verdict = Literal["different", "no difference beyond δ", "inconclusive", "not judged"]

ANALYSIS_VERSION = 5

BLOCKS_NEEDED = 5  # whole blocks below which a revision is not judged against its parent
SESSIONS_NEEDED = 2  # independent sessions below which nothing is confirmed
CLUSTER_SESSIONS_NEEDED = 3  # time-matched sessions per cluster below which clusters are not compared
MATCHED_WITHIN_S = 3600.0
CANARY_SESSIONS_NEEDED = 4  # sessions below which the canary's own series is not judged

INTERVAL_LEVEL = 0.95  # of every published interval
EQUIVALENCE_LEVEL = 0.90  # of the interval that must lie within δ: two one-sided tests at 5 %
FAMILY_ALPHA = 0.01  # P(any false "different") over all judged comparisons of one campaign
CLUSTER_FAMILY_ALPHA = 0.05  # the same, over all judged metrics of one build on two clusters
WATCH_ALPHA = 0.05  # the same, while a campaign is still being measured: private, may go away again
LENT = 1.5  # degrees of freedom that other revisions lend to a pair, as a multiple of its own
AGREEMENT = 0.5  # share of the whole effect that a session, and the raw series, must show by themselves

DETECTABLE_POWER = 0.8  # share of campaigns that must find an effect for it to be called detectable
BEYOND_LIMIT = 1.1  # share of what is physically possible above which a session's metric is void: that is our error
PROBES_NEEDED = 3  # below which the best of them may be a busy moment's, and no limit is known
NOISE_FREEDOM_NEEDED = 8  # degrees of freedom below which nobody relies on a scatter: two A/A campaigns of five blocks


@dataclass(frozen=True)
class Estimate:
    """A ratio with its uncertainty, on the scale of natural logarithms.

    `effect` is log(subject ÷ reference). `se` and `freedom` are None where too few values came in to know them.
    """

    effect: float
    se: float | None
    freedom: float | None
    n: int
    p_value: float | None

    @property
    def ratio(self) -> float:
        return math.exp(self.effect)


def interval(estimate: Estimate, level: float = INTERVAL_LEVEL) -> tuple[float, float] | None:
    """The two-sided t interval of the ratio at `level`; None where the uncertainty is not known."""
    if estimate.se is None or estimate.freedom is None:
        return None
    half = t_quantile(0.5 + level / 2, estimate.freedom) * estimate.se
    return math.exp(estimate.effect - half), math.exp(estimate.effect + half)


def beyond(ratio: float, delta: float) -> bool:
    """Whether a ratio lies outside [1/(1+δ), 1+δ]."""
    return abs(math.log(ratio)) > math.log1p(delta)


def verdict_of(estimate: Estimate, p_adjusted: float, delta: float, alpha: float) -> Verdict:
    """The verdict of an estimate that has all its replications.

    "No difference beyond δ" is asked first: a difference that is sure, and surely too small to matter, is
    no difference beyond δ, and its interval says the rest.
    """
    wide, narrow = interval(estimate), interval(estimate, EQUIVALENCE_LEVEL)
    if wide is None or narrow is None:
        return "not judged"
    if not beyond(narrow[0], delta) and not beyond(narrow[1], delta):
        return "no difference beyond δ"
    if not wide[0] <= 1.0 <= wide[1] and p_adjusted <= alpha:
        return "different"
    return "inconclusive"
