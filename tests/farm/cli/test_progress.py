"""Progress lines say what runs, how far it is, and a time left that adds up."""

import datetime

import pytest

from farm.cli.progress import SessionView, duration, progress_line, session_left_s, time_left_s

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)


def view(
    name: str, cluster: str, state: str, *, units: int = 4, done: int = 0, total: int = 16, age_s: float = 0
) -> SessionView:
    started = NOW - datetime.timedelta(seconds=age_s) if state in ("running", "done") else None
    finished = NOW if state == "done" else None
    progress = {"done": done, "total": total, "what": "block 1/1 · boot"} if state == "running" else None
    return SessionView(name, cluster, "history", "c", 0, state, units, progress, started, finished)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (600, "10 min"), (5400, "1 h 30 min")],
)
def test_durations_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_running_session_is_extrapolated_from_its_own_pace() -> None:
    assert session_left_s(view("a", "acorn", "running", done=4, age_s=30), 26.0, NOW) == pytest.approx(90)


def test_clusters_on_one_machine_add_up_and_others_run_side_by_side() -> None:
    sessions = [view("a", "acorn", "queued"), view("b", "birch", "queued")]
    together = time_left_s(sessions, {"acorn": "machine", "birch": "machine"}, NOW)
    apart = time_left_s(sessions, {}, NOW)
    assert together == pytest.approx(2 * apart)


def test_finished_sessions_teach_the_pace_of_queued_ones() -> None:
    slow = [view("a", "acorn", "done", age_s=415), view("b", "acorn", "queued")]
    assert time_left_s(slow, {}, NOW) == pytest.approx(4 * 100 + 15)


def test_the_line_names_cluster_step_and_time_left() -> None:
    line = progress_line(
        [view("a", "acorn", "done", age_s=60), view("b", "birch", "running", done=4, age_s=30)], {}, NOW
    )
    assert line == "session 2 of 2: birch · block 1/1 · boot · 4/16 · about 2 min left"


def test_nothing_left_is_said() -> None:
    assert progress_line([view("a", "acorn", "done", age_s=60)], {}, NOW) == "1 of 1 sessions ended"
