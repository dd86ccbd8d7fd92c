"""The limit of each figure, from what was probed where it was measured.

Each rule is a bound that nothing can beat, and has the shape of its formula. Metrics without a rule say in their
declaration why nothing bounds them; a rule raises NoLimit where its terms are not known of this figure.
"""

import math
from collections.abc import Callable, Mapping
from statistics import median

from farm.analysis.limits import Circumstances, Limit, NoLimit, Term, count_of
from scenarios import conflicts, evacuation, image_streaming, object_as_file, write_test
from scenarios.probes import OBSERVER, STORAGE
from scenarios.registry import SCENARIOS

Rule = Callable[[Circumstances], Limit]

_S, _MS, _US = 1.0, 1e3, 1e6
_KIB, _MIB = 1 << 10, 1 << 20
_SECTOR_BYTES = 512
_PARTS_OF_A_CLUSTER = 32  # with extended_l2
_FLUSHING = ("writethrough", "directsync")  # caches of a guest's disk that flush each of its writes
_PAST_CACHES = ("none", "directsync")


def limit_of(scenario: str, metric: str, known: Circumstances) -> Limit | str:
    """The limit, or why none is known."""
    rule = _RULES.get((scenario, metric))
    if rule is None:
        return unlimited(scenario, metric) or "none is known of this version"
    try:
        limit = rule(known)
    except NoLimit as reason:
        return str(reason)
    return limit if 0 < limit.value < math.inf else "what its hosts told makes no sense"


def unlimited(scenario: str, metric: str) -> str:
    """Why nothing can ever bound the metric, as its scenario declares; nothing where a rule may."""
    declared = SCENARIOS[scenario].metrics if scenario in SCENARIOS else ()
    return next((one.no_limit for one in declared if one.name == metric), "")


def is_bounded(scenario: str, metric: str) -> bool:
    """Whether there is a rule."""
    return (scenario, metric) in _RULES


# ---- what rules are made of


def _passed(mib: float, what: str, speed: Term, unit: float) -> Limit:
    """The time that so much takes at this speed."""
    return Limit(mib / speed.value * unit, "lower", f"{mib:.3g} MiB{what} ÷ {speed.told}")


def _fastest(speed: Term) -> Limit:
    return Limit(speed.value, "higher", speed.told)


def _no_less(value: float, why: str) -> Limit:
    return Limit(value, "lower", why)


def _tightest(*rules: Rule) -> Rule:
    """The tightest of several bounds on one figure, of those whose terms are known."""

    def rule(known: Circumstances) -> Limit:
        found, reasons = [], []
        for one in rules:
            try:
                found.append(one(known))
            except NoLimit as reason:
                reasons.append(reason)
        if not found:
            raise reasons[0]
        is_floor = found[0].better == "lower"
        return max(found, key=lambda limit: limit.value) if is_floor else min(found, key=lambda limit: limit.value)

    return rule


def _lowest(*terms: Term) -> Term:
    return min(terms, key=lambda term: term.value)


def _known_of(*terms: Callable[[], Term]) -> Term:
    """The lowest of the terms that are known; raises NoLimit where none is."""
    found, reasons = [], []
    for term in terms:
        try:
            found.append(term())
        except NoLimit as reason:
            reasons.append(reason)
    if not found:
        raise reasons[0]
    return _lowest(*found)


def _into(known: Circumstances, source: str, target: str) -> Term:
    """How fast bytes come from one host into another's memory, where each is written once: a copy reads it as well."""

    def memory() -> Term:
        copied = known.probed("memory copy", target)
        return Term(2 * copied.value, f"2 × {copied.told}")

    return _known_of(lambda: known.probed("network", source, target), memory)


def _capped(known: Circumstances, speed: Term) -> Term:
    """With the cap of the scenario's parameter, where there is one: it is set at the sender's link."""
    cap = count_of(known.params.get("bandwidth_mib_s"))
    return _lowest(speed, Term(float(cap), f"a cap of {cap} MiB/s")) if cap else speed


def _round_trip(unit: float, known: Circumstances, one: str, other: str) -> Limit:
    """The quicker of both ways, since neither end begins it."""
    term = _known_of(lambda: known.probed("round trip", one, other), lambda: known.probed("round trip", other, one))
    return _no_less(term.value / _US * unit, f"one {term.told}")


# ---- boots


