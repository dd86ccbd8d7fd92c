"""The noise floor recovers a known scatter, and the smallest detectable effect is found as often as promised."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from farm.analysis.blocks import BlockTable, difference
from farm.analysis.noise import Noise, noise_of
from farm.analysis.rules import BLOCKS_NEEDED, DETECTABLE_POWER, FAMILY_ALPHA, NOISE_FREEDOM_NEEDED

LEVEL = FAMILY_ALPHA / 20


def campaign(rng: np.random.Generator, scatter: float, revisions: int = 3, blocks: int = BLOCKS_NEEDED) -> BlockTable:
    """Revisions of different levels in blocks of different mood."""
    logs = rng.normal(0, 0.5, (blocks, 1)) + rng.normal(0, 0.5, revisions) + rng.normal(0, scatter, (blocks, revisions))
    return table(logs)


def table(logs: NDArray[np.float64]) -> BlockTable:
    return BlockTable(tuple(f"s{i // 2}" for i in range(len(logs))), tuple(f"r{i}" for i in range(logs.shape[1])), logs)


def known(aa: list[BlockTable], ordinary: list[BlockTable]) -> Noise:
    found = noise_of(aa, ordinary, LEVEL)
    assert found is not None
    return found


@given(st.floats(0.005, 0.4), st.integers(0, 2**32 - 1))
def test_the_floor_recovers_a_known_variation(scatter: float, seed: int) -> None:
    """Whatever levels and moods are: 800 degrees of freedom know a standard deviation within a seventh, nearly always."""
    rng = np.random.default_rng(seed)
    found = known([], [campaign(rng, scatter) for _ in range(100)])
    assert found.freedom == 800
    assert found.scatter == pytest.approx(scatter, rel=0.15)
    assert found.floor == math.expm1(found.scatter)


@pytest.mark.parametrize("level", [FAMILY_ALPHA, LEVEL, FAMILY_ALPHA / 100])
def test_the_judgement_finds_the_smallest_detectable_effect_as_often_as_promised(level: float) -> None:
    rng = np.random.default_rng(3)
    effect = math.log(Noise(0.05, 100, level, False).detectable)
    found = 0
    for _ in range(1500):
        logs = rng.normal(0, 0.05, (BLOCKS_NEEDED, 3)) + rng.normal(0, 0.2, (BLOCKS_NEEDED, 1))
        logs[:, 1] += effect
        judged = difference(table(logs), "r1", "r0")
        assert judged is not None
        assert judged.estimate.p_value is not None
        found += judged.estimate.p_value <= level
    assert found / 1500 == pytest.approx(DETECTABLE_POWER, abs=0.04)


@pytest.mark.parametrize(
    ("aa", "ordinary", "freedom", "from_aa"),
    [
        (0, 1, 8, False),
        (1, 0, 4, False),  # too few to be relied upon, and yet something
        (1, 2, 20, False),  # not enough alone: all count
        (2, 0, 8, True),
        (2, 5, 8, True),  # enough: the ordinary ones are left out
    ],
)
def test_aa_campaigns_are_used_alone_where_they_know_enough(
    aa: int, ordinary: int, freedom: int, from_aa: bool
) -> None:
    rng = np.random.default_rng(4)
    found = known([campaign(rng, 0.02, 2) for _ in range(aa)], [campaign(rng, 0.3) for _ in range(ordinary)])
    assert (found.freedom, found.from_aa) == (freedom, from_aa)
    assert (found.scatter < 0.05) is (ordinary == 0 or from_aa)


@pytest.mark.parametrize(
    ("scatter", "freedom", "delta", "fit"),
    [
        (0.01, 20, 0.1, True),
        (0.1, 20, 0.1, False),
        (0.1, 20, 1.0, True),
        (0.0, 20, 0.01, True),
        (0.01, NOISE_FREEDOM_NEEDED, 0.1, True),
        (0.01, NOISE_FREEDOM_NEEDED - 1, 0.1, None),
        (0.1, NOISE_FREEDOM_NEEDED - 1, 0.1, None),
    ],
)
def test_fit_is_what_finds_a_change_of_delta(scatter: float, freedom: int, delta: float, fit: bool | None) -> None:
    assert Noise(scatter, freedom, LEVEL, True).fit(delta) is fit


def test_more_comparisons_need_a_larger_effect() -> None:
    alone, many = (Noise(0.03, 20, FAMILY_ALPHA / count, True).detectable for count in (1, 60))
    assert 1.08 < alone < many < 1.25


@pytest.mark.parametrize("logs", [np.zeros((0, 0)), np.zeros((5, 1)), np.zeros((1, 3)), np.full((5, 3), np.nan)])
def test_where_nothing_can_be_told_from_the_mood_there_is_no_noise_to_tell(logs: NDArray[np.float64]) -> None:
    assert noise_of([], [table(logs)], LEVEL) is None
    assert noise_of([], [], LEVEL) is None
