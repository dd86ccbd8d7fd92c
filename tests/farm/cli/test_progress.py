"""Progress lines say what runs, how far it is, and a time left that adds up and comes from more than one step."""

import datetime

import pytest

from farm.cli.progress import SessionView, Span, progress_line, session_left, span_told, time_left

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)


def view(
    name: str, cluster: str, state: str, *, asked: str = "all", steps: int = 16, done: int = 0, age_s: float = 0
) -> SessionView:
    started = NOW - datetime.timedelta(seconds=age_s) if state in ("running", "done") else None
    finished = NOW if state == "done" else None
    progress = {"done": done, "total": steps, "what": "block 1/1 · boot"} if state == "running" else None
    return SessionView(name, cluster, "history", "c", 0, state, asked, steps, progress, started, finished)


@pytest.mark.parametrize(
    ("least_s", "most_s", "told"),
    [
        (0, 0, "less than 1 min"),
        (30, 100, "less than 2 min"),
        (720, 1080, "about 12 to 18 min"),
        (600, 600, "about 10 min"),
        (3000, 5400, "about 50 min to 1 h 30 min"),
        (4800, 7500, "about 1 h 20 min to 2 h 5 min"),
    ],
)
def test_spans_are_told_as_people_say_them(least_s: float, most_s: float, told: str) -> None:
    assert span_told(Span(least_s, most_s)) == told


def test_a_session_takes_what_others_took_that_asked_the_same() -> None:
    past = [view("a", "acorn", "done", age_s=320), view("b", "acorn", "done", age_s=640)]
    other = [view("c", "acorn", "done", asked="sweep", age_s=6400)]
    left = session_left(view("d", "acorn", "queued"), [*past, *other], NOW)
    assert 0.8 * 320 < left.least_s < 320
    assert 640 < left.most_s < 1.3 * 640


@pytest.mark.parametrize("age_s", [1, 60, 600])
def test_the_first_step_of_a_session_changes_no_figure(age_s: float) -> None:
    past = [view("a", "acorn", "done", age_s=320)]
    begun, later = (view("b", "acorn", "running", done=1, age_s=age) for age in (0, age_s))
    assert session_left(begun, past, NOW) == session_left(later, past, NOW)
    assert session_left(begun, [], NOW) == session_left(later, [], NOW)


def test_without_a_past_a_session_goes_on_at_the_pace_of_its_steps_so_far() -> None:
    left = session_left(view("a", "acorn", "running", done=4, age_s=400), [], NOW)
    assert left.least_s < 1200 < left.most_s
    assert left.most_s < 2 * 1200


def test_clusters_on_one_machine_add_up_and_others_run_side_by_side() -> None:
    sessions = [view("a", "acorn", "queued"), view("b", "birch", "queued")]
    together = time_left(sessions, {"acorn": "machine", "birch": "machine"}, NOW)
    apart = time_left(sessions, {}, NOW)
    assert together == pytest.approx((2 * apart.least_s, 2 * apart.most_s))


def test_the_line_names_cluster_step_and_time_left() -> None:
    line = progress_line(
        [view("a", "acorn", "done", age_s=320), view("b", "birch", "running", done=4, age_s=30)], {}, NOW
    )
    assert line == "session 2 of 2: birch · block 1/1 · boot · 4/16 · about 3 to 6 min left"


def test_nothing_left_is_said() -> None:
    assert progress_line([view("a", "acorn", "done", age_s=60)], {}, NOW) == "1 of 1 sessions ended"
