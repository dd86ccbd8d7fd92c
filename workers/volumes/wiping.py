"""A tenant's volume, wiped, and whether anything of it can be read again: operations of a host's agent.

Every sector of the volume carries a marker of the tenant, and noise that does not compress. All reading here goes
past the page cache, which would answer for a disk that was never asked.
"""

import hashlib
import mmap
import os
import resource
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from scenarios.contract import Failed, Unsupported, WorkNotProven
from workers import loops
from workers.operations import operation
from workers.volumes.base import Extent, blamed, bytes_in_common, extents_of

_SECTOR_BYTES = 512
_CHUNK_BYTES = 1 << 20
_TOOL_TIMEOUT_S = 300
_NEXT_VOLUMES = 8
# what operators run; {device} stands for the volume as a block device, {file} for it as a file
_COMMANDS = {
    "dd": ["dd", "if=/dev/zero", "of={device}", "bs=1M", "count={mib}", "oflag=direct", "conv=notrunc", "status=none"],
    "discard": ["blkdiscard", "--force", "{device}"],
    "write_zeroes": ["blkdiscard", "--force", "--zeroout", "{device}"],
    "punch_hole": ["fallocate", "--punch-hole", "--offset", "0", "--length", "{mib}MiB", "{file}"],
    "sparse": ["sh", "-c", "truncate -s 0 {file} && truncate -s {mib}M {file}"],
}


@operation
def make(path: str, mib: int, tenant: str) -> list[list[int]]:
    """A volume full of the tenant's markers; returns where on the device it lies, as [start, length] in bytes."""
    marker = _marker(tenant)
    with Path(path).open("xb", buffering=0) as file:
        for _ in range(mib):
            noise = os.urandom(_CHUNK_BYTES)
            starts = range(0, _CHUNK_BYTES, _SECTOR_BYTES)
            file.write(b"".join(marker + noise[at + len(marker) : at + _SECTOR_BYTES] for at in starts))
        os.fsync(file.fileno())
    found, wanted = _markers_in(Path(path), tenant), (mib << 20) // _SECTOR_BYTES
    if found != wanted:
        raise Failed("donor", f"{found} of {wanted} markers can be read after they were written")
    return [[extent.physical, extent.length] for extent in extents_of(Path(path))]


@operation
def wipe(path: str, mib: int, method: str) -> tuple[float, float]:
    """Wipe the volume; returns the seconds until that is on stable storage, and the tool's CPU seconds.

    Raises Unsupported.
    """
    if method not in _COMMANDS:
        raise Unsupported(f"no method '{method}' to wipe a volume (there are {', '.join(_COMMANDS)})")
    command = _COMMANDS[method]
    if "{device}" not in " ".join(command):
        return _run([word.format(file=path, mib=mib) for word in command], path)
    with loops.attached(Path(path), direct=True) as device:
        return _run([word.format(device=device, mib=mib) for word in command], device)


@operation
def prove_unreadable(path: str, mib: int, tenant: str) -> str:
    """Evidence that the whole volume is there and no marker in it; raises WorkNotProven."""
    size = os.stat(path).st_size
    if size != mib << 20:
        raise WorkNotProven(f"the volume has {size >> 10} KiB after the wipe, not {mib << 10}")
    if found := _markers_in(Path(path), tenant):
        raise WorkNotProven(f"{found} of {size // _SECTOR_BYTES} sectors can still be read after the wipe")
    return f"{mib} MiB read back past the page cache: no marker of the tenant"


@operation
def left_percent(path: str, tenant: str, extents: list[list[int]]) -> float | None:
    """How much of what the tenant wrote is where it was on the device; None where that cannot be looked at."""
    number = os.stat(path).st_dev
    node = Path(f"/dev/block/{os.major(number)}:{os.minor(number)}")
    marker, found = _marker(tenant), 0
    try:
        node.parent.mkdir(exist_ok=True)
        with loops.open_device(node, stat.S_IFBLK, number, os.O_RDONLY | os.O_DIRECT) as device:
            for start, length in extents:
                found += sum(chunk.count(marker) for chunk in _chunks(device, start, length))
    except OSError:  # a file system that hides its devices, or a host that does
        return None
    return 100.0 * found / (sum(length for _, length in extents) // _SECTOR_BYTES)


@operation
def prove_next_tenant(path: str, mib: int, tenant: str, extents: list[list[int]]) -> str:
    """Remove the volume and make the next ones, until they have got most of its blocks or there were enough of them.

    Evidence that they show no marker of the former tenant, and how much that says; raises WorkNotProven.
    """
    volume = Path(path)
    volume.unlink()
    _settle(volume.parent)
    former = [Extent(0, start, length, shared=False) for start, length in extents]
    common = 0
    for number in range(_NEXT_VOLUMES):
        following = Path(f"{path}.next{number}")
        with following.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, mib << 20)
            os.fsync(file.fileno())
        common += bytes_in_common(former, extents_of(following))
        if found := _markers_in(following, tenant):
            raise WorkNotProven(f"a next tenant's volume shows {found} sectors of the former tenant")
        space = os.statvfs(volume.parent)
        if common >= mib << 19 or space.f_bavail * space.f_frsize < mib << 21:
            break
    return f"next volumes, which have {common >> 20} of {mib} MiB of its blocks, show nothing of the tenant"


def _settle(folder: Path) -> None:
    """Let the file system give out again what was freed."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _run(command: list[str], place: str) -> tuple[float, float]:
    """Seconds until the command has ended and all is on stable storage, and the CPU seconds of both."""
    started, cpu_s = time.monotonic(), _cpu_s()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Failed("donor", f"{command[0]} did not end within {_TOOL_TIMEOUT_S} s") from None
    if done.returncode:
        raise blamed(Unsupported(f"{' '.join(command)}: {' '.join(done.stderr.split())[-300:]}"))
    handle = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return time.monotonic() - started, _cpu_s() - cpu_s


def _cpu_s() -> float:
    """Of this thread and of all programs that have ended here: no others do while a volume is wiped."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + ended.ru_utime + ended.ru_stime


def _marker(tenant: str) -> bytes:
    return hashlib.sha256(f"farm tenant {tenant}".encode()).digest()


def _markers_in(path: Path, tenant: str) -> int:
    marker = _marker(tenant)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        return sum(chunk.count(marker) for chunk in _chunks(handle, 0, os.fstat(handle).st_size))
    finally:
        os.close(handle)


def _chunks(handle: int, start: int, length: int) -> Iterator[bytes]:
    """The bytes of a file that was opened for direct reading; both numbers are whole blocks."""
    with mmap.mmap(-1, _CHUNK_BYTES) as buffer:  # aligned, as direct reading needs it
        for at in range(start, start + length, _CHUNK_BYTES):
            wanted = min(_CHUNK_BYTES, start + length - at)
            with memoryview(buffer)[:wanted] as part:
                got = os.preadv(handle, [part], at)
            if got != wanted:
                raise Failed("donor", f"{got} of {wanted} bytes can be read at {at}")
            yield buffer[:wanted]
