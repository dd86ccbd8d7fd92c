"""Fisher's exact test against its own hypergeometric sum."""

from math import comb

import pytest

from farm.analysis.voids import unequal_p


@pytest.mark.parametrize(
    ("lost", "of", "others_lost", "others"), [(5, 5, 0, 10), (0, 5, 0, 10), (2, 5, 1, 10), (0, 5, 9, 10), (3, 6, 3, 6)]
)
def test_unequal_losses(lost: int, of: int, others_lost: int, others: int) -> None:
    drawn, ways = lost + others_lost, comb(of + others, lost + others_lost)
    chances = [comb(of, k) * comb(others, drawn - k) / ways for k in range(max(0, drawn - others), min(of, drawn) + 1)]
    seen = comb(of, lost) * comb(others, others_lost) / ways
    expected = sum(chance for chance in chances if chance <= seen * (1 + 1e-7))
    assert unequal_p(lost, of, others_lost, others) == pytest.approx(expected)
