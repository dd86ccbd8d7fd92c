"""The conflicts that `migration_conflicts` provokes: each is a function that does it, and says what may come of it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from scenarios.contract import (
    Bench,
    Disk,
    Guest,
    Host,
    Unsupported,
    Workload,
    WorkNotProven,
)
from scenarios.moves import Attempt, attempt, attempt_all, makespan_s, sent_mib, wait_for_phase, working_guests

WORKLOAD = Workload(memory_mib=16, pages_per_s=250, disk=True)
CAP_MIB_S = 32
CAP_TOLERANCE = 1.1  # bursts
LINK_LIMIT_S = 120.0
SIGHT_S = 60.0  # for a phase of a move to be seen
RESERVED_MIB = 128


@dataclass
class Conflict:
    """What happened: guests with where they began, all moves in order, and which count of moves made is right."""

    guests: Sequence[tuple[Guest, Host, Disk]]
    attempts: Sequence[Attempt]
    may_move: tuple[int, ...]
    refused_from_s: float | None = None  # where not from the request on
    back: Sequence[Attempt] = field(default_factory=list)

    def ends_on(self, guest: Guest, home: Host) -> str:
        made = [one for one in (*self.attempts, *self.back) if one.guest is guest and one.report]
        return made[-1].target.name if made else home.name


def _guests(bench: Bench, homes: Sequence[Host], reserved_mib: int | None = None) -> Sequence[tuple[Guest, Host, Disk]]:
    places = [(home, home.make_disk("shared")[0]) for home in homes]
    guests = working_guests(bench, places, WORKLOAD, reserved_mib=reserved_mib)
    return [(guest, home, disk) for guest, (home, disk) in zip(guests, places, strict=True)]


def same_guest_twice(bench: Bench) -> Conflict:
    guests = _guests(bench, bench.hosts[:1])
    guest = guests[0][0]
    with bench.hosts[0].link_capped(CAP_MIB_S, limit_s=LINK_LIMIT_S), ThreadPoolExecutor(1) as pool:
        first = pool.submit(attempt, bench, guest, bench.hosts[1])
        wait_for_phase(bench, guest, "transfer", first, timeout_s=SIGHT_S)
        second = attempt(bench, guest, bench.hosts[-1])
    return Conflict(guests, [first.result(), second], may_move=(1,))


def room_for_one(bench: Bench) -> Conflict:
    target = bench.hosts[-1]
    if target.room_mib is None or target.room_mib // RESERVED_MIB != 1:
        room = "no memory to set aside" if target.room_mib is None else f"{target.room_mib} MiB to set aside"
        raise Unsupported(f"host {target.name} has {room}, not room for one guest of {RESERVED_MIB} MiB")
    guests = _guests(bench, bench.hosts[:2], RESERVED_MIB)
    moves = [(guest, target) for guest, home, _ in guests if home is not target]
    return Conflict(guests, attempt_all(bench, moves, at_once=len(moves)), may_move=tuple(range(len(moves))))


def crossing(bench: Bench) -> Conflict:
    one, other = bench.hosts[:2]
    guests = _guests(bench, [one, other])
    moves = [(guests[0][0], other), (guests[1][0], one)]
    return Conflict(guests, attempt_all(bench, moves, at_once=2), may_move=(2,))


def shared_link(bench: Bench) -> Conflict:
    source, target = bench.hosts[:2]
    guests = _guests(bench, [source, source])
    with source.link_capped(CAP_MIB_S, limit_s=LINK_LIMIT_S):
        together = attempt_all(bench, [(guest, target) for guest, *_ in guests], at_once=2)
    with target.link_capped(CAP_MIB_S, limit_s=LINK_LIMIT_S):
        back = attempt_all(bench, [(guest, source) for guest, *_ in guests], at_once=1)
    for attempts in (together, back):
        if (sent_mib(attempts) or 0) > CAP_TOLERANCE * CAP_MIB_S * makespan_s(attempts):
            raise WorkNotProven(f"the capped link carried more than {CAP_MIB_S} MiB/s")
    return Conflict(guests, together, may_move=(2,), back=back)


def cancel(bench: Bench) -> Conflict:
    guests = _guests(bench, bench.hosts[:1])
    guest = guests[0][0]
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(attempt, bench, guest, bench.hosts[1])
        wait_for_phase(bench, guest, "switch-over", moving, timeout_s=SIGHT_S)
        cancelled_s = bench.now_s()
        guest.cancel_migration()
    return Conflict(guests, [moving.result()], may_move=(0, 1), refused_from_s=cancelled_s)


CASES: dict[str, Callable[[Bench], Conflict]] = {
    "same-guest-twice": same_guest_twice,
    "room-for-one": room_for_one,
    "crossing": crossing,
    "shared-link": shared_link,
    "cancel": cancel,
}
