"""What compilers made, kept for the next build of the same repository: a folder in the form of ccache's file storage.

A build sees it read-only. What it compiled anew is taken over afterwards, file by file, and never over one that is
there: a check-in cannot change what earlier ones have left.
"""

import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from workers.turns import turn

LIMIT_MIB = 1024
TURN_TIMEOUT_S = 120.0
_FILE_LIMIT_MIB = 32
_ENTRY = re.compile(r"\./([0-9a-f]{2}/[0-9a-z]{16,80})")


@dataclass(frozen=True)
class CompilerCache:
    """The folder, of one repository."""

    folder: Path
    limit_mib: int = LIMIT_MIB

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, archive: bytes) -> None:
        """Take over what an archive from behind the walls holds of new entries, and nothing else."""
        with turn(self.folder.with_suffix(".turn"), timeout_s=TURN_TIMEOUT_S, busy=f"what was compiled, {self.folder}"):
            self._take_over(archive)

    def _take_over(self, archive: bytes) -> None:
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                for member in packed:
                    self._add(packed, member)
        except tarfile.TarError:
            return  # only what follows is lost, and compiled again
        finally:
            self._trim()

    def _add(self, packed: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _ENTRY.fullmatch(member.name)
        content = packed.extractfile(member) if name and member.isreg() else None
        if name is None or content is None or member.size > _FILE_LIMIT_MIB << 20:
            return
        entry = self.folder / name[1]
        if not entry.exists():
            entry.parent.mkdir(exist_ok=True)
            part = entry.with_suffix(".part")
            part.write_bytes(content.read())
            part.rename(entry)

    def _trim(self) -> None:
        """Drop what is oldest, down to the limit."""
        there = [(entry.stat(), entry) for entry in self.folder.glob("*/*")]
        size = sum(status.st_size for status, _ in there)
        for status, entry in sorted(there, key=lambda one: one[0].st_mtime):
            if size <= self.limit_mib << 20:
                return
            entry.unlink()
            size -= status.st_size
