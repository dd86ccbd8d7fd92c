"""What a share of a limit is, and which of a place's probes is its limit."""

import math

import pytest

from farm.analysis.limits import Limit, Place, best_of


@pytest.mark.parametrize(
    ("limit", "value", "share"),
    [
        (Limit(50.0, "lower", ""), 100.0, 0.5),
        (Limit(50.0, "lower", ""), 25.0, 2.0),
        (Limit(50.0, "lower", ""), 0.0, math.inf),
        (Limit(50.0, "higher", ""), 25.0, 0.5),
        (Limit(50.0, "higher", ""), 0.0, 0.0),
    ],
)
def test_a_share_of_one_is_all_that_is_possible(limit: Limit, value: float, share: float) -> None:
    assert limit.share(value) == share


def test_the_best_is_the_largest_speed_and_the_shortest_flush() -> None:
    disk: Place = ("disk read", "h1", None)
    flush: Place = ("flush", "h1", None)
    probes = [(disk, 5.0), (flush, 90.0), (disk, 7.0), (flush, 80.0), (disk, 6.0)]
    assert best_of([*probes, (flush, 85.0)]) == {disk: 7.0, flush: 80.0}
    assert best_of(probes) == {disk: 7.0}  # of the other too few to know that no moment was busy
