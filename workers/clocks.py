"""Clocks of hosts against the observer's: how far apart, how sure that is, and whether one has jumped meanwhile."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from workers.agent import AgentLink

Told = TypeVar("Told", int, float)

_TRIES, _MOMENT_S = 5, 10e-6
_MOST_DRIFT = 500e-6  # no clock that is kept by NTP, or kept by nobody, runs faster or slower than that
SURE_BOUNDS = 3  # an interval between two clocks must be so many times their bound to mean anything


@dataclass(frozen=True)
class Clock:
    """A host's monotonic clock is `ahead_s` of the observer's, give or take `bound_s`; found at `at_s` of ours."""

    ahead_s: float
    bound_s: float
    at_s: float


def at_one_moment(clock: Callable[[], Told]) -> tuple[float, Told]:
    """The monotonic clock and another at one moment: on a busy host something may come in between."""
    quickest: tuple[float, float, Told] | None = None
    for _ in range(_TRIES):
        before_s, told, after_s = time.monotonic(), clock(), time.monotonic()
        if quickest is None or after_s - before_s < quickest[0]:
            quickest = after_s - before_s, (before_s + after_s) / 2, told
        if quickest[0] < _MOMENT_S:
            break
    assert quickest is not None  # it was tried
    return quickest[1:]


def compare(host: "AgentLink", observer: "AgentLink") -> Clock:
    ahead_s, bound_s = host.clock_offset_s()
    observer_ahead_s, observer_bound_s = observer.clock_offset_s()
    return Clock(ahead_s - observer_ahead_s, bound_s + observer_bound_s, time.monotonic())


def jump_s(before: Clock, after: Clock) -> float | None:
    """How far a clock has jumped; None where drift and the errors of both comparisons explain the difference."""
    moved_s = after.ahead_s - before.ahead_s
    explained_s = before.bound_s + after.bound_s + _MOST_DRIFT * (after.at_s - before.at_s)
    return moved_s if abs(moved_s) > explained_s else None


def told_jumps(jumps_s: Mapping[str, float]) -> dict[str, str]:
    """By host, as the reason of a void sample."""
    return {host: f"the clock of host {host} jumped by {jump * 1e3:.4g} ms" for host, jump in jumps_s.items()}
