"""Revisions against their parents: differences within blocks, and what they must not depend on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from farm.analysis.blocks import BlockTable, Difference, Measured, block_table, difference
from farm.analysis.rules import interval

SESSIONS = ("s1", "s2", "s2", "s3", "s3")
NAMES = ("canary", "parent", "child")

level = st.floats(-3, 3).map(lambda value: round(value, 6))
tables = st.lists(st.lists(level, min_size=3, max_size=3), min_size=5, max_size=5).map(np.array)
tables_with_gaps = st.lists(st.lists(level | st.just(math.nan), min_size=3, max_size=3), min_size=5, max_size=5).map(
    np.array
)


def judge(logs: NDArray[np.float64], child: str = "child", parent: str = "parent") -> Difference | None:
    return difference(BlockTable(SESSIONS, NAMES, logs), child, parent)


def whole(logs: NDArray[np.float64], child: str = "child", parent: str = "parent") -> Difference:
    found = judge(logs, child, parent)
    assert found is not None
    return found


def same(one: Difference, other: Difference) -> None:
    mine, yours = one.estimate, other.estimate
    assert (mine.n, mine.freedom) == (yours.n, yours.freedom)
    assert mine.effect == pytest.approx(yours.effect, abs=1e-9)
    assert mine.se == pytest.approx(yours.se, abs=1e-9)


def measured(
    value: float, *, session: str = "s1", block: int = 0, round: int = 0, revision: str = "child", valid: bool = True
) -> Measured:
    return Measured(session, block, round, revision, value, valid)


def test_a_pair_alone_is_the_paired_t_test() -> None:
    """With two revisions nobody lends anything, and the textbook's answer comes out."""
    rng = np.random.default_rng(1)
    logs = rng.normal(0, 0.1, (5, 2)) + np.array([0.0, 0.3])
    found = difference(BlockTable(SESSIONS, ("parent", "child"), logs), "child", "parent")
    assert found is not None
    textbook = stats.ttest_rel(logs[:, 1], logs[:, 0])
    bounds = textbook.confidence_interval(0.95)
    assert found.estimate.p_value == pytest.approx(textbook.pvalue)
    assert interval(found.estimate) == pytest.approx((math.exp(bounds.low), math.exp(bounds.high)))
    assert found.estimate.freedom == 4


def test_other_revisions_lend_their_scatter_up_to_a_limit() -> None:
    rng = np.random.default_rng(2)
    freedoms = []
    for revisions in (2, 3, 4, 12):
        names = tuple(f"r{i}" for i in range(revisions))
        found = difference(BlockTable(SESSIONS, names, rng.normal(0, 0.1, (5, revisions))), "r1", "r0")
        assert found is not None
        freedoms.append(found.estimate.freedom)
    assert freedoms == [4, 8, 10, 10]


def test_calm_neighbours_never_shrink_the_scatter_of_a_noisy_pair() -> None:
    rng = np.random.default_rng(3)
    logs = rng.normal(0, 0.001, (5, 6))
    logs[:, 0] = [-0.6, 0.5, -0.4, 0.6, -0.1]
    found = difference(BlockTable(SESSIONS, tuple("cpqrst"), logs), "c", "p")
    assert found is not None
    own = np.std(logs[:, 0] - logs[:, 1], ddof=1) / math.sqrt(5)
    assert found.estimate.se == pytest.approx(own)


@given(tables_with_gaps)
def test_swapping_child_and_parent_inverts_the_ratio(logs: NDArray[np.float64]) -> None:
    one, other = judge(logs), judge(logs, "parent", "child")
    if one is None or other is None:
        assert one is other is None
        return
    assert one.estimate.effect == pytest.approx(-other.estimate.effect, abs=1e-9)
    assert one.estimate.n == other.estimate.n
    assert (one.estimate.se is None) == (other.estimate.se is None)
    if one.estimate.se is not None:
        assert one.estimate.se == pytest.approx(other.estimate.se, abs=1e-9)


@given(tables, st.floats(-5, 5))
def test_the_unit_does_not_matter(logs: NDArray[np.float64], shift: float) -> None:
    """Milliseconds or seconds: a factor on all values changes nothing."""
    same(whole(logs), whole(logs + shift))


@given(tables, st.lists(st.floats(-5, 5), min_size=5, max_size=5))
def test_what_disturbs_a_whole_block_changes_nothing(logs: NDArray[np.float64], moods: list[float]) -> None:
    disturbed = whole(logs + np.array(moods)[:, None])
    same(whole(logs), disturbed)
    assert disturbed.raw == pytest.approx(whole(logs).raw, abs=1e-9)


