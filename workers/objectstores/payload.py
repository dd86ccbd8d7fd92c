"""What is uploaded: random bytes of any size out of one file, with the digests that uploads are held against.

The file is made once per session and stays in the page cache. A larger content goes on with blocks of it, each from
another, odd place: nothing that is stored in blocks finds two alike, and neither memory nor disk grows with the size.
"""

import hashlib
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

DEFAULT_MIB = 256
_BLOCK_BYTES = 1 << 20
_CHUNK_BYTES = 4 << 20
_GOLDEN = 0x9E3779B97F4A7C15  # 2⁶⁴ ÷ golden ratio: multiples of it are spread evenly, and never meet


class Payload:
    """An incompressible file of `mib` MiB at `path`, on the machine where both worker and observer run."""

    def __init__(self, path: Path, mib: int = DEFAULT_MIB) -> None:
        """Make the file."""
        self.path = path
        self.pool_bytes = mib << 20
        self._contents: dict[int, Content] = {}
        self._lock = threading.Lock()
        digest = hashlib.sha256()
        with path.open("wb") as file:
            while length := min(_CHUNK_BYTES, self.pool_bytes - file.tell()):
                chunk = os.urandom(length)
                file.write(chunk)
                digest.update(chunk)
            # its way to the disk must not fall into somebody's figure
            file.flush()
            os.fsync(file.fileno())
        self._contents[self.pool_bytes] = Content(path, self.pool_bytes, self.pool_bytes, digest.hexdigest())

    def content(self, size_mib: int) -> "Content":
        """So much of it; the same object each time, since its digests are computed once."""
        size = size_mib << 20
        with self._lock:
            if size not in self._contents:
                self._contents[size] = Content(self.path, self.pool_bytes, size)
            return self._contents[size]


class Content:
    """A payload of one size."""

    def __init__(self, path: Path, pool_bytes: int, size: int, sha256: str | None = None) -> None:
        self.path, self.pool_bytes, self.size = path, pool_bytes, size
        self._digests: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lock = threading.Lock()
        if sha256 is not None:
            self._digests["sha256", size] = (sha256,)

    @property
    def sha256(self) -> str:
        """Of the whole."""
        return self._all("sha256", self.size)[0]

    def md5s(self, step: int) -> tuple[str, ...]:
        """MD5 of each `step` bytes in order; the last piece may be shorter."""
        return self._all("md5", step)

    def sha256_of(self, offset: int, length: int) -> str:
        """Of a part."""
        return self._digest("sha256", offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """A part."""
        with self.path.open("rb") as file:
            places = extents(self.pool_bytes, offset, length)
            return b"".join(os.pread(file.fileno(), count, at) for at, count in places)

    def _all(self, kind: str, step: int) -> tuple[str, ...]:
        with self._lock:
            if (kind, step) not in self._digests:
                parts = range(0, self.size, step)
                self._digests[kind, step] = tuple(self._digest(kind, at, min(step, self.size - at)) for at in parts)
            return self._digests[kind, step]

    def _digest(self, kind: str, offset: int, length: int) -> str:
        digest = hashlib.new(kind, usedforsecurity=False)
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pool:
            view = memoryview(pool)
            try:
                for at, count in extents(self.pool_bytes, offset, length):
                    digest.update(view[at : at + count])
            finally:
                view.release()
        return digest.hexdigest()


def extents(pool_bytes: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Where in the file these bytes of a content lie: place and length of each stretch, in order."""
    end = offset + length
    while offset < end:
        if offset < pool_bytes:
            at, count = offset, min(end, pool_bytes) - offset
        else:
            block, inside = divmod(offset, _BLOCK_BYTES)
            at = (block * _GOLDEN % 2**64) % (pool_bytes - _BLOCK_BYTES + 1) + inside
            count = min(end - offset, _BLOCK_BYTES - inside)
        yield at, count
        offset += count
