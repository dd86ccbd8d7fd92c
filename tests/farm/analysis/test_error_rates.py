"""What the judgement promises, on simulated campaigns with the noise that was measured. Seeds are fixed."""

import pytest
from scipy import stats

from bench.judgement import NOISES, Plant, simulate
from farm.analysis.rules import FAMILY_ALPHA


def test_a_window_of_five_check_ins_is_240_comparisons() -> None:
    assert simulate(revisions=5, campaigns=1).comparisons == 240


@pytest.mark.parametrize("revisions", [3, 5])
def test_innocent_check_ins_are_not_named(revisions: int) -> None:
    """Under each noise that was met; no more often than chance allows (99 %) at the promised rate."""
    campaigns, noises = 60, ("lognormal", "heavy", "spikes")
    false = sum(simulate(revisions=revisions, campaigns=campaigns, noise=noise).false * campaigns for noise in noises)
    assert false <= stats.binom.ppf(0.99, campaigns * len(noises), FAMILY_ALPHA)


@pytest.mark.parametrize("noise", sorted(NOISES.keys() - {"lognormal", "heavy", "spikes"}))
def test_noise_that_breaks_the_assumptions_stays_bounded(noise: str) -> None:
    assert simulate(revisions=5, campaigns=40, noise=noise).false <= 0.05


@pytest.mark.parametrize("revisions", [3, 5])
@pytest.mark.parametrize("plant", [Plant(1.36, 0.03), Plant(1 / 1.36, 0.06, 3), Plant(2.9, 0.09), Plant(2.9, 0.15)])
def test_planted_changes_are_found(revisions: int, plant: Plant) -> None:
    """A slow boot, also where it is seen in several metrics of more scatter; a slow first write."""
    rates = simulate(revisions=revisions, campaigns=20, plant=plant)
    assert rates.found >= 0.95
