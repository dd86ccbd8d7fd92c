"""Limits of disks: making, writing, reading and wiping them."""

from farm.analysis.bounds.terms import KIB, MIB, MS, US, base_mib, fastest, no_less, passed
from farm.analysis.limits import Circumstances, Limit, NoLimit, count_of
from scenarios import write_test

_SECTOR_BYTES = 512
_PARTS_OF_A_CLUSTER = 32  # with extended_l2
_FLUSHING = ("writethrough", "directsync")  # caches of a guest's disk that flush each of its writes
_PAST_CACHES = ("none", "directsync")


def copying(known: Circumstances) -> Limit:
    """A full copy writes all of the base image; the other methods next to nothing, whatever its size."""
    if known.params.get("method") != "copy":
        raise NoLimit("only metadata is written, and nothing waits for it to reach the disk")
    return passed(base_mib(known), "", known.probed("disk write", known.host("host")), MS)


def copying_image(known: Circumstances) -> Limit:
    """A full copy has at least what its guest read of it: how large an image is, nobody tells."""
    if known.params.get("method") != "copy":
        raise NoLimit("only metadata is written, and nothing waits for it to reach the disk")
    read_mib = known.measured("read_mib")
    return passed(read_mib, " that its guest read", known.probed("disk write", known.host("host")), MS)


def one_write(known: Circumstances) -> Limit:
    """A guest's write past its own caches, as its disk treats it on the host."""
    host, cache = known.host("host"), known.cache
    if cache in _FLUSHING:
        term = known.probed("flush", host)
    elif cache == "none" and known.params.get("inside", "none") == "none":
        term = known.probed("small write", host)
    else:
        raise NoLimit(f"the host's page cache takes the guest's writes ({cache_told(known)})")
    return no_less(term.value, f"one {term.told}")


def one_read(known: Circumstances) -> Limit:
    if known.cache not in _PAST_CACHES or known.params.get("inside", "none") != "none":
        raise NoLimit(f"the host's page cache answers the guest's reads ({cache_told(known)})")
    term = known.probed("small read", known.host("host"))
    return no_less(term.value, f"one {term.told}")


def cache_told(known: Circumstances) -> str:
    """Why the host's cache is in the way; a file system in a file has it, too."""
    inside = known.params.get("inside", "none")
    return f"cache = {known.cache or 'not told'}" + (f", on {inside} in a file" if inside != "none" else "")


def first_write(known: Circumstances) -> Limit:
    """The whole cluster is written before the write is answered, where a disk copies by clusters."""
    if known.cache not in (*_FLUSHING, "none") or known.params.get("inside", "none") != "none":
        raise NoLimit(f"the host's page cache takes the guest's writes ({cache_told(known)})")
    chunk = chunk_bytes(known)
    return passed(chunk / MIB, " copied", known.probed("disk write", known.host("host")), US)


def chunk_bytes(known: Circumstances) -> int:
    """What a first write copies: a cluster of an overlay, or the part of one that is known by itself."""
    if known.params.get("method") != "overlay" or known.params.get("preallocation", "off") != "off":
        return write_test.BLOCK_BYTES
    asked = count_of(known.params.get("cluster_size_kib"))
    cluster_kib = asked or known.cluster_kib
    if not cluster_kib:
        raise NoLimit("the size of the overlay's clusters is not told")
    parts = _PARTS_OF_A_CLUSTER if known.params.get("extended_l2") == "yes" else 1
    return max(cluster_kib * KIB // parts, 1)


def amplification(known: Circumstances) -> Limit:
    """Each cluster that the write test touches is written whole once, and each block once more."""
    if known.cache not in (*_FLUSHING, "none") or known.params.get("inside", "none") != "none":
        raise NoLimit(f"what the host's page cache still has is not on the device ({cache_told(known)})")
    chunk = chunk_bytes(known)
    sectors = count_of(known.params.get("offset_sectors")) or 0
    pieces = touched_pieces(chunk, sectors * _SECTOR_BYTES)
    once = write_test.BLOCKS * write_test.BLOCK_BYTES
    written = max(pieces * chunk, once) + once
    size = f"{chunk // KIB} KiB" if chunk >= KIB else f"{chunk} bytes"
    return no_less(written / (write_test.PASSES * once), f"{pieces} pieces of {size}, then every block once more")


def touched_pieces(chunk: int, offset: int) -> int:
    starts = [offset + number * write_test.STRIDE_BYTES for number in range(write_test.BLOCKS)]
    touched: set[int] = set()
    for start in starts:
        touched.update(range(start // chunk, (start + write_test.BLOCK_BYTES - 1) // chunk + 1))
    return len(touched)


def wipe_ms(known: Circumstances) -> Limit:
    """`dd` writes all of the volume; the other ways only say that it is forgotten, and wait until that is kept."""
    host = known.host("host")
    if known.params.get("method") == "dd":
        return passed(known.count("volume_mib"), "", known.probed("disk write", host), MS)
    term = known.probed("flush", host)
    return no_less(term.value / US * MS, f"one {term.told}")


def wipe_speed(known: Circumstances) -> Limit:
    if known.params.get("method") == "dd":
        return fastest(known.probed("disk write", known.host("host")))
    mib, least = known.count("volume_mib"), wipe_ms(known)
    return Limit(mib / (least.value / MS), "higher", f"{mib} MiB ÷ {least.why}")
