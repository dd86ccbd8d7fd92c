"""Limits of guests that start: their boot, and images that come from elsewhere."""

from farm.analysis.bounds.terms import MS, S, base_mib, capped, fastest, into, known_of, no_less, passed
from farm.analysis.limits import Circumstances, Limit, NoLimit, Term, count_of
from scenarios import image_streaming
from scenarios.probes import OBSERVER


def cpu(known: Circumstances) -> Limit:
    """The VMMs' CPU time on all processors of their hosts at once."""
    places = {host for role, host in known.hosts.items() if role.partition("-")[0] == "host"}
    cpu_s, cores = known.measured("qemu_cpu_s"), sum(known.cores.get(host, 0) for host in places)
    guests = count_of(known.params.get("guests", 1))
    if not guests or not places or not all(known.cores.get(host) for host in places):
        raise NoLimit("the host does not tell how many processors it has")
    work = f"{cpu_s:.3g} s of CPU time" if guests == 1 else f"{guests} × {cpu_s:.3g} s of CPU time"
    return no_less(guests * cpu_s / cores * MS, f"{work} ÷ {cores} processors")


def cold(known: Circumstances) -> Limit:
    """A cold boot's image comes from the disk."""
    return passed(known.measured("read_mib"), " read", known.probed("disk read", known.host("host")), MS)


def remote(known: Circumstances) -> Limit:
    """What was read of an image on another host has passed the link."""
    read_mib = min(known.measured("read_mib"), known.measured("served_mib"))
    link = into(known, known.host("server"), known.host("host"))
    return passed(read_mib, " read", capped(known, link), MS)


def fetching(known: Circumstances) -> Limit:
    """The image comes from where uploads are made, onto the host's disk."""
    host = known.host("host")
    fetched_mib = known.measured("fetch_mib_s") * known.measured("fetch_ms") / MS
    return passed(fetched_mib, " fetched", fetch_speed(known, host), MS)


def fetch_speed(known: Circumstances, host: str) -> Term:
    return known_of(lambda: known.probed("network", OBSERVER, host), lambda: known.probed("disk write", host))


def fetched_answer(known: Circumstances) -> Limit:
    """Fetched first, booted then."""
    boot = cpu(known)
    if known.params.get("image") != "fetched":
        return boot
    fetch = fetching(known)
    return no_less(fetch.value + boot.value, f"{fetch.why} + {boot.why}")


def stream_speed(known: Circumstances) -> Limit:
    """The image passes the link from the host that has it. Nobody says when it is on the disk."""
    return fastest(capped(known, into(known, known.host("server"), known.host("host"))))


def stream(known: Circumstances) -> Limit:
    speed = stream_speed(known)
    return passed(base_mib(known) - image_streaming.WRITTEN_MIB, "", Term(speed.value, speed.why), S)


def served(known: Circumstances) -> Limit:
    mib = base_mib(known) - image_streaming.WRITTEN_MIB
    return no_less(mib, f"the image's {mib:g} MiB that no guest wrote")
