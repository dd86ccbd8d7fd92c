"""From an estimate to a verdict."""

import math

import pytest
from scipy import stats

from farm.analysis.multiplicity import holm
from farm.analysis.rules import FAMILY_ALPHA, Estimate, Verdict, beyond, interval, verdict_of


def estimate(ratio: float, se: float | None, freedom: float | None = 8) -> Estimate:
    return Estimate(math.log(ratio), se, freedom, 5, 0.001)


@pytest.mark.parametrize(
    ("ratio", "se", "p_adjusted", "verdict"),
    [
        (1.5, 0.03, 0.001, "different"),
        (1 / 1.5, 0.03, 0.001, "different"),
        (1.5, 0.03, 0.02, "inconclusive"),  # too many other comparisons
        (1.5, 0.3, 0.001, "inconclusive"),  # the interval holds 1
        (1.0, 0.01, 1.0, "no difference beyond δ"),
        (1.0, 0.05, 1.0, "no difference beyond δ"),
        (1.0, 0.06, 1.0, "inconclusive"),  # the 90 % interval leaves δ
        (1.04, 0.001, 0.0, "no difference beyond δ"),  # sure, and surely too small to matter
        (1.12, 0.001, 0.0, "different"),
    ],
)
def test_verdicts(ratio: float, se: float, p_adjusted: float, verdict: Verdict) -> None:
    assert verdict_of(estimate(ratio, se), p_adjusted, 0.1, FAMILY_ALPHA) == verdict


def test_without_an_interval_there_is_no_verdict() -> None:
    assert verdict_of(Estimate(1.0, None, None, 1, None), 1.0, 0.1, FAMILY_ALPHA) == "not judged"


def test_the_interval_is_students() -> None:
    low, high = stats.t.interval(0.95, 8, loc=math.log(1.2), scale=0.05)
    assert interval(estimate(1.2, 0.05)) == pytest.approx((math.exp(low), math.exp(high)))


@pytest.mark.parametrize(
    ("ratio", "outside"), [(1.0, False), (1.09, False), (1.11, True), (0.95, False), (1 / 1.11, True), (0.9, True)]
)
def test_delta_is_the_same_both_ways(ratio: float, outside: bool) -> None:
    assert beyond(ratio, 0.1) is outside


@pytest.mark.parametrize(
    ("p_values", "share", "adjusted"),
    [
        ([], 1, []),
        ([0.01], 1, [0.01]),
        ([0.01], 2, [0.02]),
        ([0.04, 0.01, 0.03], 1, [0.06, 0.03, 0.06]),
        ([0.01, 0.01], 1, [0.02, 0.02]),
        ([0.6, 0.9], 1, [1.0, 1.0]),
    ],
)
def test_holm(p_values: list[float], share: int, adjusted: list[float]) -> None:
    assert holm(p_values, share) == pytest.approx(adjusted)
