"""What the farm is doing, in lines for people: what runs, where, how far, and the time left."""

import datetime
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

UNFINISHED = ("queued", "reserved", "running")
_STEPS_THAT_TELL = 4  # of a running session: below that one slow step would be the whole figure


class Span(NamedTuple):
    """Seconds, at least and at most."""

    least_s: float
    most_s: float

    def times(self, factor: float) -> "Span":
        return Span(self.least_s * factor, self.most_s * factor)


# before any session has ended here: to deploy and to measure one scenario once, and what a session takes besides
_GUESS_STEP = Span(4.0, 15.0)
_BESIDES = Span(5.0, 40.0)
# no two sessions are alike: what is to come may leave what has been by this much
_MARGIN = Span(0.9, 1.15)
_OWN_MARGIN = Span(0.75, 1.5)


@dataclass(frozen=True)
class SessionView:
    """The part of a session's row that progress is told from. `asked` are its scenarios, `steps` how often in all."""

    id: str
    cluster: str
    purpose: str
    campaign: str
    ordinal: int
    state: str
    asked: str
    steps: int  # blocks × builds × rounds × scenarios
    progress: Mapping[str, Any] | None
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None

    @property
    def steps_done(self) -> int:
        return int((self.progress or {}).get("done", 0)) if self.state == "running" else 0


def step_span(session: SessionView, sessions: Sequence[SessionView], now: datetime.datetime) -> Span:
    """What a step of this session takes: as in sessions that asked the same, else as its own steps, else as in any."""
    alike = [one for one in sessions if one.asked == session.asked]
    if past := _past_steps_s(alike):
        return Span(min(past) * _MARGIN.least_s, max(past) * _MARGIN.most_s)
    if session.started_at is not None and session.steps_done >= _STEPS_THAT_TELL:
        return _OWN_MARGIN.times((now - session.started_at).total_seconds() / session.steps_done)
    past = _past_steps_s(sessions)
    return Span(min(past) * _OWN_MARGIN.least_s, max(past) * _OWN_MARGIN.most_s) if past else _GUESS_STEP


def _past_steps_s(sessions: Sequence[SessionView]) -> list[float]:
    """Seconds a step took in each session that has ended well."""
    return [
        (one.finished_at - one.started_at).total_seconds() / one.steps
        for one in sessions
        if one.state == "done" and one.started_at and one.finished_at and one.steps
    ]


def session_left(session: SessionView, sessions: Sequence[SessionView], now: datetime.datetime) -> Span:
    """Until this session ends."""
    step = step_span(session, sessions, now).times(max(0, session.steps - session.steps_done))
    return Span(step.least_s + _BESIDES.least_s, step.most_s + _BESIDES.most_s)


def time_left(sessions: Sequence[SessionView], turns: Mapping[str, str], now: datetime.datetime) -> Span:
    """Until the queue is empty. `turns` maps a cluster to what it takes turns on: its machine, or itself."""
    left: dict[str, Span] = defaultdict(lambda: Span(0.0, 0.0))
    for session in sessions:
        if session.state in UNFINISHED:
            turn = turns.get(session.cluster, session.cluster)
            more = session_left(session, sessions, now)
            left[turn] = Span(left[turn].least_s + more.least_s, left[turn].most_s + more.most_s)
    return Span(
        max((one.least_s for one in left.values()), default=0.0),
        max((one.most_s for one in left.values()), default=0.0),
    )


def span_told(span: Span) -> str:
    """As people say it: 'less than 2 min', 'about 12 to 18 min', 'about 1 h 20 min to 2 h 5 min'."""
    least, most = int(span.least_s // 60), math.ceil(span.most_s / 60)
    if least == 0:
        return f"less than {max(most, 1)} min"
    if most < 90:
        return f"about {least} to {most} min" if least < most else f"about {most} min"
    return f"about {_hours(least)} to {_hours(most)}"


def _hours(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def progress_line(sessions: Sequence[SessionView], turns: Mapping[str, str], now: datetime.datetime) -> str:
    """One line: the running sessions and how far each is, or what is waited for; then the time left in all."""
    unfinished = [session for session in sessions if session.state in UNFINISHED]
    running = [session for session in unfinished if session.state == "running"]
    ended = len(sessions) - len(unfinished)
    if not unfinished:
        return f"{ended} of {len(sessions)} sessions ended"
    left = f"{span_told(time_left(sessions, turns, now))} left"
    told = "; ".join(_running(session) for session in running) or "waiting for a cluster"
    return f"session {ended + 1} of {len(sessions)}: {told} · {left}"


def _running(session: SessionView) -> str:
    progress = session.progress or {}
    what = progress.get("what") or "starting"
    far = f" · {progress['done']}/{progress['total']}" if progress.get("total") else ""
    return f"{session.cluster} · {what}{far}"
