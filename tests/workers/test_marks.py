"""Marks over any history of sessions that begin, end, are killed and are swept."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scenarios.contract import Failed
from workers.agent import AgentLink
from workers.hosts.base import ClusterHosts, Observer, Storage
from workers.marks import SessionMark, guest_prefix, known_prefixes, known_sessions, live_sessions
from workers.sweep import sweep

SESSIONS = st.sampled_from(["aaaaaaaa0000", "aaaaaaaa0000-2", "bbbbbbbb0000"])


class NoObserver:
    """Never asked: a cluster without hosts has nobody to observe."""

    address = ""

    def agent(self, lease: str) -> AgentLink:
        raise AssertionError(lease)


class Marks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        folder = Path(self.scratch.name)
        observer: Observer = NoObserver()
        self.cluster = ClusterHosts("oak", folder, [], observer, Storage(Path("/"), "", ()), "", ())
        self.live: dict[str, SessionMark] = {}
        self.ended: set[str] = set()

    @rule(session=SESSIONS)
    def begin(self, session: str) -> None:
        if session in self.live:
            return
        self.live[session] = SessionMark(self.cluster.folder, session).__enter__()
        self.ended.discard(session)

    @rule(session=SESSIONS)
    def end(self, session: str) -> None:
        if session in self.live:
            self.live.pop(session).__exit__(None, None, None)
            self.ended.add(session)

    @rule(session=SESSIONS)
    def sweep_as(self, session: str) -> None:
        own = session if session in self.live else None
        assert set(sweep(self.cluster, own=own).sessions) == self.ended
        self.ended = set()

    @invariant()
    def what_is_known_is_what_lives_and_what_awaits_a_sweep(self) -> None:
        assert live_sessions(self.cluster.folder) == sorted(self.live)
        assert known_sessions(self.cluster.folder) == sorted({*self.live, *self.ended})
        assert set(known_prefixes(self.cluster.folder)) == {guest_prefix(s) for s in {*self.live, *self.ended}}

    def teardown(self) -> None:
        for mark in self.live.values():
            mark.__exit__(None, None, None)
        self.scratch.cleanup()


TestMarks = Marks.TestCase
TestMarks.settings = settings(max_examples=30, stateful_step_count=15)


def test_two_processes_cannot_hold_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.marks._LOCK_TIMEOUT_S", 0.2)
    with SessionMark(tmp_path, "aaaaaaaa0000"), pytest.raises(Failed, match="at work in another process") as caught:
        SessionMark(tmp_path, "aaaaaaaa0000").__enter__()
    assert caught.value.fault == "farm"


@pytest.mark.parametrize("session", ["", "short", "../../etc/passwd", "a/b/c/d/e/f", "x" * 65, "aaaaaaaa\n"])
def test_a_session_id_is_no_path(tmp_path: Path, session: str) -> None:
    with pytest.raises(Failed, match="is no session's id"):
        SessionMark(tmp_path, session)
