"""A content-checked cache of folders: made once, whole or not at all, and thrown away when damaged or long unused.

An entry is `<kind>-<key>/`: `content/` and a `seal` with the digest and size of that content. Every use reads the whole
content against the seal, so what is handed out is what was made. Removal is least recently used first. Each entry has a
lock of its own: while one is made, which may take as long as a compiler, all others are there to be had.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from scenarios.contract import Failed
from workers import room
from workers.turns import take_turn, turn

LIMIT_MIB = 3072
ENTRY_TIMEOUT_S = 1500.0  # longer than any build takes
TIDY_TIMEOUT_S = 300.0
_PART, _LOCKS, _USES = ".part-", ".locks", ".uses"


class Held:
    """What is used, by locks that all users share; the kernel lets go of a killed process's."""

    def __init__(self) -> None:
        self._files: dict[Path, IO[bytes]] = {}
        self._lock = threading.Lock()

    def add(self, mark: Path) -> None:
        with self._lock:
            if mark not in self._files:
                mark.parent.mkdir(exist_ok=True)
                self._files[mark] = file = mark.open("ab")
                fcntl.flock(file, fcntl.LOCK_SH)

    def release(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()


_OURS = Held()


@dataclass(frozen=True)
class Cache:
    """The entries under `root`, together not much larger than `limit_mib`.

    `held` is what this process has been given: it keeps that until it ends, however it does.
    """

    root: Path
    limit_mib: int = LIMIT_MIB
    held: Held = field(default=_OURS, compare=False)

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The content folder of an entry; `make(folder)` fills an empty folder where there is none or a damaged one.

        Whoever asks for another entry meanwhile does not wait. What `make` raises goes through, and nothing stays of
        the try. Raises Failed (farm) when another process is at this entry for longer than ENTRY_TIMEOUT_S, and when
        there is no room.
        """
        name = f"{kind}-{key}"
        with room.needed(f"builds under {self.root}"), self._own(name, timeout_s=ENTRY_TIMEOUT_S):
            is_new = not _is_whole(self.root / name)
            if is_new:
                self._make(name, make)
            self._use(name)
            if is_new:
                self._tidy()
        return self.root / name / "content"

    def find(self, kind: str, key: str) -> Path | None:
        """The content folder of an entry that is there and whole."""
        name = f"{kind}-{key}"
        with self._own(name, timeout_s=ENTRY_TIMEOUT_S):
            if not _is_whole(self.root / name):
                return None
            self._use(name)
        return self.root / name / "content"

    def _use(self, name: str) -> None:
        os.utime(self.root / name / "seal")
        self.held.add(self.root / _USES / name)

    def _make(self, name: str, make: Callable[[Path], None]) -> None:
        self._tidy()  # what killed processes have left takes room
        part = self._part(name)
        try:
            part.mkdir(mode=0o700)
            content = part / "content"
            content.mkdir()
            make(content)
            digest, size = digest_of_tree(content)
            (part / "seal").write_text(json.dumps({"digest": digest, "bytes": size}))
            part.chmod(0o755)
            shutil.rmtree(self.root / name, ignore_errors=True)
            part.rename(self.root / name)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _part(self, name: str) -> Path:
        """Where an entry is made, or goes when it has to: nothing of what a killed process leaves there counts.

        It is the caller's own.
        """
        part = self.root / f"{_PART}{name}"
        if part.exists():
            shutil.rmtree(part)
        return part

    def _tidy(self) -> None:
        """Remove what killed processes have left, and what was unused for longest, down to the limit."""
        with (self.root / ".lock").open("w") as lock:
            take_turn(lock, timeout_s=TIDY_TIMEOUT_S, busy=f"the list of the build cache {self.root}")
            for left_over in self.root.glob(f"{_PART}*"):
                with self._if_free(left_over.name.removeprefix(_PART)) as free:
                    if free:
                        shutil.rmtree(left_over)
            self._trim()

    def _trim(self) -> None:
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for _, size, name in entries:
            if total <= self.limit_mib << 20:
                return
            with self._if_free(name) as free:
                if free and not _is_held(self.root / _USES / name):
                    self._remove(name)
                    total -= size

    def _remove(self, name: str) -> None:
        """Nobody is at it, and nobody uses it."""
        part = self._part(name)
        with contextlib.suppress(FileNotFoundError):
            (self.root / name).rename(part)  # gone at once, or not at all
            shutil.rmtree(part)
        (self.root / _USES / name).unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """(last use as UNIX time, bytes, name) of every entry; one without a readable seal is oldest."""
        for folder in self.root.iterdir():
            if folder.is_dir() and not folder.name.startswith("."):
                seal = _read_seal(folder)
                yield _used_at(folder), seal[1] if seal else 0, folder.name

    @contextlib.contextmanager
    def _if_free(self, name: str) -> Iterator[bool]:
        """Whether nobody is at the entry; then it is ours meanwhile."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._own(name, timeout_s=0))
            except Failed:
                yield False
                return
            yield True

    def _own(self, name: str, *, timeout_s: float) -> contextlib.AbstractContextManager[None]:
        """An entry is one process's while it is made, read against its seal, or removed."""
        return turn(self.root / _LOCKS / name, timeout_s=timeout_s, busy=f"{name} of the build cache {self.root}")


def _is_held(mark: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), mark.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _used_at(folder: Path) -> float:
    try:
        return (folder / "seal").stat().st_mtime
    except OSError:
        return 0.0


def digest_of_tree(root: Path, *, without: str = "") -> tuple[str, int]:
    """SHA-256 over names, modes and contents of everything under `root`, and the bytes of all files.

    Folders that are called `without`, wherever they are, are left out.
    """
    digest = hashlib.sha256()
    size = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != without)
        for name in sorted(files) + [f for f in folders if os.path.islink(os.path.join(folder, f))]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = os.readlink(path).encode() if os.path.islink(path) else Path(path).read_bytes()
            size += len(content)
            digest.update(f"{os.path.relpath(path, root)}\0{status.st_mode:o}\0".encode("utf-8", "surrogateescape"))
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest(), size


def _read_seal(folder: Path) -> tuple[str, int] | None:
    try:
        seal = json.loads((folder / "seal").read_text())
        return str(seal["digest"]), int(seal["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_whole(folder: Path) -> bool:
    seal = _read_seal(folder)
    return seal is not None and (folder / "content").is_dir() and digest_of_tree(folder / "content") == seal
