"""Check-ins read from real git repositories."""

import datetime
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from farm import history
from farm.history import Commit, RepositoryUnusable, fetch_new, new_commits, record, resolve_commit
from farm.results import queries
from farm.results.database import open_database, reading, transact
from farm.results.queries import EVERYTHING
from farm.results.tables import CheckIn, Owner
from farm.settings import RepositorySettings
from scenarios.crossing import revision_of
from tests.helpers.repositories import Repository

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


class Watched:
    """A repository, and what the farm has seen of it."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "tiny")
        self.settings = RepositorySettings("tiny", str(folder / "tiny"))
        self.mirrors = folder / "mirrors"
        self.engine: Engine = open_database(f"sqlite:///{folder / 'farm.sqlite'}")

    def look(self, newest: int = 30) -> list[tuple[int, str]]:
        """One look; returns number and subject of all check-ins so far."""
        with reading(self.engine) as transaction:
            seen = history.seen_commits(transaction, "tiny")
        commits = fetch_new(self.mirrors, self.settings, seen, newest)
        transact(self.engine, lambda tx: record(tx, Owner("local", "local"), "tiny", commits, NOON))
        return [(row.number, row.subject_line) for row in self.rows()]

    def rows(self) -> list[CheckIn]:
        with reading(self.engine) as transaction:
            return list(transaction.scalars(select(CheckIn).order_by(CheckIn.number)))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_check_ins_are_numbered_once_in_their_order(watched: Watched) -> None:
    first = watched.repository.commit("one")
    second = watched.repository.commit("two")
    assert watched.look() == [(1, "one"), (2, "two")]
    assert watched.look() == [(1, "one"), (2, "two")]
    watched.repository.commit("three")
    watched.repository.commit("four")
    assert watched.look() == [(1, "one"), (2, "two"), (3, "three"), (4, "four")]
    rows = watched.rows()
    assert [row.commit for row in rows[:2]] == [first, second]
    assert rows[1].revision == revision_of({"tiny": second})
    assert [row.parent_revision for row in rows] == [None, *(row.revision for row in rows[:-1])]
    assert rows[0].author == "A. Developer"


def test_recording_the_same_commits_again_changes_nothing(watched: Watched) -> None:
    watched.repository.commit("one")
    commits = fetch_new(watched.mirrors, watched.settings, set(), 30)
    for _ in range(2):
        transact(watched.engine, lambda tx: record(tx, Owner("local", "local"), "tiny", commits, NOON))
    assert [(row.number, row.subject_line) for row in watched.rows()] == [(1, "one")]


def test_a_merge_is_one_step(watched: Watched) -> None:
    base = watched.repository.commit("base")
    watched.look()
    watched.repository.git("checkout", "--quiet", "-b", "side")
    watched.repository.commit("side one")
    watched.repository.commit("side two")
    watched.repository.git("checkout", "--quiet", "main")
    watched.repository.git("merge", "--quiet", "--no-ff", "--message", "Merge side", "side")
    assert watched.look() == [(1, "base"), (2, "Merge side")]
    assert watched.rows()[1].parent_revision == revision_of({"tiny": base})


def test_what_a_merge_brought_is_kept_with_it(watched: Watched) -> None:
    base = watched.repository.commit("base")
    watched.repository.git("checkout", "--quiet", "-b", "side")
    one = watched.repository.commit("side one")
    two = watched.repository.commit("side two")
    watched.repository.git("checkout", "--quiet", "main")
    watched.repository.commit("main goes on")
    watched.repository.git("merge", "--quiet", "--no-ff", "--message", "Merge side", "side")
    watched.repository.git("branch", "--quiet", "--delete", "--force", "side")
    watched.look()
    merge = watched.rows()[-1]
    inside = queries.inside_commits(watched.engine, EVERYTHING)
    assert {row.merge for row in inside} == {merge.revision}
    assert [row.brought for row in watched.rows()] == [0, 0, 2]
    assert [(row.commit, row.parents, row.subject_line) for row in inside] == [
        (two, [one], "side two"),
        (one, [base], "side one"),
    ]
    assert inside[0].revision == revision_of({"tiny": two})


def test_a_merge_of_more_than_can_be_searched_stays_one_step(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_INSIDE", 1)
    watched.repository.commit("base")
    watched.repository.git("checkout", "--quiet", "-b", "side")
    watched.repository.commit("side one")
    watched.repository.commit("side two")
    watched.repository.git("checkout", "--quiet", "main")
    watched.repository.git("merge", "--quiet", "--no-ff", "--message", "Merge side", "side")
    assert watched.look() == [(1, "base"), (2, "Merge side")]
    assert queries.inside_commits(watched.engine, EVERYTHING) == []
    assert watched.rows()[-1].brought == 2, "so that pages can say why the finding names no commit inside"


def test_of_a_new_repository_only_the_newest_are_taken(watched: Watched) -> None:
    for number in range(5):
        watched.repository.commit(f"c{number}")
    assert watched.look(newest=2) == [(1, "c3"), (2, "c4")]
    assert watched.rows()[0].parent_revision is None, "what was never seen is nothing to compare with"


def test_a_force_push_keeps_the_old_and_numbers_on(watched: Watched) -> None:
    watched.repository.commit("one")
    gone = watched.repository.commit("two")
    watched.look()
    watched.repository.git("reset", "--quiet", "--hard", "HEAD~1")
    watched.repository.commit("two, better")
    assert watched.look() == [(1, "one"), (2, "two"), (3, "two, better")]
    rows = watched.rows()
    assert rows[2].parent_revision == rows[0].revision
    assert resolve_commit(watched.mirrors, watched.settings, gone) == gone, "the mirror keeps what was seen"

    watched.repository.git("reset", "--quiet", "--hard", gone)
    assert len(watched.look()) == 3, "what was seen before is not new"
    watched.repository.commit("three")
    assert watched.look()[-1] == (4, "three")
    assert watched.rows()[3].parent_revision == rows[1].revision


def test_a_history_of_another_origin_is_taken_like_a_new_repository(watched: Watched) -> None:
    watched.repository.commit("one")
    watched.look()
    watched.repository.git("checkout", "--quiet", "--orphan", "other")
    for number in range(4):
        watched.repository.commit(f"other {number}")
    watched.repository.git("branch", "--quiet", "--force", "main", "other")
    assert watched.look(newest=3) == [(1, "one"), (2, "other 1"), (3, "other 2"), (4, "other 3")]


def test_a_deleted_branch_says_so_and_keeps_what_was_seen(watched: Watched) -> None:
    watched.repository.commit("one")
    watched.look()
    watched.repository.git("branch", "--quiet", "--move", "main", "trunk")
    with pytest.raises(RepositoryUnusable, match="repository tiny: no branch main at "):
        watched.look()
    watched.repository.git("branch", "--quiet", "--move", "trunk", "main")
    assert watched.look() == [(1, "one")]


def test_a_repository_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    settings = RepositorySettings("gone", str(tmp_path / "gone"))
    with pytest.raises(RepositoryUnusable) as unusable:
        fetch_new(tmp_path / "mirrors", settings, set(), 30)
    assert str(unusable.value).startswith(f"repository gone: {tmp_path / 'gone'} does not answer: ")
    assert "\n" not in str(unusable.value)


@pytest.mark.parametrize("url", ["--upload-pack=touch {}/ran;", "ext::sh -c 'touch {}/ran'"])
def test_an_address_runs_nothing(tmp_path: Path, url: str) -> None:
    with pytest.raises(RepositoryUnusable):
        fetch_new(tmp_path / "mirrors", RepositorySettings("evil", url.format(tmp_path)), set(), 30)
    assert not (tmp_path / "ran").exists()


def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pid"
    silent = tmp_path / "silent-ssh"
    silent.write_text(f"#!/bin/sh\necho $$ >{pids}\nexec sleep 300\n")
    silent.chmod(0o700)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(silent))
    slow = RepositorySettings("slow", "ssh://nowhere.example/x")
    with pytest.raises(RepositoryUnusable, match="did not answer within 1 s"):
        fetch_new(tmp_path / "mirrors", slow, set(), 30, answer_timeout_s=1)
    pid = int(pids.read_text())
    give_up_at = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "its helper is ended too"


def test_locks_of_a_killed_fetch_do_not_stop_the_next_one(watched: Watched) -> None:
    watched.repository.commit("one")
    watched.look()
    mirror = watched.mirrors / "tiny.git"
    for name in ("packed-refs.lock", "refs/heads/main.lock"):
        (mirror / name).touch()
    watched.repository.commit("two")
    assert watched.look() == [(1, "one"), (2, "two")]


def test_hooks_of_the_mirror_do_not_run(watched: Watched, tmp_path: Path) -> None:
    watched.repository.commit("one")
    watched.look()
    hook = watched.mirrors / "tiny.git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o700)
    watched.repository.commit("two")
    assert len(watched.look()) == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "subject", ["line\u2028separator \x0b\x85 end", "'; DROP TABLE check_in; --", "x" * 500, "🐿 \x1b[31m"]
)
def test_hostile_subjects_are_kept_as_text(watched: Watched, subject: str) -> None:
    watched.repository.commit(subject)
    watched.look()
    (row,) = watched.rows()
    assert row.subject_line == subject[:200]


def test_times_of_another_age_are_bounded(watched: Watched) -> None:
    tree = watched.repository.git("write-tree")
    text = f"tree {tree}\nauthor A <a@example.com> 99999999999999 +0000\ncommitter A <a@example.com> 99999999999999 +0000\n\nfar\n"
    made = subprocess.run(
        ("git", "hash-object", "-t", "commit", "-w", "--literally", "--stdin"),
        cwd=watched.repository.path,
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    watched.repository.git("update-ref", "refs/heads/main", made.stdout.strip())
    assert watched.look() == [(1, "far")]
    assert watched.rows()[0].committed_at.year in (1970, 9999)


def test_a_canary_may_be_named_short_but_must_exist(watched: Watched) -> None:
    commit = watched.repository.commit("one")
    watched.look()
    assert resolve_commit(watched.mirrors, watched.settings, commit[:10]) == commit
    for name in ("0" * 40, "nowhere", "--help", ""):
        with pytest.raises(RepositoryUnusable, match="is not a commit of its history"):
            resolve_commit(watched.mirrors, watched.settings, name)


@given(st.integers(1, 12), st.sets(st.integers(0, 11)), st.integers(1, 12))
def test_what_is_new_reaches_back_to_the_first_that_was_seen(length: int, seen: set[int], newest: int) -> None:
    log = [Commit(str(number), (), "", "", NOON) for number in reversed(range(length))]
    there = {str(number) for number in seen}
    fresh = [int(commit.commit) for commit in new_commits(log, there, newest)]
    last_seen = max((number for number in seen if number < length), default=None)
    first = length - newest if last_seen is None else last_seen + 1
    assert fresh == list(range(max(first, 0), length))
