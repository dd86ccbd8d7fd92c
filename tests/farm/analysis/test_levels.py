"""Levels of one build: two clusters beside each other, and the canary over time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from farm.analysis.blocks import BlockTable
from farm.analysis.canary import strongest_step
from farm.analysis.clusters import session_values, welch

values = st.lists(st.floats(-3, 3).map(lambda value: round(value, 4)), min_size=3, max_size=8)


def test_the_session_is_the_unit() -> None:
    """However many blocks a session has, it has one value: their median."""
    logs = np.array([[1.0], [2.0], [9.0], [3.0], [math.nan], [math.nan]])
    table = BlockTable(("s1", "s2", "s2", "s2", "s2", "s3"), ("build",), logs)
    assert session_values(table, "build") == {"s1": 1.0, "s2": 3.0}
    assert session_values(table, "another") == {}


def test_welch_is_the_textbooks() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.2, 0.1, 5), rng.normal(0, 0.02, 8)
    found, textbook = welch(list(ours), list(theirs)), stats.ttest_ind(ours, theirs, equal_var=False)
    assert found.p_value == pytest.approx(textbook.pvalue)
    assert found.freedom == pytest.approx(textbook.df)
    assert found.n == 5


@given(values, values)
def test_swapping_clusters_inverts_the_ratio(ours: list[float], theirs: list[float]) -> None:
    one, other = welch(ours, theirs), welch(theirs, ours)
    assert one.effect == pytest.approx(-other.effect)
    assert one.se == pytest.approx(other.se)
    assert one.p_value == pytest.approx(other.p_value)


def test_one_session_gives_a_ratio_without_interval() -> None:
    found = welch([0.5], [0.2])
    assert found.effect == pytest.approx(0.3)
    assert found.se is None


@pytest.mark.parametrize("sessions", range(4))
def test_a_canary_of_few_sessions_is_not_judged(sessions: int) -> None:
    assert strongest_step([float(i) for i in range(sessions)]) is None


def test_a_step_of_the_canary_is_found_where_it_is() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(0, 0.03, 12)
    series[7:] += 0.4
    step = strongest_step(list(series))
    assert step is not None
    assert step.index == 7
    assert step.p_value < 1e-4
    assert step.estimate.ratio == pytest.approx(math.exp(0.4), rel=0.1)


def test_one_bad_session_is_no_step() -> None:
    rng = np.random.default_rng(3)
    series = rng.normal(0, 0.03, 12)
    series[6] += 1.0
    step = strongest_step(list(series))
    assert step is not None
    assert step.p_value > 0.01


def test_trying_all_places_is_paid_for() -> None:
    """Of 400 calm canaries no more than the level promises seem to step."""
    rng = np.random.default_rng(4)
    found = [strongest_step(list(rng.normal(0, 0.05, 10))) for _ in range(400)]
    assert sum(step is not None and step.p_value <= 0.05 for step in found) <= 0.05 * 400
