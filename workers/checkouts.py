"""A check-in's files, from a repository that may be hostile: git fetches and lists, nothing of it runs.

No hook, filter, submodule or configuration of the repository takes part: blobs are written as they are stored.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scenarios.contract import Failed, Fault
from workers import room
from workers.turns import take_turn

T = TypeVar("T")

FETCH_TIMEOUT_S = 300.0
READ_TIMEOUT_S = 60.0
TURN_TIMEOUT_S = 900.0  # longer than two fetches take
TREE_LIMIT_MIB = 512
TREE_LIMIT_FILES = 50_000

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_FILE, _PROGRAM, _LINK, _SUBMODULE = "100644", "100755", "120000", "160000"

# Read by our git and by the git that serves a local repository; the latter may belong to another user
_CONFIG = """[safe]
\tdirectory = *
[protocol "ext"]
\tallow = never
[core]
\thooksPath = /dev/null
\tfsmonitor = false
[gc]
\tauto = 0
[fetch]
\trecurseSubmodules = false
"""


class _Damaged(Failed):
    """Our copy of a repository does not hold what it should."""


@dataclass(frozen=True)
class _Entry:
    mode: str
    blob: str
    path: str


@dataclass(frozen=True)
class Mirror:
    """Our bare copy of a watched repository, in `folder`."""

    url: str
    folder: Path

    def bring(self, commit: str) -> None:
        """Make sure that `commit` is here; a copy that is damaged is made again.

        Raises Failed: farm if the repository does not answer, stack if it has no such commit.
        """
        if not _COMMIT.fullmatch(commit):
            raise Failed("stack", f"{commit[:80]!r} is not a full commit id")
        with self._own_turn():
            try:
                self._bring(commit)
            except Failed as error:
                if error.fault == "stack" or not self._answers():
                    raise
                self._make_again(commit)

    def _bring(self, commit: str) -> None:
        if not (self.folder / "HEAD").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder.parent / "gitconfig").write_text(_CONFIG)
            self._git("init", "--quiet", "--bare", "--template=", ".", timeout_s=READ_TIMEOUT_S)
        if self._has(commit):
            return
        for left_over in (*self.folder.glob("*.lock"), *(self.folder / "refs").rglob("*.lock")):
            left_over.unlink()  # of a killed git: it is our turn
        self._fetch("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if not self._has(commit):
            # not on a branch any more: many servers still give it when asked by name
            self._git("fetch", "--quiet", "--no-tags", "--", self.url, commit, timeout_s=FETCH_TIMEOUT_S, check=False)
        if not self._has(commit):
            raise Failed("stack", f"{self.url} has no commit {commit}")

    def tree_of(self, commit: str) -> str:
        """The id of the commit's tree: the same for equal contents."""
        asked = "rev-parse", "--verify", f"{commit}^{{tree}}"
        return self._mended(commit, lambda: self._read(*asked)).decode().strip()

    def extract(self, commit: str, target: Path, *, submodules: bool = False) -> None:
        """Write the commit's files into the empty folder `target`; submodules become empty folders where they may be.

        Raises Failed (stack) for what we do not take: paths or links that leave the tree, submodules, too much.
        """
        everything, contents = self._mended(commit, lambda: self._files(commit, submodules=submodules))
        entries = [entry for entry in everything if entry.mode != _SUBMODULE]
        for entry in everything:
            if entry.mode == _SUBMODULE:
                (target / entry.path).mkdir(parents=True)
        for entry, content in zip(entries, contents, strict=True):
            if entry.mode != _LINK:
                _write_file(target / entry.path, content, 0o755 if entry.mode == _PROGRAM else 0o644)
        # links last, so that no file is ever written through one
        links = [
            (entry.path, os.fsdecode(content))
            for entry, content in zip(entries, contents, strict=True)
            if entry.mode == _LINK
        ]
        for path, destination in links:
            _write_link(target, path, destination)
        for path, _ in links:  # when all are there: where one leads can depend on another
            _check_link(target, path)

    def _files(self, commit: str, *, submodules: bool) -> tuple[list[_Entry], list[bytes]]:
        """Everything in the commit, and the contents of what is no submodule, in the same order."""
        everything = self._entries(commit)
        for entry in everything:
            if entry.mode == _SUBMODULE and not submodules:
                told = "put its files into the repository, or pin a package"
                raise Failed("stack", f"{entry.path!r} is a submodule: {told}")
        return everything, self._blobs([entry.blob for entry in everything if entry.mode != _SUBMODULE])

    def _mended(self, commit: str, read: Callable[[], T]) -> T:
        """What `read` finds; where our copy turns out to be damaged, it is made again first."""
        try:
            return read()
        except _Damaged:
            with self._own_turn():
                try:
                    return read()  # somebody else may have mended it
                except _Damaged:
                    self._make_again(commit)
                    return read()

    def _make_again(self, commit: str) -> None:
        """Fetch everything into a new folder, and put it into the place of ours."""
        fresh = Mirror(self.url, self.folder.with_name(f".part-{self.folder.name}"))
        shutil.rmtree(fresh.folder, ignore_errors=True)  # of a killed process: it is our turn
        try:
            fresh._bring(commit)
            shutil.rmtree(self.folder)
            fresh.folder.rename(self.folder)
        finally:
            shutil.rmtree(fresh.folder, ignore_errors=True)

    def _answers(self) -> bool:
        """Whether the repository is there, so that what cannot be fetched is for a fault of our copy."""
        try:
            asked = self._git("ls-remote", "--quiet", "--", self.url, timeout_s=READ_TIMEOUT_S, check=False, own=False)
        except Failed:
            return False
        return asked.returncode == 0

    @contextlib.contextmanager
    def _own_turn(self) -> Iterator[None]:
        """One process at a time; the kernel ends the turn of one that was killed."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f"{self.folder.name}.turn").open("w") as lock:
            take_turn(lock, timeout_s=TURN_TIMEOUT_S, busy=f"our copy of {self.url}")
            yield

    def _entries(self, commit: str) -> list[_Entry]:
        entries, size = [], 0
        for line in self._read("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0")[:-1]:
            head, _, raw_path = line.partition(b"\t")
            mode, _, blob, length = head.decode().split()
            path = os.fsdecode(raw_path)
            if path.startswith("/") or not all(part not in ("", ".", "..", ".git") for part in path.split("/")):
                raise Failed("stack", f"{path!r} leaves the repository")
            if length == "BAD":
                raise _Damaged("farm", f"our copy of {self.url} lacks the content of {path!r}")
            entries.append(_Entry(mode, blob, path))
            size += 0 if mode == _SUBMODULE else int(length)
        if len(entries) > TREE_LIMIT_FILES or size > TREE_LIMIT_MIB << 20:
            raise Failed("stack", f"the repository holds {len(entries)} files and {size >> 20} MiB, which is too much")
        return entries

    def _blobs(self, blobs: Sequence[str]) -> list[bytes]:
        listing = self._read("cat-file", "--batch", given="".join(f"{blob}\n" for blob in blobs).encode())
        contents, at = [], 0
        for _ in blobs:
            end = listing.index(b"\n", at)
            if listing.endswith(b" missing", at, end):
                raise _Damaged("farm", f"our copy of {self.url} lacks {listing[at:end].decode()}")
            size = int(listing[at:end].split()[2])
            contents.append(listing[end + 1 : end + 1 + size])
            at = end + 1 + size + 1
        return contents

    def _fetch(self, *refs: str) -> None:
        answer = self._git(
            "fetch", "--quiet", "--no-tags", "--", self.url, *refs, timeout_s=FETCH_TIMEOUT_S, check=False
        )
        if answer.returncode:
            raise Failed("farm", f"{self.url} cannot be fetched: {_reason(answer.stderr)}")

    def _has(self, commit: str) -> bool:
        return self._git("cat-file", "-e", f"{commit}^{{tree}}", timeout_s=READ_TIMEOUT_S, check=False).returncode == 0

    def _read(self, *arguments: str, given: bytes = b"") -> bytes:
        answer = self._git(*arguments, timeout_s=READ_TIMEOUT_S, given=given, check=False)
        if answer.returncode:
            raise _Damaged("farm", f"git {arguments[0]} of {self.url} failed: {_reason(answer.stderr)}")
        return answer.stdout

    def _git(
        self, *arguments: str, timeout_s: float, check: bool = True, given: bytes = b"", own: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git, by default in our copy."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.environ.get("HOME", "/root"),  # ssh keys of the worker, for ssh:// repositories
            "LC_ALL": "C",
            **({"GIT_DIR": str(self.folder)} if own else {"GIT_CEILING_DIRECTORIES": str(self.folder.parent.parent)}),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.folder.parent / "gitconfig"),
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=20",
        }
        try:
            answer = subprocess.run(
                ["git", *arguments],
                cwd=self.folder if own else self.folder.parent,
                env=environment,
                input=given,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed("farm", f"git {arguments[0]} of {self.url} took more than {timeout_s:.0f} s") from None
        if check and answer.returncode:
            raise Failed("farm", f"git {arguments[0]} of {self.url} failed: {_reason(answer.stderr)}")
        return answer


def apply_patch(tree: Path, patch: Path, target: Path) -> None:
    """Write the files of `tree` with a unified diff applied into the empty folder `target`.

    Raises Failed: stack for a patch that does not fit or leaves the tree, farm where it is not there.
    """
    if not patch.is_file():
        raise Failed("farm", f"the patch {patch.name[:12]} is not in the farm's store")
    with room.needed("a patched component"):
        shutil.copytree(tree, target, symlinks=True, dirs_exist_ok=True)
    command = ["git", "apply", "--whitespace=nowarn", str(patch.resolve())]
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CEILING_DIRECTORIES": str(target.parent),  # it is no part of a repository around it
    }
    done = subprocess.run(
        command, cwd=target, env=environment, capture_output=True, timeout=READ_TIMEOUT_S, check=False
    )
    if done.returncode:
        fault: Fault = "farm" if room.told_full(done.stderr.decode("utf-8", "replace")) else "stack"
        raise Failed(fault, f"the patch does not apply: {_reason(done.stderr)}")
    for folder, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                _check_link(target, os.path.relpath(path, target))


def _write_file(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(content)
    except OSError as error:
        if room.is_full(error):
            raise
        raise Failed("stack", f"{path.name!r} cannot be written: {error.strerror}") from None


def _write_link(root: Path, path: str, target: str) -> None:
    link = root / path
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.parent.resolve() != root.resolve() / Path(path).parent:
            raise Failed("stack", f"the link {path!r} lies behind another link")
        link.symlink_to(target)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and room.is_full(error):
            raise
        raise Failed("stack", f"the link {path!r} cannot be made: {error}") from None


def _check_link(root: Path, path: str) -> None:
    try:
        inside = (root / path).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        inside = False
    if not inside:
        raise Failed("stack", f"the link {path!r} leads out of the repository")


def _reason(raw: bytes) -> str:
    """Of what git says: what it failed of, before its advice."""
    lines = raw.decode("utf-8", "replace").strip().splitlines()
    failed = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (failed[:1] or lines[-1:] or ["git says nothing"])[0]
