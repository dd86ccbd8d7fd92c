"""Whether a guest that rewrites and checks memory and disk all the while is alive and whole.

What `live_migration` waits for before the move, and proves after it.
"""

from collections.abc import Sequence

from scenarios.contract import Beat, Bench, Failed, Guest, Workload, WorkNotProven

PAGES_PER_MIB = 256
CHECKS_PER_REWRITE = 4  # pages that the guest checks for each one that it rewrites
STEADY_S = 0.5
STEADY_BEATS = 20  # of about 100 in that time: a busy host may delay them, a paused guest sends none
SETTLE_S = 0.5
# longer than a crowded host delays heartbeats (4 s after a move, with 15 at work for each processor): dead or stopped
SILENCE_S = 10.0
VERIFY_S = 3.0
POLL_S = 0.05
TIMEOUT_S = 20.0
SIGNS_OF_DEATH = ("BUG:", "Oops", "Kernel panic")


def longest_silence_s(beats: Sequence[Beat]) -> float:
    """The longest time between one heartbeat and the next."""
    return max((later.at_s - earlier.at_s for earlier, later in zip(beats, beats[1:], strict=False)), default=0.0)


def words_of_death(console: str) -> str:
    """The first line in which a kernel says that it cannot go on, or nothing."""
    lines = (line.strip() for line in console.splitlines())
    return next((line[:200] for line in lines if any(sign in line for sign in SIGNS_OF_DEATH)), "")


def last_words(guest: Guest) -> str:
    """What its kernel tells of its end, as the end of a sentence about that."""
    words = words_of_death(guest.console())
    return f"; its kernel says: {words}" if words else "; its kernel says nothing of it"


def is_heard(bench: Bench, guest: Guest, since_s: float) -> bool:
    """Whether it beats again after a time, as late as a crowded host may let it."""
    while not guest.beats(since_s, bench.now_s()):
        if bench.now_s() > since_s + SILENCE_S:
            return False
        bench.pause_s(POLL_S)
    return True


def prove_survival(bench: Bench, guest: Guest, workload: Workload, target: str, finished_s: float) -> str:
    """Evidence that the guest lives on, whole and once; raises Failed(hypervisor) or WorkNotProven.

    All of the memory that the workload rewrites must have been checked since the move.
    """
    all_pages = workload.memory_mib * PAGES_PER_MIB
    give_up_s = bench.now_s() + TIMEOUT_S + 2 * all_pages / (CHECKS_PER_REWRITE * workload.pages_per_s)
    pages = blocks = 0
    while bench.now_s() < finished_s + VERIFY_S or pages < all_pages or blocks == 0:
        if bench.now_s() > give_up_s:
            raise WorkNotProven(f"since its migration the guest checked {pages} pages and {blocks} blocks, no more")
        bench.pause_s(POLL_S)
        now_s = bench.now_s()
        beats = guest.beats(finished_s, now_s)
        heard_s = beats[-1].at_s if beats else finished_s
        if now_s > heard_s + SILENCE_S:
            told = f"the guest fell silent {heard_s - finished_s:.1f} s after its migration{last_words(guest)}"
            raise Failed("hypervisor", told)
        if not beats:
            continue
        first, last = beats[0], beats[-1]
        pages, blocks = last.pages_ok - first.pages_ok, last.disk_ok - first.disk_ok
        if last.pages_bad or last.disk_bad:
            bad = f"{last.pages_bad} pages and {last.disk_bad} blocks"
            raise Failed("hypervisor", f"after the guest's migration {bad} are not as it wrote them")
    if words := words_of_death(guest.console()):
        raise Failed("hypervisor", f"after its migration the guest's kernel says: {words}")
    found_on = list(guest.found_on())
    if found_on != [target]:
        raise Failed("hypervisor", f"the guest is on {', '.join(found_on) or 'no host'}, not on {target} alone")
    return f"alive on {target} alone: {len(beats)} heartbeats, {pages} pages and {blocks} blocks checked, none bad"


def prove_survival_alone(bench: Bench, guest: Guest, workload: Workload, target: str, finished_s: float) -> str:
    """As `prove_survival`, and no other host's hypervisor knows of the guest any more."""
    told = prove_survival(bench, guest, workload, target, finished_s)
    known_on = list(guest.known_on())
    if known_on != [target]:
        raise Failed("hypervisor", f"the guest is known on {', '.join(known_on) or 'no host'}, not on {target} alone")
    return told


def wait_until_steady(bench: Bench, guest: Guest) -> None:
    """Until the guest beats, and has checked memory and disk.

    Raises Failed(stack) for a guest whose own kernel gave up: it was deployed as the revision says, and nobody has
    moved it yet. WorkNotProven when it does not get there for another reason.
    """
    started_s = bench.now_s()
    while bench.now_s() < started_s + TIMEOUT_S:
        bench.pause_s(POLL_S)
        now_s = bench.now_s()
        recent = guest.beats(now_s - SILENCE_S, now_s)
        if not recent and now_s > started_s + SILENCE_S:
            break
        steady = [beat for beat in recent if beat.at_s > now_s - STEADY_S]
        if len(steady) >= STEADY_BEATS and steady[0].pages_ok > 0 and steady[0].disk_ok > 0:
            if steady[-1].pages_bad or steady[-1].disk_bad:
                raise WorkNotProven("the guest's memory or disk is not as written before any migration")
            return
    if words := words_of_death(guest.console()):
        raise Failed("stack", f"before any migration the guest's kernel gave up: {words}")
    raise WorkNotProven("before its migration the guest did not beat, and check memory and disk, steadily")