@given(tables, st.permutations(range(5)))
def test_the_order_of_blocks_does_not_matter(logs: NDArray[np.float64], order: list[int]) -> None:
    shuffled = BlockTable(tuple(SESSIONS[i] for i in order), NAMES, logs[order])
    found = difference(shuffled, "child", "parent")
    assert found is not None
    same(whole(logs), found)
    assert found.per_session == pytest.approx(dict(whole(logs).per_session), abs=1e-9)


@given(tables)
def test_subtracting_the_canary_changes_nothing(logs: NDArray[np.float64]) -> None:
    """Within a block child − parent is what it is, raw and fully corrected."""
    same(whole(logs), whole(logs - logs[:, [0]]))


@given(tables_with_gaps)
def test_only_blocks_with_both_count(logs: NDArray[np.float64]) -> None:
    both = ~np.isnan(logs[:, 1]) & ~np.isnan(logs[:, 2])
    either = ~np.isnan(logs[:, 1]) | ~np.isnan(logs[:, 2])
    found = judge(logs)
    if found is None:
        assert not both.any()
        return
    assert found.estimate.n == both.sum()
    assert found.lost == (either & ~both).sum()
    assert found.estimate.effect == pytest.approx(np.mean(logs[both, 2] - logs[both, 1]), abs=1e-9)


def test_one_block_gives_a_ratio_without_interval() -> None:
    logs = np.full((5, 3), np.nan)
    logs[0] = [0.0, 0.1, 0.4]
    found = whole(logs)
    assert found.estimate.ratio == pytest.approx(math.exp(0.3))
    assert interval(found.estimate) is None
    assert found.estimate.p_value is None


@pytest.mark.parametrize(
    ("steps", "agrees"),
    [
        ((0.3, 0.3, 0.3, 0.3, 0.3), True),
        ((-0.3, -0.3, -0.3, -0.3, -0.3), True),
        ((0.0, 0.3, 0.3, 0.0, 0.0), False),  # one session only
        ((0.0, 0.3, 0.3, 0.3, 0.3), True),  # two of three
        ((0.1, 1.5, 1.5, 0.1, 0.1), False),  # the others far below half the size
        ((-0.3, 0.3, 0.3, -0.1, -0.1), False),
    ],
)
def test_a_difference_agrees_when_two_sessions_show_it(steps: tuple[float, ...], agrees: bool) -> None:
    logs = np.zeros((5, 3))
    logs[:, 2] = steps
    assert whole(logs).agrees is agrees


def test_a_difference_that_the_raw_series_does_not_show_does_not_agree() -> None:
    """Blocks that hold only one of the two are raw evidence too."""
    logs = np.zeros((7, 2))
    logs[:5, 1] = 0.3
    logs[5:, 0], logs[5:, 1] = np.nan, -2.0
    found = difference(BlockTable((*SESSIONS, "s3", "s3"), ("parent", "child"), logs), "child", "parent")
    assert found is not None
    assert found.lost == 2
    assert found.raw < 0 < found.estimate.effect
    assert not found.agrees


def test_rounds_are_averaged_inside_a_block() -> None:
    table = block_table([measured(value, round=i) for i, value in enumerate((10.0, 1000.0, 20.0))])
    assert table.logs == pytest.approx(np.array([[math.log(20)]]))


@pytest.mark.parametrize(
    "spoilt",
    [
        measured(5.0, round=1, valid=False),
        measured(0.0, round=1),
        measured(-1.0, round=1),
    ],
)
def test_a_cell_with_a_round_that_does_not_count_is_not_whole(spoilt: Measured) -> None:
    rounds = [measured(1.0, revision="parent", round=i) for i in range(2)]
    table = block_table([*rounds, measured(5.0), spoilt])
    assert table.revisions == ("child", "parent")
    assert math.isnan(table.logs[0, 0])
    assert table.logs[0, 1] == 0.0


def test_a_cell_that_lacks_a_round_of_its_session_is_not_whole() -> None:
    values = [measured(1.0, revision="parent", round=i) for i in range(2)]
    table = block_table([*values, measured(5.0), measured(7.0, session="s2")])
    assert table.sessions == ("s1", "s2")
    assert math.isnan(table.logs[0, 0])
    assert table.logs[1, 0] == pytest.approx(math.log(7.0))