def _cpu(known: Circumstances) -> Limit:
    """The VMMs' CPU time on all processors of their hosts at once."""
    places = {host for role, host in known.hosts.items() if role.partition("-")[0] == "host"}
    cpu_s, cores = known.measured("qemu_cpu_s"), sum(known.cores.get(host, 0) for host in places)
    guests = count_of(known.params.get("guests", 1))
    if not guests or not places or not all(known.cores.get(host) for host in places):
        raise NoLimit("the host does not tell how many processors it has")
    work = f"{cpu_s:.3g} s of CPU time" if guests == 1 else f"{guests} × {cpu_s:.3g} s of CPU time"
    return _no_less(guests * cpu_s / cores * _MS, f"{work} ÷ {cores} processors")


def _cold(known: Circumstances) -> Limit:
    """A cold boot's image comes from the disk."""
    return _passed(known.measured("read_mib"), " read", known.probed("disk read", known.host("host")), _MS)


def _remote(known: Circumstances) -> Limit:
    """What was read of an image on another host has passed the link."""
    read_mib = min(known.measured("read_mib"), known.measured("served_mib"))
    link = _into(known, known.host("server"), known.host("host"))
    return _passed(read_mib, " read", _capped(known, link), _MS)


def _fetching(known: Circumstances) -> Limit:
    """The image comes from where uploads are made, onto the host's disk."""
    host = known.host("host")
    fetched_mib = known.measured("fetch_mib_s") * known.measured("fetch_ms") / _MS
    return _passed(fetched_mib, " fetched", _fetch_speed(known, host), _MS)


def _fetch_speed(known: Circumstances, host: str) -> Term:
    return _known_of(lambda: known.probed("network", OBSERVER, host), lambda: known.probed("disk write", host))


def _fetched_answer(known: Circumstances) -> Limit:
    """Fetched first, booted then."""
    boot = _cpu(known)
    if known.params.get("image") != "fetched":
        return boot
    fetch = _fetching(known)
    return _no_less(fetch.value + boot.value, f"{fetch.why} + {boot.why}")


# ---- disks


def _copying(known: Circumstances) -> Limit:
    """A full copy writes all of the base image; the other methods next to nothing, whatever its size."""
    if known.params.get("method") != "copy":
        raise NoLimit("only metadata is written, and nothing waits for it to reach the disk")
    return _passed(_base_mib(known), "", known.probed("disk write", known.host("host")), _MS)


def _copying_image(known: Circumstances) -> Limit:
    """A full copy has at least what its guest read of it: how large an image is, nobody tells."""
    if known.params.get("method") != "copy":
        raise NoLimit("only metadata is written, and nothing waits for it to reach the disk")
    read_mib = known.measured("read_mib")
    return _passed(read_mib, " that its guest read", known.probed("disk write", known.host("host")), _MS)


def _base_mib(known: Circumstances) -> float:
    if known.base_mib is None or known.base_mib <= 1:
        raise NoLimit("the base image's size is not told")
    return known.base_mib


def _one_write(known: Circumstances) -> Limit:
    """A guest's write past its own caches, as its disk treats it on the host."""
    host, cache = known.host("host"), known.cache
    if cache in _FLUSHING:
        term = known.probed("flush", host)
    elif cache == "none" and known.params.get("inside", "none") == "none":
        term = known.probed("small write", host)
    else:
        raise NoLimit(f"the host's page cache takes the guest's writes ({_cache_told(known)})")
    return _no_less(term.value, f"one {term.told}")


def _one_read(known: Circumstances) -> Limit:
    if known.cache not in _PAST_CACHES or known.params.get("inside", "none") != "none":
        raise NoLimit(f"the host's page cache answers the guest's reads ({_cache_told(known)})")
    term = known.probed("small read", known.host("host"))
    return _no_less(term.value, f"one {term.told}")


def _cache_told(known: Circumstances) -> str:
    """Why the host's cache is in the way; a file system in a file has it, too."""
    inside = known.params.get("inside", "none")
    return f"cache = {known.cache or 'not told'}" + (f", on {inside} in a file" if inside != "none" else "")


def _first_write(known: Circumstances) -> Limit:
    """The whole cluster is written before the write is answered, where a disk copies by clusters."""
    if known.cache not in (*_FLUSHING, "none") or known.params.get("inside", "none") != "none":
        raise NoLimit(f"the host's page cache takes the guest's writes ({_cache_told(known)})")
    chunk = _chunk_bytes(known)
    return _passed(chunk / _MIB, " copied", known.probed("disk write", known.host("host")), _US)


