"""What is uploaded: one file of random bytes, made once per session, with the digests that uploads are held against."""

import hashlib
import mmap
import os
import threading
from pathlib import Path

DEFAULT_MIB = 256
_CHUNK_BYTES = 4 << 20


class Payload:
    """An incompressible file of `mib` MiB at `path`, on the machine where both worker and observer run."""

    def __init__(self, path: Path, mib: int = DEFAULT_MIB) -> None:
        """Make the file."""
        self.path = path
        self.mib = mib
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with path.open("wb") as file:
            for _ in range(0, self.size, _CHUNK_BYTES):
                chunk = os.urandom(min(_CHUNK_BYTES, self.size - file.tell()))
                file.write(chunk)
                sha256.update(chunk)
                md5.update(chunk)
            # its way to the disk must not fall into somebody's figure
            file.flush()
            os.fsync(file.fileno())
        self.sha256, self.md5 = sha256.hexdigest(), md5.hexdigest()
        self._segments: dict[int, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.mib << 20

    def segment_md5s(self, segment_mib: int) -> tuple[str, ...]:
        """MD5 of each segment in order; the last one may be shorter. Computed once."""
        with self._lock:
            if segment_mib not in self._segments:
                self._segments[segment_mib] = self._md5s(segment_mib << 20)
            return self._segments[segment_mib]

    def read(self, offset: int, length: int) -> bytes:
        """A part of it."""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def _md5s(self, step: int) -> tuple[str, ...]:
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            view = memoryview(content)
            try:
                parts = range(0, self.size, step)
                return tuple(hashlib.md5(view[at : at + step], usedforsecurity=False).hexdigest() for at in parts)
            finally:
                view.release()
