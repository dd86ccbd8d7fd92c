"""The build cache: whole or not at all, damage noticed, least recently used goes first, what is in use stays."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scenarios.contract import Failed
from workers import cache
from workers.cache import Cache, Held

CHECKOUT = Path(__file__).resolve().parents[2]


def writes(text: str, made: list[str] | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(text)
        if made is not None:
            made.append(text)

    return make


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    builds, made = Cache(tmp_path), list[str]()
    first = builds.entry("code", "k", writes("a", made))
    again = builds.entry("code", "k", writes("b", made))
    assert first == again
    assert (again / "sub" / "file").read_text() == "a"
    assert made == ["a"]


def damage_content(entry: Path) -> None:
    (entry / "sub" / "file").write_text("x")


def damage_by_loss(entry: Path) -> None:
    (entry / "sub" / "file").unlink()


def damage_by_addition(entry: Path) -> None:
    (entry / "sub" / "more").write_text("")


def damage_seal(entry: Path) -> None:
    (entry.parent / "seal").write_text("{")


@pytest.mark.parametrize("damage", [damage_content, damage_by_loss, damage_by_addition, damage_seal])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    builds = Cache(tmp_path)
    damage(builds.entry("code", "k", writes("a")))
    entry = builds.entry("code", "k", writes("a"))
    assert [(path.name, path.read_text()) for path in entry.rglob("*") if path.is_file()] == [("file", "a")]


def test_a_try_that_failed_or_was_killed_leaves_nothing(tmp_path: Path) -> None:
    builds = Cache(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("out of luck")

    (tmp_path / ".part-of-a-killed-one").mkdir()
    with pytest.raises(RuntimeError):
        builds.entry("code", "k", broken)
    assert left(tmp_path) == set()


def left(root: Path) -> set[str]:
    """Entries, parts of some, and locks that are held."""
    return {path.name for path in [*root.iterdir(), *root.glob(".locks/*")]} - {".lock", ".locks", ".uses"}


def user(root: Path, limit_mib: int = cache.LIMIT_MIB) -> Cache:
    """As another process has it."""
    return Cache(root, limit_mib, Held())


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    ended = user(tmp_path)
    long_ago = time.time() - 7200
    for key in ("old", "older", "recent"):
        ended.entry("code", key, writes("x" * (1 << 20)))
    os.utime(tmp_path / "code-older" / "seal", (long_ago - 60, long_ago - 60))
    os.utime(tmp_path / "code-old" / "seal", (long_ago, long_ago))
    ended.held.release()
    user(tmp_path, 2).entry("code", "new", writes("x"))
    assert left(tmp_path) == {"code-recent", "code-new"}


def test_what_somebody_uses_stays_beyond_the_limit_until_he_ends(tmp_path: Path) -> None:
    using = user(tmp_path, 1)
    for key in ("a", "b", "c"):
        using.entry("code", key, writes("x" * (1 << 20)))
    assert left(tmp_path) == {"code-a", "code-b", "code-c"}
    using.held.release()
    user(tmp_path, 1).entry("code", "d", writes("x"))
    assert left(tmp_path) == {"code-d"}


MAKER = """
import sys, time
from pathlib import Path
from workers.cache import Cache

def make(folder):
    (folder / "half").write_text("x" * 1000)
    print("making", flush=True)
    time.sleep(60)