def _chunk_bytes(known: Circumstances) -> int:
    """What a first write copies: a cluster of an overlay, or the part of one that is known by itself."""
    if known.params.get("method") != "overlay" or known.params.get("preallocation", "off") != "off":
        return write_test.BLOCK_BYTES
    asked = count_of(known.params.get("cluster_size_kib"))
    cluster_kib = asked or known.cluster_kib
    if not cluster_kib:
        raise NoLimit("the size of the overlay's clusters is not told")
    parts = _PARTS_OF_A_CLUSTER if known.params.get("extended_l2") == "yes" else 1
    return max(cluster_kib * _KIB // parts, 1)


def _amplification(known: Circumstances) -> Limit:
    """Each cluster that the write test touches is written whole once, and each block once more."""
    if known.cache not in (*_FLUSHING, "none") or known.params.get("inside", "none") != "none":
        raise NoLimit(f"what the host's page cache still has is not on the device ({_cache_told(known)})")
    chunk = _chunk_bytes(known)
    sectors = count_of(known.params.get("offset_sectors")) or 0
    touched = _touched(chunk, sectors * _SECTOR_BYTES)
    once = write_test.BLOCKS * write_test.BLOCK_BYTES
    written = max(touched * chunk, once) + once
    size = f"{chunk // _KIB} KiB" if chunk >= _KIB else f"{chunk} bytes"
    return _no_less(written / (write_test.PASSES * once), f"{touched} pieces of {size}, then every block once more")


def _touched(chunk: int, offset: int) -> int:
    starts = [offset + number * write_test.STRIDE_BYTES for number in range(write_test.BLOCKS)]
    touched: set[int] = set()
    for start in starts:
        touched.update(range(start // chunk, (start + write_test.BLOCK_BYTES - 1) // chunk + 1))
    return len(touched)


def _wipe_ms(known: Circumstances) -> Limit:
    """`dd` writes all of the volume; the other ways only say that it is forgotten, and wait until that is kept."""
    host = known.host("host")
    if known.params.get("method") == "dd":
        return _passed(known.count("volume_mib"), "", known.probed("disk write", host), _MS)
    term = known.probed("flush", host)
    return _no_less(term.value / _US * _MS, f"one {term.told}")


def _wipe_speed(known: Circumstances) -> Limit:
    if known.params.get("method") == "dd":
        return _fastest(known.probed("disk write", known.host("host")))
    mib, least = known.count("volume_mib"), _wipe_ms(known)
    return Limit(mib / (least.value / _MS), "higher", f"{mib} MiB ÷ {least.why}")


# ---- images from another host


def _stream_speed(known: Circumstances) -> Limit:
    """The image passes the link from the host that has it. Nobody says when it is on the disk."""
    return _fastest(_capped(known, _into(known, known.host("server"), known.host("host"))))


def _stream(known: Circumstances) -> Limit:
    speed = _stream_speed(known)
    return _passed(_base_mib(known) - image_streaming.WRITTEN_MIB, "", Term(speed.value, speed.why), _S)


def _served(known: Circumstances) -> Limit:
    mib = _base_mib(known) - image_streaming.WRITTEN_MIB
    return _no_less(mib, f"the image's {mib:g} MiB that no guest wrote")


# ---- the object store


def _to_disks(known: Circumstances) -> Term:
    """Every replica is written; the store's disks are one device here."""
    if not known.replicas:
        raise NoLimit("the store's replicas are not told")
    disks = known.probed("disk write", STORAGE).value
    return Term(disks / known.replicas, f"the store's disks {disks:.0f} MiB/s ÷ {known.replicas} replicas")


def _upload_speed(known: Circumstances) -> Term:
    """All bytes pass the client's link once, and reach the disks as often as there are replicas."""
    return _known_of(lambda: known.probed("network", OBSERVER, STORAGE), lambda: _to_disks(known))


def _segment(known: Circumstances) -> Limit:
    """The middle segment at the speed of the whole link; the last one may be smaller."""
    size, segment = known.count("size_mib"), known.count("segment_mib")
    sizes = [segment] * (size // segment) + ([size % segment] if size % segment else [])
    return _passed(median(sizes), "", known.probed("network", OBSERVER, STORAGE), _S)


def _to_the_store(unit: float) -> Rule:
    return lambda known: _round_trip(unit, known, OBSERVER, STORAGE)


def _pieces(known: Circumstances) -> int:
    if not known.replicas:
        raise NoLimit("the store's replicas are not told")
    if known.params.get("shape") == "single":
        return known.replicas
    return -(-known.count("size_mib") // known.count("segment_mib")) * known.replicas


def _used_disks(known: Circumstances) -> Limit:
    pieces = _pieces(known)
    if known.disks and known.disks < pieces:
        return Limit(known.disks, "higher", f"the store's {known.disks} disks")
    return Limit(pieces, "higher", f"{pieces} pieces of it, replicas counted")


def _skew(known: Circumstances) -> Limit:
    """Even, or as even as so few pieces can lie."""
    if not known.disks:
        raise NoLimit("how many disks the store has is not told")
    used = _used_disks(known)
    return _no_less(known.disks / used.value, f"{known.disks} disks ÷ {used.why}")


def _reading(known: Circumstances) -> Limit:
    mib = object_as_file.RANGE_BYTES / _MIB
    return _passed(mib, "", known.probed("network", STORAGE, OBSERVER), _MS)


def _replacing(known: Circumstances) -> Limit:
    return _passed(known.count("size_mib") // 2, "", _upload_speed(known), _S)


# ---- moves


def _total(known: Circumstances) -> Limit:
    """The memory that was sent passes the link between the two hosts, and a disk that is copied along all of it."""
    link = _into(known, known.host("source"), known.host("target"))
    mib = known.measured("sent_mib")
    if known.params.get("disk") == "copied":
        return _passed(mib + _base_mib(known), " of memory and disk", link, _MS)
    return _passed(mib, " sent", link, _MS)


def _pause(known: Circumstances) -> Limit:
    """The target says that it has all, and who asks the guest hears it there. What was left to send nobody tells."""
    return _round_trip(_MS, known, known.host("source"), known.host("target"))


def _told_pause(known: Circumstances) -> Limit:
    limit = _pause(known)
    if limit.value < 1:
        raise NoLimit(f"{limit.why}: less than the whole ms in which it is told")
    return limit


def _memory_sent(known: Circumstances) -> Limit:
    """What a guest writes all the while looks random: every page of it has to be sent once."""
    mib = known.count("working_set_mib")
    return _no_less(mib, f"the guest's working set of {mib} MiB")


def _wire(known: Circumstances) -> Limit:
    mib, sent = known.count("working_set_mib"), f"the guest's working set of {known.count('working_set_mib')} MiB"
    if known.params.get("disk") == "copied":
        return _no_less(mib + _base_mib(known), f"{sent} and its disk of {_base_mib(known):g} MiB")
    return _no_less(mib, sent)


def _guests_mib(known: Circumstances) -> float:
    return float(known.count("guests") * evacuation.WORKLOAD.memory_mib)


def _emptied(known: Circumstances) -> Limit:
    here = known.host("emptied")
    return _evacuated(known, [(here, there) for there in _others(known, here)])


def _returned(known: Circumstances) -> Limit:
    here = known.host("emptied")
    return _evacuated(known, [(there, here) for there in _others(known, here)])


def _evacuated(known: Circumstances, links: list[tuple[str, str]]) -> Limit:
    """The guests' working sets over all links together; over the quickest where one follows the other."""
    speeds = [known.probed("network", *link) for link in links]
    if not speeds:
        raise NoLimit("no other host is told")
    speed = _together(speeds) if known.params.get("order") == "parallel" else max(speeds, key=lambda one: one.value)
    return _passed(_guests_mib(known), " of working sets", speed, _S)


def _together(speeds: list[Term]) -> Term:
    total = sum(speed.value for speed in speeds)
    return Term(total, f"{len(speeds)} links together {total:.0f} MiB/s") if len(speeds) > 1 else speeds[0]


def _others(known: Circumstances, here: str) -> list[str]:
    return sorted(set(known.hosts.values()) - {here})


def _evacuation_sent(known: Circumstances) -> Limit:
    mib = 2 * _guests_mib(known)
    return _no_less(mib, f"the guests' working sets, both ways: {mib:g} MiB")


def _evacuation_pause(known: Circumstances) -> Limit:
    """The least of the pauses that the moves could have."""
    here = known.host("emptied")
    pauses = [_round_trip(_MS, known, here, there) for there in _others(known, here)]
    if not pauses:
        raise NoLimit("no other host is told")
    return min(pauses, key=lambda limit: limit.value)


def _makespan(known: Circumstances) -> Limit:
    """At once, all links between the hosts are there."""
    return _passed(known.measured("sent_mib"), " sent", _shared(known, _together(_all_links(known))), _S)


def _serial_makespan(known: Circumstances) -> Limit:
    """One after the other, none is quicker than the quickest link."""
    quickest = max(_all_links(known), key=lambda link: link.value)
    return _passed(known.measured("serial_sent_mib"), " sent", _shared(known, quickest), _S)


def _shared(known: Circumstances, speed: Term) -> Term:
    """With the cap under which guests share a link."""
    if known.params.get("case") != "shared-link":
        return speed
    return _lowest(speed, Term(conflicts.CAP_MIB_S, f"a cap of {conflicts.CAP_MIB_S} MiB/s"))


def _all_links(known: Circumstances) -> list[Term]:
    hosts = sorted(set(known.hosts.values()))
    links = [(one, other) for one in hosts for other in hosts if one != other]
    if not links:
        raise NoLimit("no two hosts are told")
    return [known.probed("network", *link) for link in links]


def _conflict_sent(known: Circumstances) -> Limit:
    mib = known.measured("moved") * conflicts.WORKLOAD.memory_mib
    return _no_less(mib, f"{mib:g} MiB of working sets of the guests that moved")


def _unheard(known: Circumstances) -> Limit:
    """A guest whose own host is off the network is not heard for as long."""
    outage_s = count_of(known.params.get("outage_s"))
    if known.params.get("side") != "source" or not outage_s:
        raise NoLimit("the guest's own host stays on the network, or until the move has ended off it")
    return _no_less(outage_s * _MS, f"{outage_s} s without a link")


_RULES: Mapping[tuple[str, str], Rule] = {
    ("boot", "answer_ms"): _tightest(_cpu, _cold),
    ("boot_many", "last_answer_ms"): _cpu,
    ("operator_guest", "answer_ms"): _cpu,
    ("image_start", "create_ms"): _copying_image,
    ("image_start", "answer_ms"): _tightest(_cpu, _remote),
    ("image_fetch", "answer_ms"): _fetched_answer,
    ("image_fetch", "fetch_ms"): _fetching,
    ("image_fetch", "fetch_mib_s"): lambda known: _fastest(_fetch_speed(known, known.host("host"))),
    ("cow_start", "create_ms"): _copying,
    ("cow_start", "answer_ms"): _cpu,
    ("cow_start", "first_write_us"): _tightest(_one_write, _first_write),
    ("cow_start", "second_write_us"): _one_write,
    ("cow_start", "first_write_p99_us"): _tightest(_one_write, _first_write),
    ("cow_start", "second_write_p99_us"): _one_write,
    ("cow_start", "read_us"): _one_read,
    ("cow_start", "write_amplification"): _amplification,
    ("image_streaming", "stream_s"): _stream,
    ("image_streaming", "stream_mib_s"): _stream_speed,
    ("image_streaming", "served_mib"): _served,
    ("image_streaming", "write_p99_us"): _one_write,
    ("image_streaming", "read_p99_after_us"): _one_read,
    ("image_streaming", "write_p99_after_us"): _one_write,
    ("wipe", "wipe_mib_s"): _wipe_speed,
    ("wipe", "wipe_ms"): _wipe_ms,
    ("chunked_upload", "goodput_mib_s"): lambda known: _fastest(_upload_speed(known)),
    ("chunked_upload", "segment_s"): _segment,
    ("chunked_upload", "manifest_s"): _to_the_store(_S),
    ("chunked_upload", "readable_s"): _to_the_store(_S),
    ("chunked_upload", "distinct_disks"): _used_disks,
    ("chunked_upload", "load_skew"): _skew,
    ("object_as_file", "range_ms"): _tightest(_reading, _to_the_store(_MS)),
    ("object_as_file", "copy_mib_s"): lambda known: _fastest(_to_disks(known)),
    ("object_as_file", "overwrite_s"): _replacing,
    ("object_as_file", "delete_s"): _to_the_store(_S),
    ("live_migration", "total_ms"): _total,
    ("live_migration", "downtime_ms"): _told_pause,
    ("live_migration", "blackout_ms"): _pause,
    ("live_migration", "guest_stall_ms"): _pause,
    ("live_migration", "sent_mib"): _memory_sent,
    ("live_migration", "wire_mib"): _wire,
    ("evacuation", "emptied_s"): _emptied,
    ("evacuation", "returned_s"): _returned,
    ("evacuation", "worst_silence_ms"): _evacuation_pause,
    ("evacuation", "sent_mib"): _evacuation_sent,
    ("migration_conflicts", "makespan_s"): _makespan,
    ("migration_conflicts", "serial_makespan_s"): _serial_makespan,
    ("migration_conflicts", "sent_mib"): _conflict_sent,
    ("migration_conflicts", "serial_sent_mib"): _conflict_sent,
    ("link_cut", "silence_ms"): _unheard,
}
