"""What is physically possible: the limit of a figure, from what was probed where it was measured.

Each rule is a bound that nothing can beat, made of known terms alone. Where a term is unknown it is left out, so that
the bound is weaker and still true; where nothing is left there is no rule, and "no limit known" is said instead.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from farm.analysis.rules import PROBES_NEEDED
from scenarios.contract import Direction
from scenarios.probes import KINDS, OBSERVER, STORAGE, ProbeName

Place = tuple[ProbeName, str, str | None]  # kind, where, and the other end of a link


@dataclass(frozen=True)
class Limit:
    """In the metric's unit: the least it can be, or the most. `why` says what it is made of."""

    value: float
    better: Direction
    why: str

    def share(self, value: float) -> float:
        """How much of what is possible a value reached: 1 is all of it, and more cannot be."""
        if self.better == "higher":
            return value / self.value
        return self.value / value if value > 0 else math.inf


@dataclass(frozen=True)
class Circumstances:
    """What is known of a figure besides its value; what is not known is missing.

    `params` are all of the scenario's, `hosts` by role, `beside` the other metrics of the same cells, `cores` and
    `best` what the hosts have and can do, `replicas` on how many disks the revision stores everything.
    """

    params: Mapping[str, str]
    hosts: Mapping[str, str]
    beside: Mapping[str, float]
    cores: Mapping[str, int]
    best: Mapping[Place, float]
    replicas: int | None
    base_mib: float | None


def best_of(probes: Iterable[tuple[Place, float]]) -> dict[Place, float]:
    """The best value of each place that was probed often enough.

    A busy moment makes a probe worse, and nothing makes it better than it is.
    """
    found: dict[Place, list[float]] = {}
    for place, value in probes:
        found.setdefault(place, []).append(value)
    enough = {place: values for place, values in found.items() if len(values) >= PROBES_NEEDED}
    return {
        place: max(values) if KINDS[place[0]].better == "higher" else min(values) for place, values in enough.items()
    }


def count_of(value: object) -> int | None:
    """A number that a worker wrote, which need not be one; None for nothing and nonsense."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) else None


def limit_of(scenario: str, metric: str, known: Circumstances) -> Limit | None:
    """None where no limit is known."""
    rule = _RULES.get((scenario, metric))
    return rule(known) if rule else None


def _boot(known: Circumstances) -> Limit | None:
    """The VMM's CPU time on all of the host's processors at once."""
    cpu_s, cores = known.beside.get("qemu_cpu_s"), known.cores.get(known.hosts.get("host", ""))
    guests = count_of(known.params.get("guests", 1))
    if cpu_s is None or not cores or not guests:
        return None
    work = f"{cpu_s:.3g} s of CPU time" if guests == 1 else f"{guests} × {cpu_s:.3g} s of CPU time"
    return Limit(guests * cpu_s / cores * 1e3, "lower", f"{work} ÷ {cores} processors")


def _create(known: Circumstances) -> Limit | None:
    """A full copy writes all of the base image; the other methods write next to nothing, whatever its size."""
    if known.params.get("method") != "copy" or known.base_mib is None:
        return None
    speed = known.best.get(("disk write", known.hosts.get("host", ""), None))
    return (
        Limit(known.base_mib / speed * 1e3, "lower", f"{known.base_mib:g} MiB ÷ disk write {speed:.0f} MiB/s")
        if speed
        else None
    )


def _wipe_speed(known: Circumstances) -> Limit | None:
    """`dd` writes all of the volume; the other methods only say that it is forgotten."""
    speed = known.best.get(("disk write", known.hosts.get("host", ""), None))
    if not speed or known.params.get("method") != "dd":
        return None
    return Limit(speed, "higher", f"disk write {speed:.0f} MiB/s")


def _wipe(known: Circumstances) -> Limit | None:
    speed, volume_mib = _wipe_speed(known), count_of(known.params.get("volume_mib"))
    if speed is None or not volume_mib:
        return None
    return Limit(volume_mib / speed.value * 1e3, "lower", f"{volume_mib} MiB ÷ {speed.why}")


def _stream(known: Circumstances) -> Limit | None:
    """The image passes the link from the host that has it. Nobody says when it is on the disk."""
    link = known.best.get(("network", known.hosts.get("server", ""), known.hosts.get("host", "")))
    return Limit(link, "higher", f"network {link:.0f} MiB/s") if link else None


def _copy_within(known: Circumstances) -> Limit | None:
    """No client's link is in it, but every replica is written."""
    disks = known.best.get(("disk write", STORAGE, None))
    if not disks or not known.replicas:
        return None
    return Limit(disks / known.replicas, "higher", f"the store's disks {disks:.0f} MiB/s ÷ {known.replicas} replicas")


def _goodput(known: Circumstances) -> Limit | None:
    """All bytes pass the client's link once, and reach the disks as often as there are replicas."""
    link = known.best.get(("network", OBSERVER, STORAGE))
    found = [Limit(link, "higher", f"network {link:.0f} MiB/s")] if link else []
    written = _copy_within(known)
    found += [written] if written else []
    return min(found, key=lambda limit: limit.value, default=None)


def _migration(known: Circumstances) -> Limit | None:
    """What was sent passes the link between the two hosts."""
    sent = known.beside.get("sent_mib")
    link = known.best.get(("network", known.hosts.get("source", ""), known.hosts.get("target", "")))
    if not sent or not link:
        return None
    return Limit(sent / link * 1e3, "lower", f"{sent:.3g} MiB sent ÷ network {link:.0f} MiB/s")


def _moves(known: Circumstances) -> Limit | None:
    """Of two hosts: at once, both ways together are there; with more hosts, it is not known which links were used."""
    sent, links = known.beside.get("sent_mib"), _both_ways(known)
    if not sent or not links:
        return None
    return Limit(sent / sum(links), "lower", f"{sent:.3g} MiB sent ÷ network both ways {sum(links):.0f} MiB/s")


def _moves_in_turn(known: Circumstances) -> Limit | None:
    """One after the other, none is quicker than the quicker way."""
    sent, links = known.beside.get("serial_sent_mib"), _both_ways(known)
    if not sent or not links:
        return None
    return Limit(sent / max(links), "lower", f"{sent:.3g} MiB sent ÷ network {max(links):.0f} MiB/s")


def _both_ways(known: Circumstances) -> list[float]:
    """Of the link between the only two hosts; nothing where there are more, or it was not probed."""
    hosts = sorted(set(known.hosts.values()))
    if len(hosts) != 2:
        return []
    one, other = hosts
    links = [known.best.get(("network", one, other)), known.best.get(("network", other, one))]
    found = [link for link in links if link is not None]
    return found if len(found) == len(links) else []


_RULES: Mapping[tuple[str, str], Callable[[Circumstances], Limit | None]] = {
    ("boot", "answer_ms"): _boot,
    ("boot_many", "last_answer_ms"): _boot,
    ("cow_start", "answer_ms"): _boot,
    ("operator_guest", "answer_ms"): _boot,
    ("image_start", "answer_ms"): _boot,
    ("image_fetch", "answer_ms"): _boot,
    ("cow_start", "create_ms"): _create,
    ("image_streaming", "stream_mib_s"): _stream,
    ("wipe", "wipe_mib_s"): _wipe_speed,
    ("wipe", "wipe_ms"): _wipe,
    ("chunked_upload", "goodput_mib_s"): _goodput,
    ("object_as_file", "copy_mib_s"): _copy_within,
    ("live_migration", "total_ms"): _migration,
    ("migration_conflicts", "makespan_s"): _moves,
    ("migration_conflicts", "serial_makespan_s"): _moves_in_turn,
}
