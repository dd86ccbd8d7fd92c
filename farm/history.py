"""The first-parent history of a watched repository: its check-ins, numbered when they are seen.

A merge is one step; the commits that it brought are kept with it, for when a search for a culprit enters it. What was
once seen keeps its number and its row for ever: after a force push the new check-ins are numbered on. Of a newly
watched repository only the newest check-ins are taken.
"""

import contextlib
import datetime
import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from farm.results.tables import CheckIn, InsideCommit, Owner
from farm.settings import RepositorySettings
from scenarios.crossing import revision_of

ANSWER_TIMEOUT_S = 60.0
FETCH_TIMEOUT_S = 600.0
# more check-ins than this at once, with none that was seen before, are a history of another origin
_MAX_NEW = 10_000
MOST_INSIDE = 200  # commits: a merge that brought more is one step and stays one
_FORMAT = "%H%x00%P%x00%an%x00%ct%x00%s"
_LAST_SECOND = 253402300799  # of the year 9999: a commit may claim any time
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What a watched repository says must never run anything here: no hooks, no helpers that it could name
_HARDENED = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "protocol.ext.allow=never",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "submodule.recurse=false",
)  # fmt: skip

_LOCAL_TO_A_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
)


class RepositoryUnusable(Exception):
    """One line: which repository, and what is wrong with it."""


@dataclass(frozen=True)
class Commit:
    """One step of the first-parent history, or a commit that a merge brought.

    `brought` says how many commits came with a merge; `inside` are those, newest first, or none of too many.
    """

    commit: str
    parents: tuple[str, ...]
    subject_line: str
    author: str
    committed_at: datetime.datetime
    brought: int = 0
    inside: tuple["Commit", ...] = ()

    @property
    def parent(self) -> str | None:
        """None for the very first one."""
        return self.parents[0] if self.parents else None


def new_commits(log: Sequence[Commit], seen: Collection[str], newest: int) -> list[Commit]:
    """What is new in a first-parent log (newest first): oldest first, back to the first commit that was seen.

    Where nothing of the log was seen before, only its `newest` commits are taken.
    """
    fresh: list[Commit] = []
    for commit in log:
        if commit.commit in seen:
            return fresh[::-1]
        fresh.append(commit)
    return fresh[:newest][::-1]


def fetch_new(
    mirrors: Path,
    repository: RepositorySettings,
    seen: Collection[str],
    newest: int,
    *,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
) -> list[Commit]:
    """Ask the repository for check-ins that are not in `seen`; oldest first. Changes nothing but our mirror.

    Raises RepositoryUnusable when it does not answer, or its branch is gone.
    """
    tip = _tip(_Git(repository, answer_timeout_s=answer_timeout_s))
    if tip in seen:
        return []
    mirrors.mkdir(parents=True, exist_ok=True)
    mirror = mirrors / f"{repository.name}.git"
    with _alone(mirror, repository) as lock:
        git = _Git(repository, mirror, lock, answer_timeout_s)
        reference = f"refs/heads/{repository.branch}"
        git.run("init", "--quiet", "--bare", str(mirror))
        git.run(
            *("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"),
            *("--", repository.url, f"+{reference}:{reference}"),
            timeout_s=FETCH_TIMEOUT_S,
        )
        count = _MAX_NEW if seen else newest
        commits = new_commits(git.log("--first-parent", f"--max-count={count}", reference), seen, newest)
        # a force push must not make a check-in that waits to be measured go away
        kept = "".join(f"update refs/check-ins/{one.commit} {one.commit}\n" for one in commits)
        git.run("update-ref", "--stdin", stdin=kept)
        return [_with_what_it_brought(git, one) for one in commits]


def _with_what_it_brought(git: "_Git", commit: Commit) -> Commit:
    if len(commit.parents) < 2:
        return commit
    first, *others = commit.parents
    brought = int(git.run("rev-list", "--count", *others, f"^{first}"))
    inside = git.log("--topo-order", *others, f"^{first}") if brought <= MOST_INSIDE else []
    return replace(commit, brought=brought, inside=tuple(inside))


def resolve_commit(mirrors: Path, repository: RepositorySettings, name: str) -> str:
    """The full commit that `name` (a commit, short or long) means in the mirrored history."""
    git = _Git(repository, mirrors / f"{repository.name}.git")
    try:
        found = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
    except RepositoryUnusable:
        found = ""
    if not _COMMIT.fullmatch(found):
        raise RepositoryUnusable(f"repository {repository.name}: '{name}' is not a commit of its history")
    return found


def seen_commits(transaction: Transaction, repository: str) -> set[str]:
    return set(transaction.scalars(select(CheckIn.commit).where(CheckIn.repository == repository)))


def recorded(transaction: Transaction, repository: str) -> list[CheckIn]:
    """All check-ins of a repository, by their number."""
    query = select(CheckIn).where(CheckIn.repository == repository).order_by(CheckIn.number)
    return list(transaction.scalars(query))


