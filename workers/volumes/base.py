"""The base image that disks are made from, and what every method's proofs share: operations of a host's agent.

The base is incompressible data from a fixed seed, so that it is the same on every host and zero nowhere:
copying it costs what copying data costs. It is made once per host, read-only, and known by its digest.
"""

import errno
import fcntl
import glob
import hashlib
import os
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed, ScenarioError, Unsupported, WorkNotProven
from workers.operations import operation

BASE_MIB = 128
BLOCK_BYTES = 4096  # of the write test, as in guest/init.c
STRIDE_BYTES = 64 * 1024
JOURNAL_BYTES = 32 * BLOCK_BYTES  # at a disk's end, which guests that exercise it write all the while
_PASSES = 2
_SEED = 20_251_122
_BASE_SHA256 = "f9ee79525858ad7a551a55ccf4cd85d5529478f4297bd38c4e80fe71d8d4cd16"  # of the base of BASE_MIB
_FIEMAP = 0xC020660B
_FIEMAP_FLAG_SYNC = 1
_EXTENT_LAST, _EXTENT_SHARED = 0x1, 0x2000
_FIEMAP_HEAD = struct.Struct("=QQLLLL")
_FIEMAP_EXTENT = struct.Struct("=QQQ16xL12x")
_EXTENTS_PER_CALL = 512
_WORD = (1 << 64) - 1
# with these words a tool tells what the host's own disk said
_HOSTS_OWN = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))


def blamed(error: ScenarioError) -> ScenarioError:
    """The error of a tool that gave up; the donor's fault where it says that the host's disk is full or broken."""
    return Failed("donor", str(error)) if any(words in str(error) for words in _HOSTS_OWN) else error


# ---- the base image


@operation
def make_base(folder: str, mib: int) -> dict[str, str]:
    """The base image of this size in `folder`, made now if it is not there whole: its `path` and `digest`."""
    path = Path(folder) / f"base-{mib}.raw"
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = _expected_digest(mib)
    if not path.exists() or _digest_of(path) != digest:
        _put(path, _base_chunks(mib))
        if _digest_of(path) != digest:
            raise Failed("farm", f"the base image made on this host is not the one that was meant: {path}")
    return {"path": str(path), "digest": digest}


@operation
def copy_base(image: str, folder: str, digest: str) -> str:
    """A base that is `image`, every block of it allocated, made now if it is not in `folder` whole; its path.

    Raises as `require_room` does, and Failed (farm) where the image is not the one of this digest.
    """
    path = Path(folder) / f"base-{digest[:16]}.raw"
    if path.exists():
        return str(path)
    require_room(os.stat(image).st_size, Path(folder), beside=[Path(image)])
    with Path(image).open("rb") as file:
        _put(path, iter(lambda: file.read(1 << 20), b""))
    if _digest_of(path) != digest:
        path.unlink()
        raise Failed("farm", f"the image {image} is not what it was")
    return str(path)


def require_room(size: int, folder: Path, beside: Iterable[Path]) -> None:
    """See that `size` bytes fit into `folder`, before anything is written.

    Raises Unsupported where they could not even if the file system held nothing but the files in `folder` and
    `beside`, all of them ours; Failed (donor) where something else takes the room.
    """
    space = os.statvfs(folder)
    if size <= space.f_bavail * space.f_frsize:
        return
    device = os.stat(folder).st_dev
    files = {*beside, *(path for path in folder.iterdir() if path.is_file())}
    ours = sum(status.st_blocks * 512 for status in map(os.stat, files) if status.st_dev == device)
    if ours + size > space.f_blocks * space.f_frsize:
        raise Unsupported(f"no room for {size >> 20} MiB more on a file system of {_mib(space.f_blocks, space)} MiB")
    left = _mib(space.f_bavail, space)
    raise Failed("donor", f"no room for {size >> 20} MiB: something else has left {left} MiB of the host's disk")


def _mib(blocks: int, space: os.statvfs_result) -> int:
    return blocks * space.f_frsize >> 20


