"""What a component is sent to hosts as: a tar of plain files, of the same files the same bytes."""

import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """An archive, and the SHA-256 of its content."""

    archive: Path
    digest: str


def pack(root: Path, archive: Path, kept: Sequence[str]) -> None:
    """Make the archive of what lies under `root` and matches one of the patterns `kept`."""
    with tarfile.open(archive, "w") as packed:
        for path in sorted(path for pattern in kept for path in root.glob(pattern)):
            file = path.resolve()  # one that goes by two names is packed twice
            if not file.is_relative_to(root.resolve()) or not file.is_file():
                continue
            entry = tarfile.TarInfo(str(path.relative_to(root)))
            entry.size, entry.mode = file.stat().st_size, 0o755
            with file.open("rb") as content:
                packed.addfile(entry, content)


def read(archive: Path) -> Archive:
    with archive.open("rb") as file:
        return Archive(archive, hashlib.file_digest(file, "sha256").hexdigest())