def record(
    transaction: Transaction, owner: Owner, repository: str, commits: Iterable[Commit], now: datetime.datetime
) -> list[CheckIn]:
    """Number and keep the commits that have no row yet; returns the new rows, oldest first."""
    seen = seen_commits(transaction, repository)
    last = transaction.scalar(select(func.max(CheckIn.number)).where(CheckIn.repository == repository)) or 0
    rows: list[CheckIn] = []
    for commit in commits:
        if commit.commit in seen:
            continue
        last += 1
        # a parent that was never seen was never measured: there is nothing to compare with
        parent = revision_of({repository: commit.parent}) if commit.parent in seen and commit.parent else None
        rows.append(_row(owner, repository, last, commit, parent, now))
        seen.add(commit.commit)
        transaction.add_all(_inside_row(owner, repository, rows[-1].revision, one) for one in commit.inside)
    transaction.add_all(rows)
    transaction.flush()
    return rows


def _row(
    owner: Owner,
    repository: str,
    number: int,
    commit: Commit,
    parent_revision: str | None,
    now: datetime.datetime,
) -> CheckIn:
    return CheckIn(
        repository=repository,
        number=number,
        revision=revision_of({repository: commit.commit}),
        commit=commit.commit,
        parent_revision=parent_revision,
        subject_line=commit.subject_line[:200],
        author=commit.author[:200],
        committed_at=commit.committed_at,
        seen_at=now,
        brought=commit.brought,
        **owner.columns,
    )


def _inside_row(owner: Owner, repository: str, merge: str, commit: Commit) -> InsideCommit:
    return InsideCommit(
        repository=repository,
        merge=merge,
        revision=revision_of({repository: commit.commit}),
        commit=commit.commit,
        parents=list(commit.parents),
        subject_line=commit.subject_line[:200],
        author=commit.author[:200],
        committed_at=commit.committed_at,
        **owner.columns,
    )


def _tip(git: "_Git") -> str:
    repository = git.repository
    reference = f"refs/heads/{repository.branch}"
    for line in git.run("ls-remote", "--", repository.url, reference).split("\n"):
        commit, _, name = line.partition("\t")
        if name == reference:
            return commit
    raise RepositoryUnusable(f"repository {repository.name}: no branch {repository.branch} at {repository.url}")


def _parse(line: str) -> Commit:
    commit, parents, author, committed_s, subject = line.split("\0", 4)
    return Commit(
        commit=commit,
        parents=tuple(parents.split()),
        subject_line=subject,
        author=author,
        committed_at=datetime.datetime.fromtimestamp(min(max(int(committed_s), 0), _LAST_SECOND), datetime.UTC),
    )


@contextlib.contextmanager
def _alone(mirror: Path, repository: RepositorySettings) -> Iterator[int]:
    """Nobody else changes the mirror meanwhile; git's lock files of a process that was killed are removed.

    Yields the lock's descriptor. Children that inherit it keep the lock until they have ended too.
    """
    descriptor = os.open(mirror.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RepositoryUnusable(f"repository {repository.name}: another process is fetching it") from None
        for stale in (*mirror.glob("*.lock"), *mirror.glob("refs/**/*.lock")):
            stale.unlink(missing_ok=True)
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Git:
    """git for one repository and, if given, its mirror."""

    repository: RepositorySettings
    mirror: Path | None = None
    lock: int | None = None
    answer_timeout_s: float = ANSWER_TIMEOUT_S

    def run(self, *arguments: str, timeout_s: float | None = None, stdin: str = "") -> str:
        """What git printed; raises RepositoryUnusable.

        It is ended with all its helpers when its time is over.
        """
        limit_s = self.answer_timeout_s if timeout_s is None else timeout_s
        where = () if self.mirror is None else (f"--git-dir={self.mirror}",)
        process = subprocess.Popen(
            ("git", *_HARDENED, *where, *arguments),
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=() if self.lock is None else (self.lock,),
        )
        try:
            out, err = process.communicate(stdin.encode(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise self._unusable(f"did not answer within {limit_s:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode != 0:
            raise self._unusable(f"does not answer: {_reason(err.decode(errors='replace'))}")
        return out.decode(errors="replace")

    def log(self, *what: str) -> list[Commit]:
        """Commits as `git log` lists them."""
        told = self.run("log", f"--format={_FORMAT}", *what, "--")
        return [_parse(line) for line in told.split("\n") if line]

    def _unusable(self, what: str) -> RepositoryUnusable:
        return RepositoryUnusable(f"repository {self.repository.name}: {self.repository.url} {what}")


def _environment() -> dict[str, str]:
    """Git that asks nobody anything, and is not led astray by a repository around our own folder."""
    kept = {key: value for key, value in os.environ.items() if key not in _LOCAL_TO_A_REPOSITORY}
    return {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=20",
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "LC_ALL": "C",
    }


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal:")]
    return (fatal or lines or ["no reason given"])[0]
