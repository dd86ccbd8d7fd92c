"""A content-checked cache of folders: made once, whole or not at all, and thrown away when damaged or long unused.

An entry is `<kind>-<key>/`: `content/` and a `seal` with the digest and size of that content. Every use reads the whole
content against the seal, so what is handed out is what was made. Removal is least recently used first.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from workers import room
from workers.turns import take_turn

LIMIT_MIB = 3072
# Longer than any session lasts: what a running session may still use is never removed
IN_USE_S = 6 * 3600
LOCK_TIMEOUT_S = 1500.0  # longer than any build takes


@dataclass(frozen=True)
class Cache:
    """The entries under `root`, together not much larger than `limit_mib`."""

    root: Path
    limit_mib: int = LIMIT_MIB
    in_use_s: float = IN_USE_S

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The content folder of an entry; `make(folder)` fills an empty folder where there is none or a damaged one.

        What `make` raises goes through, and nothing stays of the try. Raises Failed (farm) when another process
        holds the cache for longer than LOCK_TIMEOUT_S, and when there is no room.
        """
        folder = self.root / f"{kind}-{key}"
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not _is_whole(folder):
                self._make(folder, make)
                self._trim(keep=folder)
            os.utime(folder / "seal")
        return folder / "content"

    def find(self, kind: str, key: str) -> Path | None:
        """The content folder of an entry that is there and whole."""
        folder = self.root / f"{kind}-{key}"
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not _is_whole(folder):
                return None
            os.utime(folder / "seal")
        return folder / "content"

    def _make(self, folder: Path, make: Callable[[Path], None]) -> None:
        for left_over in self.root.glob(".part-*"):  # of a killed process: we hold the lock
            shutil.rmtree(left_over)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.root))
        try:
            with room.needed(f"builds under {self.root}"):
                content = part / "content"
                content.mkdir()
                make(content)
                digest, size = digest_of_tree(content)
                (part / "seal").write_text(json.dumps({"digest": digest, "bytes": size}))
                part.chmod(0o755)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _trim(self, keep: Path) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        total = sum(size for _, size, _ in entries)
        for used_at, size, folder in entries:
            if total <= self.limit_mib << 20 or time.time() - used_at < self.in_use_s:
                return
            if folder != keep:
                shutil.rmtree(folder)
                total -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """(last use as UNIX time, bytes, folder) of every entry; one without a readable seal is oldest."""
        for folder in self.root.iterdir():
            if folder.is_dir() and not folder.name.startswith("."):
                seal = _read_seal(folder)
                used_at = (folder / "seal").stat().st_mtime if seal else 0.0
                yield used_at, seal[1] if seal else 0, folder

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / ".lock").open("w") as lock:
            take_turn(lock, timeout_s=LOCK_TIMEOUT_S, busy=f"the build cache {self.root}")
            yield


def digest_of_tree(root: Path) -> tuple[str, int]:
    """SHA-256 over names, modes and contents of everything under `root`, and the bytes of all files."""
    digest = hashlib.sha256()
    size = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
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
