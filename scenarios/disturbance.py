"""What a move does to the guest, read from its heartbeats: the pause as it felt it, and the work that it lost."""

from collections.abc import Sequence

from scenarios.contract import Beat
from scenarios.survival import STEADY_S

STEADY_SHARE = 0.9  # of the rate before the move: the guest works as it did


def guest_stall_ms(beats: Sequence[Beat]) -> float | None:
    """The longest gap of the guest's ticker, and what its clock hid of it: how far its machine's clock got ahead.

    None where that cannot be told: the real-time clock must have counted before the pause and after it.
    """
    counting = [beat for beat in beats if beat.rtc_s > 0]
    if not counting or counting[-1].rtc_s == counting[0].rtc_s:
        return None
    first, last = counting[0], counting[-1]
    hidden_ms = (last.rtc_s - first.rtc_s) * 1e3 - (last.rtc_at_us - first.rtc_at_us) / 1e3
    return max(beat.stall_us for beat in counting) / 1e3 + max(hidden_ms, 0.0)


def brownout_ms(beats: Sequence[Beat], started_s: float, finished_s: float) -> float | None:
    """Work that is missing from the move's start until the guest works steadily again, in ms of its full work.

    None where the beats do not show what its full work is.
    """
    before = [beat for beat in beats if started_s - STEADY_S <= beat.at_s <= started_s]
    rate = _pages_per_s(before)
    if not rate:
        return None
    end = _steady_again(beats, finished_s, rate)
    done = end.pages_ok - before[-1].pages_ok
    return max((end.at_s - before[-1].at_s - done / rate) * 1e3, 0.0)


def disagreement(*told_ms: float) -> float:
    """The longest of several tales of one pause against the shortest, where 1 ms is the least."""
    return max(1.0, *told_ms) / max(1.0, min(told_ms))


def _steady_again(beats: Sequence[Beat], finished_s: float, rate: float) -> Beat:
    """The first beat after half a second of the move's end or later in which the guest worked at nearly its full rate;
    the last one where it does not get there."""
    after = [beat for beat in beats if beat.at_s >= finished_s]
    for beat in after:
        recent = [one for one in after if beat.at_s - STEADY_S <= one.at_s <= beat.at_s]
        if beat.at_s - after[0].at_s >= STEADY_S and _pages_per_s(recent) >= STEADY_SHARE * rate:
            return beat
    return beats[-1]


def _pages_per_s(beats: Sequence[Beat]) -> float:
    if len(beats) < 2:
        return 0.0
    return (beats[-1].pages_ok - beats[0].pages_ok) / (beats[-1].at_s - beats[0].at_s)
