"""Limits of moves: how long they take, what is sent, and how long a guest is away."""

from farm.analysis.bounds.terms import MS, S, base_mib, into, lowest, no_less, passed, round_trip
from farm.analysis.limits import Circumstances, Limit, NoLimit, Term, count_of
from scenarios import conflicts, evacuation


def total(known: Circumstances) -> Limit:
    """The memory that was sent passes the link between the two hosts, and a disk that is copied along all of it."""
    link = into(known, known.host("source"), known.host("target"))
    mib = known.measured("sent_mib")
    if known.params.get("disk") == "copied":
        return passed(mib + base_mib(known), " of memory and disk", link, MS)
    return passed(mib, " sent", link, MS)


def pause(known: Circumstances) -> Limit:
    """The target says that it has all, and who asks the guest hears it there. What was left to send nobody tells."""
    return round_trip(MS, known, known.host("source"), known.host("target"))


def told_pause(known: Circumstances) -> Limit:
    limit = pause(known)
    if limit.value < 1:
        raise NoLimit(f"{limit.why}: less than the whole ms in which it is told")
    return limit


def memory_sent(known: Circumstances) -> Limit:
    """What a guest writes all the while looks random: every page of it has to be sent once."""
    mib = known.count("working_set_mib")
    return no_less(mib, f"the guest's working set of {mib} MiB")


def wire(known: Circumstances) -> Limit:
    mib, sent = known.count("working_set_mib"), f"the guest's working set of {known.count('working_set_mib')} MiB"
    if known.params.get("disk") == "copied":
        return no_less(mib + base_mib(known), f"{sent} and its disk of {base_mib(known):g} MiB")
    return no_less(mib, sent)


def guests_mib(known: Circumstances) -> float:
    return float(known.count("guests") * evacuation.WORKLOAD.memory_mib)


def emptied(known: Circumstances) -> Limit:
    here = known.host("emptied")
    return evacuated(known, [(here, there) for there in others(known, here)])


def returned(known: Circumstances) -> Limit:
    here = known.host("emptied")
    return evacuated(known, [(there, here) for there in others(known, here)])


def evacuated(known: Circumstances, links: list[tuple[str, str]]) -> Limit:
    """The guests' working sets over all links together; over the quickest where one follows the other."""
    speeds = [known.probed("network", *link) for link in links]
    if not speeds:
        raise NoLimit("no other host is told")
    speed = together(speeds) if known.params.get("order") == "parallel" else max(speeds, key=lambda one: one.value)
    return passed(guests_mib(known), " of working sets", speed, S)


def together(speeds: list[Term]) -> Term:
    all_of_them = sum(speed.value for speed in speeds)
    return Term(all_of_them, f"{len(speeds)} links together {all_of_them:.0f} MiB/s") if len(speeds) > 1 else speeds[0]


def others(known: Circumstances, here: str) -> list[str]:
    return sorted(set(known.hosts.values()) - {here})


def evacuation_sent(known: Circumstances) -> Limit:
    mib = 2 * guests_mib(known)
    return no_less(mib, f"the guests' working sets, both ways: {mib:g} MiB")


def evacuation_pause(known: Circumstances) -> Limit:
    """The least of the pauses that the moves could have."""
    here = known.host("emptied")
    pauses = [round_trip(MS, known, here, there) for there in others(known, here)]
    if not pauses:
        raise NoLimit("no other host is told")
    return min(pauses, key=lambda limit: limit.value)


def makespan(known: Circumstances) -> Limit:
    """At once, all links between the hosts are there."""
    return passed(known.measured("sent_mib"), " sent", shared(known, together(all_links(known))), S)


def serial_makespan(known: Circumstances) -> Limit:
    """One after the other, none is quicker than the quickest link."""
    quickest = max(all_links(known), key=lambda link: link.value)
    return passed(known.measured("serial_sent_mib"), " sent", shared(known, quickest), S)


def shared(known: Circumstances, speed: Term) -> Term:
    """With the cap under which guests share a link."""
    if known.params.get("case") != "shared-link":
        return speed
    return lowest(speed, Term(conflicts.CAP_MIB_S, f"a cap of {conflicts.CAP_MIB_S} MiB/s"))


def all_links(known: Circumstances) -> list[Term]:
    hosts = sorted(set(known.hosts.values()))
    links = [(one, other) for one in hosts for other in hosts if one != other]
    if not links:
        raise NoLimit("no two hosts are told")
    return [known.probed("network", *link) for link in links]


def conflict_sent(known: Circumstances) -> Limit:
    mib = known.measured("moved") * conflicts.WORKLOAD.memory_mib
    return no_less(mib, f"{mib:g} MiB of working sets of the guests that moved")


def unheard(known: Circumstances) -> Limit:
    """A guest whose own host is off the network is not heard for as long."""
    outage_s = count_of(known.params.get("outage_s"))
    if known.params.get("side") != "source" or not outage_s:
        raise NoLimit("the guest's own host stays on the network, or until the move has ended off it")
    return no_less(outage_s * MS, f"{outage_s} s without a link")