Cache(Path(sys.argv[1])).entry("emulator", "slow", make)
"""


@contextlib.contextmanager
def slow_maker(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is at the entry `emulator-slow`, for longer than any test."""
    command = [sys.executable, "-c", MAKER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as maker:
        try:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "making\n"
            yield maker
        finally:
            maker.kill()


def test_a_long_making_holds_up_nothing_else(tmp_path: Path) -> None:
    here = user(tmp_path, 1)
    with slow_maker(tmp_path) as maker:
        for number in range(3):  # which are together more than the limit
            here.entry("code", str(number), writes("x" * (1 << 20)))
            here.held.release()
        assert here.find("code", "2") is not None
        assert maker.poll() is None
        assert {".part-emulator-slow", "emulator-slow", "code-2"} <= left(tmp_path)  # its part and its lock


def test_the_same_entry_is_waited_for_and_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRY_TIMEOUT_S", 0.2)
    with slow_maker(tmp_path), pytest.raises(Failed, match="emulator-slow of the build cache") as failed:
        Cache(tmp_path).entry("emulator", "slow", writes("x"))
    assert failed.value.fault == "farm"


def test_a_killed_maker_leaves_nothing_that_counts(tmp_path: Path) -> None:
    with slow_maker(tmp_path) as maker:
        maker.kill()
        maker.wait(30)
    assert user(tmp_path).find("emulator", "slow") is None
    user(tmp_path).entry("code", "other", writes("x"))
    assert left(tmp_path) == {"code-other"}


class Histories(RuleBasedStateMachine):
    """Several users of one cache that get, make, damage, are killed and end, under a limit of one entry and a half."""

    KEYS = st.sampled_from("abcde")
    USERS = st.integers(0, 2)
    TEXT = "x" * (700 << 10)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="cache-")
        self.root = Path(self.folder.name) / "builds"
        self.users = [user(self.root, 1) for _ in range(3)]
        self.uses: list[set[str]] = [set(), set(), set()]
        self.damaged: set[str] = set()

    def teardown(self) -> None:
        for one in self.users:
            one.held.release()
        self.folder.cleanup()

    @rule(number=USERS, key=KEYS)
    def get(self, number: int, key: str) -> None:
        made: list[str] = []
        was_there = self.is_there(key) and key not in self.damaged
        content = self.users[number].entry("code", key, writes(key + self.TEXT, made))
        assert (content / "sub" / "file").read_text() == key + self.TEXT
        assert bool(made) != was_there
        self.uses[number].add(key)
        self.damaged.discard(key)
        if made:
            self.check_limit()

    @rule(number=USERS, key=KEYS)
    def find(self, number: int, key: str) -> None:
        content = self.users[number].find("code", key)
        assert (content is not None) == (self.is_there(key) and key not in self.damaged)
        if content is not None:
            self.uses[number].add(key)

    @rule(number=USERS, key=KEYS)
    def fail(self, number: int, key: str) -> None:
        def broken(folder: Path) -> None:
            (folder / "half").write_text("x")
            raise RuntimeError("out of luck")

        if not self.is_there(key) or key in self.damaged:
            with pytest.raises(RuntimeError):
                self.users[number].entry("code", key, broken)

    @rule(key=KEYS)
    def be_killed_while_making(self, key: str) -> None:
        part = self.root / f".part-code-{key}"
        (part / "content").mkdir(parents=True, exist_ok=True)
        (part / "content" / "half").write_text("x")

    @rule(key=KEYS, how=st.sampled_from([damage_content, damage_by_loss, damage_by_addition, damage_seal]))
    def damage(self, key: str, how: Callable[[Path], None]) -> None:
        if self.is_there(key) and key not in self.damaged:
            how(self.root / f"code-{key}" / "content")
            self.damaged.add(key)

    @rule(number=USERS)
    def end(self, number: int) -> None:
        self.users[number].held.release()
        self.uses[number] = set()

    @invariant()
    def what_is_used_is_there(self) -> None:
        for key in set().union(*self.uses):
            assert self.is_there(key)

    def is_there(self, key: str) -> bool:
        return (self.root / f"code-{key}").exists()

    def check_limit(self) -> None:
        there = left(self.root)
        assert not any(name.startswith(".part-") for name in there)
        used = {f"code-{key}" for key in set().union(*self.uses)}
        unread = {f"code-{key}" for key in self.damaged}  # whose size nobody knows
        assert there <= used | unread  # as one more would be too much


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.machine
def test_a_full_disk_is_the_farms_fault_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True, timeout=30)
    try:
        with pytest.raises(Failed, match="no room left") as failed:
            Cache(tmp_path).entry("code", "k", writes("a" * 100_000))
        assert failed.value.fault == "farm"
        assert left(tmp_path) == set()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=30)
