"""Limits of the object store."""

from statistics import median

from farm.analysis.bounds.terms import MIB, MS, Rule, S, known_of, no_less, passed, round_trip
from farm.analysis.limits import Circumstances, Limit, NoLimit, Term
from scenarios import object_as_file
from scenarios.probes import OBSERVER, STORAGE


def to_disks(known: Circumstances) -> Term:
    """Every replica is written; the store's disks are one device here."""
    if not known.replicas:
        raise NoLimit("the store's replicas are not told")
    disks = known.probed("disk write", STORAGE).value
    return Term(disks / known.replicas, f"the store's disks {disks:.0f} MiB/s ÷ {known.replicas} replicas")


def upload_speed(known: Circumstances) -> Term:
    """All bytes pass the client's link once, and reach the disks as often as there are replicas."""
    return known_of(lambda: known.probed("network", OBSERVER, STORAGE), lambda: to_disks(known))


def segment(known: Circumstances) -> Limit:
    """The middle segment at the speed of the whole link; the last one may be smaller."""
    size, segment = known.count("size_mib"), known.count("segment_mib")
    sizes = [segment] * (size // segment) + ([size % segment] if size % segment else [])
    return passed(median(sizes), "", known.probed("network", OBSERVER, STORAGE), S)


def to_the_store(unit: float) -> Rule:
    return lambda known: round_trip(unit, known, OBSERVER, STORAGE)


def pieces_of(known: Circumstances) -> int:
    if not known.replicas:
        raise NoLimit("the store's replicas are not told")
    if known.params.get("shape") == "single":
        return known.replicas
    return -(-known.count("size_mib") // known.count("segment_mib")) * known.replicas


def used_disks(known: Circumstances) -> Limit:
    pieces = pieces_of(known)
    if known.disks and known.disks < pieces:
        return Limit(known.disks, "higher", f"the store's {known.disks} disks")
    return Limit(pieces, "higher", f"{pieces} pieces of it, replicas counted")


def skew(known: Circumstances) -> Limit:
    """Even, or as even as so few pieces can lie."""
    if not known.disks:
        raise NoLimit("how many disks the store has is not told")
    used = used_disks(known)
    return no_less(known.disks / used.value, f"{known.disks} disks ÷ {used.why}")


def reading(known: Circumstances) -> Limit:
    mib = object_as_file.RANGE_BYTES / MIB
    return passed(mib, "", known.probed("network", STORAGE, OBSERVER), MS)


def replacing(known: Circumstances) -> Limit:
    return passed(known.count("size_mib") // 2, "", upload_speed(known), S)
