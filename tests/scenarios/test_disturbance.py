"""A guest's pause and lost work as its heartbeats tell them: made-up guests with a known answer."""

import pytest

from scenarios.contract import Beat
from scenarios.disturbance import brownout_ms, disagreement, guest_stall_ms

BEAT_S = 0.005
STARTED_S, FINISHED_S, END_S = 10.0, 11.0, 14.0


def guest(
    *, paused_s: float = 0.0, slow_until_s: float = STARTED_S, clock_stops: bool = True, rtc: bool = True
) -> list[Beat]:
    """Beats of a guest that checks 1000 pages/s, half of it while slow, and is paused at the end of its move."""
    beats: list[Beat] = []
    pause_at_s, pages, own_s = FINISHED_S - 0.5, 0.0, 0.0
    now_s, rtc_s, rtc_at_s = 8.0, 1, 0.0
    stall_s = 0.001
    while now_s < END_S:
        step_s = BEAT_S
        if pause_at_s <= now_s < pause_at_s + BEAT_S and paused_s:
            step_s += paused_s
            stall_s = 0.001 if clock_stops else paused_s
        own_s += BEAT_S if clock_stops else step_s
        now_s += step_s
        pages += 1000 * BEAT_S * (0.5 if STARTED_S <= now_s < slow_until_s else 1.0)
        if int(now_s) > int(now_s - step_s):
            rtc_s, rtc_at_s = rtc_s + int(now_s) - int(now_s - step_s), own_s - now_s % 1
        told = (rtc_s, round(rtc_at_s * 1e6)) if rtc else (0, 0)
        beats.append(Beat(now_s, len(beats), "n", round(pages), 0, 1, 0, round(stall_s * 1e6), *told))
    return beats


def around(beats: list[Beat]) -> list[Beat]:
    return [beat for beat in beats if beat.at_s >= STARTED_S - 0.5]


@pytest.mark.parametrize("clock_stops", [True, False])
def test_a_pause_is_told_whether_the_guests_clock_hides_it_or_not(clock_stops: bool) -> None:
    told_ms = guest_stall_ms(around(guest(paused_s=0.3, clock_stops=clock_stops)))
    assert told_ms == pytest.approx(300, abs=5)


def test_a_machine_without_a_real_time_clock_tells_nothing() -> None:
    assert guest_stall_ms(around(guest(paused_s=0.3, rtc=False))) is None
    assert guest_stall_ms([]) is None


def test_a_pause_and_slow_work_are_lost_work() -> None:
    assert brownout_ms(guest(), STARTED_S, FINISHED_S) == pytest.approx(0, abs=10)
    assert brownout_ms(guest(paused_s=0.3), STARTED_S, FINISHED_S) == pytest.approx(300, abs=10)
    assert brownout_ms(guest(slow_until_s=12.0), STARTED_S, FINISHED_S) == pytest.approx(1000, abs=60)
    assert brownout_ms(guest(slow_until_s=END_S), STARTED_S, FINISHED_S) == pytest.approx(2000, abs=60)


def test_without_work_before_the_move_no_loss_can_be_told() -> None:
    assert brownout_ms(around(guest())[-10:], STARTED_S, FINISHED_S) is None
    assert brownout_ms([], STARTED_S, FINISHED_S) is None


def test_disagreement_is_longest_against_shortest() -> None:
    assert disagreement(200.0, 300.0, 250.0) == 1.5
    assert disagreement(0.0, 50.0) == 50.0
    assert disagreement(0.1, 0.2) == 1.0