def _put(path: Path, chunks: Iterator[bytes]) -> None:
    """A file that nobody writes any more; appears whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o444)
    part.replace(path)


@operation
def prove_unchanged(path: str, digest: str) -> str:
    """Evidence that the base still is what it was; raises WorkNotProven."""
    found = _digest_of(Path(path))
    if found != digest:
        raise WorkNotProven(f"the base image has changed: its SHA-256 was {digest[:16]}…, is {found[:16]}…")
    return f"base image unchanged, SHA-256 {digest[:16]}…"


@operation
def remove(path: str) -> None:
    """Remove a disk and what lies under it alone (`<its name>.…`); harmless when it is gone."""
    disk = Path(path)
    for file in (disk, *disk.parent.glob(f"{glob.escape(disk.name)}.*")):
        file.unlink(missing_ok=True)


def _base_chunks(mib: int) -> Iterator[bytes]:
    generator = random.Random(_SEED)
    return (generator.randbytes(1 << 20) for _ in range(mib))


def _expected_digest(mib: int) -> str:
    if mib == BASE_MIB:  # asked for on every host of every session: not worked out each time
        return _BASE_SHA256
    digest = hashlib.sha256()
    for chunk in _base_chunks(mib):
        digest.update(chunk)
    return digest.hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hand_over(path: Path, uid: int) -> None:
    """Give a new disk to the user that guests' VMMs run as, and to nobody else."""
    path.chmod(0o600)
    os.chown(path, uid, uid)


# ---- where a file's blocks lie


@dataclass(frozen=True)
class Extent:
    """A stretch of a file on its device, in bytes; `shared`: other files refer to the same blocks."""

    logical: int
    physical: int
    length: int
    shared: bool


def extents_of(path: Path) -> list[Extent]:
    """All extents of a file, as the file system tells (FIEMAP)."""
    found: list[Extent] = []
    with path.open("rb") as file:
        start = 0
        while True:
            head = _FIEMAP_HEAD.pack(start, _WORD - start, _FIEMAP_FLAG_SYNC, 0, _EXTENTS_PER_CALL, 0)
            answer = bytearray(head + bytes(_FIEMAP_EXTENT.size * _EXTENTS_PER_CALL))
            fcntl.ioctl(file.fileno(), _FIEMAP, answer)
            count = _FIEMAP_HEAD.unpack_from(answer)[3]
            for index in range(count):
                offset = _FIEMAP_HEAD.size + index * _FIEMAP_EXTENT.size
                logical, physical, length, flags = _FIEMAP_EXTENT.unpack_from(answer, offset)
                found.append(Extent(logical, physical, length, bool(flags & _EXTENT_SHARED)))
                if flags & _EXTENT_LAST:
                    return found
            if not count:
                return found
            start = found[-1].logical + found[-1].length


def bytes_in_common(one: list[Extent], other: list[Extent]) -> int:
    """How many bytes of the device both files' extents cover."""
    left = sorted((extent.physical, extent.physical + extent.length) for extent in one)
    right = sorted((extent.physical, extent.physical + extent.length) for extent in other)
    common = at_left = at_right = 0
    while at_left < len(left) and at_right < len(right):
        (left_start, left_end), (right_start, right_end) = left[at_left], right[at_right]
        common += max(0, min(left_end, right_end) - max(left_start, right_start))
        if left_end < right_end:
            at_left += 1
        else:
            at_right += 1
    return common


# ---- what the write test left behind


@operation
def prove_written(path: str, nonce: str, blocks: int, offset: int) -> str:
    """Evidence that a raw disk holds what the write test of the guest with this nonce wrote last."""
    with Path(path).open("rb") as file:
        return check_written(file.fileno(), nonce, blocks, offset)


def check_written(file: int, nonce: str, blocks: int, offset: int) -> str:
    """Compare every block of the write test in a raw image, open for reading; raises WorkNotProven."""
    for block in range(blocks):
        wanted = test_word(nonce, _PASSES, block).to_bytes(8, "little") * (BLOCK_BYTES // 8)
        if os.pread(file, BLOCK_BYTES, offset + block * STRIDE_BYTES) != wanted:
            raise WorkNotProven(f"block {block} of {blocks} of the write test is not what the guest wrote last")
    return f"{blocks} blocks of the write test read back from outside as the guest wrote them"


def test_word(nonce: str, write_pass: int, block: int) -> int:
    """The 64-bit word that fills a block of the write test; the same as in guest/init.c."""
    return _mix(_fnv1a(nonce) ^ (write_pass << 32) ^ block)


def _mix(word: int) -> int:
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & _WORD
    return word ^ word >> 31


def _fnv1a(text: str) -> int:
    word = 0xCBF29CE484222325
    for byte in text.encode():
        word = ((word ^ byte) * 0x100000001B3) & _WORD
    return word
