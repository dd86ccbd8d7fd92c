"""The build cache: whole or not at all, damage noticed, least recently used goes first, what is in use stays."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.contract import Failed
from workers.cache import Cache


def writes(text: str, made: list[str] | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(text)
        if made is not None:
            made.append(text)

    return make


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), list[str]()
    first = cache.entry("code", "k", writes("a", made))
    again = cache.entry("code", "k", writes("b", made))
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
    cache = Cache(tmp_path)
    damage(cache.entry("code", "k", writes("a")))
    entry = cache.entry("code", "k", writes("a"))
    assert [(path.name, path.read_text()) for path in entry.rglob("*") if path.is_file()] == [("file", "a")]


def test_a_try_that_failed_or_was_killed_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("out of luck")

    (tmp_path / ".part-of-a-killed-one").mkdir()
    with pytest.raises(RuntimeError):
        cache.entry("code", "k", broken)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_mib=2, in_use_s=3600)
    long_ago = time.time() - 7200
    for key in ("old", "older", "recent"):
        cache.entry("code", key, writes("x" * (1 << 20)))
    os.utime(tmp_path / "code-older" / "seal", (long_ago - 60, long_ago - 60))
    os.utime(tmp_path / "code-old" / "seal", (long_ago, long_ago))
    cache.entry("code", "new", writes("x"))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "code-recent", "code-new"}


def test_what_a_session_may_still_use_stays_beyond_the_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_mib=1, in_use_s=3600)
    for key in ("a", "b", "c"):
        cache.entry("code", key, writes("x" * (1 << 20)))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "code-a", "code-b", "code-c"}


@pytest.mark.machine
def test_a_full_disk_is_the_farms_fault_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True, timeout=30)
    try:
        with pytest.raises(Failed, match="no room left") as failed:
            Cache(tmp_path).entry("code", "k", writes("a" * 100_000))
        assert failed.value.fault == "farm"
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=30)
