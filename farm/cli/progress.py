"""What the farm is doing, in lines for people: what runs, where, how far, and the time left."""

import datetime
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# before any session has ended here: seconds to deploy and measure one revision in one block, and per session
_GUESS_UNIT_S = 26.0
_GUESS_SESSION_S = 15.0

UNFINISHED = ("queued", "reserved", "running")


@dataclass(frozen=True)
class SessionView:
    """The part of a session's row that progress is told from."""

    id: str
    cluster: str
    purpose: str
    campaign: str
    ordinal: int
    state: str
    units: int  # blocks × builds × rounds
    progress: Mapping[str, Any] | None
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None


def seconds_per_unit(sessions: Sequence[SessionView]) -> float:
    """Mean seconds of one revision in one block, over finished sessions; a guess before there are any."""
    took_s = units = 0.0
    for session in sessions:
        if session.state == "done" and session.started_at and session.finished_at:
            took_s += max(0.0, (session.finished_at - session.started_at).total_seconds() - _GUESS_SESSION_S)
            units += session.units
    return took_s / units if units else _GUESS_UNIT_S


def session_left_s(session: SessionView, unit_s: float, now: datetime.datetime) -> float:
    """Seconds until this session ends, from its own pace once it has one."""
    whole_s = session.units * unit_s + _GUESS_SESSION_S
    if session.started_at is None or session.state != "running":
        return whole_s
    elapsed_s = (now - session.started_at).total_seconds()
    done, total = (int((session.progress or {}).get(key, 0)) for key in ("done", "total"))
    if done and total:
        return max(0.0, elapsed_s * (total - done) / done)
    return max(0.0, whole_s - elapsed_s)


def time_left_s(sessions: Sequence[SessionView], turns: Mapping[str, str], now: datetime.datetime) -> float:
    """Seconds until the queue is empty. `turns` maps a cluster to what it takes turns on: its machine, or itself."""
    unit_s = seconds_per_unit(sessions)
    left_s: dict[str, float] = defaultdict(float)
    for session in sessions:
        if session.state in UNFINISHED:
            left_s[turns.get(session.cluster, session.cluster)] += session_left_s(session, unit_s, now)
    return max(left_s.values(), default=0.0)


def duration(seconds: float) -> str:
    """Seconds as people say them: '40 s', '3 min', '1 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def progress_line(sessions: Sequence[SessionView], turns: Mapping[str, str], now: datetime.datetime) -> str:
    """One line: the running sessions and how far each is, or what is waited for; then the time left in all."""
    unfinished = [session for session in sessions if session.state in UNFINISHED]
    running = [session for session in unfinished if session.state == "running"]
    ended = len(sessions) - len(unfinished)
    if not unfinished:
        return f"{ended} of {len(sessions)} sessions ended"
    left = f"about {duration(time_left_s(sessions, turns, now))} left"
    told = "; ".join(_running(session) for session in running) or "waiting for a cluster"
    return f"session {ended + 1} of {len(sessions)}: {told} · {left}"


def _running(session: SessionView) -> str:
    progress = session.progress or {}
    what = progress.get("what") or "starting"
    far = f" · {progress['done']}/{progress['total']}" if progress.get("total") else ""
    return f"{session.cluster} · {what}{far}"
