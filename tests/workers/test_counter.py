"""How fast a processor counts: the same whenever it is asked."""

import pytest

from workers import counter


def test_a_processor_counts_at_a_steady_rate() -> None:
    one, other = counter.khz(), counter.khz()
    assert one is not None
    assert other is not None
    assert one == pytest.approx(other, rel=1e-3)
    assert 100_000 < one < 10_000_000


def test_a_processor_without_that_counter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert counter.khz() is None
