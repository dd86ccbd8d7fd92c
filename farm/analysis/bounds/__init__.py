"""The limit of each figure, from what was probed where it was measured.

Each rule is a bound that nothing can beat, and has the shape of its formula. Metrics without a rule say in their
declaration why nothing bounds them; a rule raises NoLimit where its terms are not known of this figure.
"""

import math
from collections.abc import Mapping

from farm.analysis.bounds import disks, guests, moves, store
from farm.analysis.bounds.terms import MS, Rule, S, fastest, tightest
from farm.analysis.limits import Circumstances, Limit, NoLimit
from scenarios.registry import SCENARIOS


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


_RULES: Mapping[tuple[str, str], Rule] = {
    ("boot", "answer_ms"): tightest(guests.cpu, guests.cold),
    ("boot_many", "last_answer_ms"): guests.cpu,
    ("operator_guest", "answer_ms"): guests.cpu,
    ("image_start", "create_ms"): disks.copying_image,
    ("image_start", "answer_ms"): tightest(guests.cpu, guests.remote),
    ("image_fetch", "answer_ms"): guests.fetched_answer,
    ("image_fetch", "fetch_ms"): guests.fetching,
    ("image_fetch", "fetch_mib_s"): lambda known: fastest(guests.fetch_speed(known, known.host("host"))),
    ("cow_start", "create_ms"): disks.copying,
    ("cow_start", "answer_ms"): guests.cpu,
    ("cow_start", "first_write_us"): tightest(disks.one_write, disks.first_write),
    ("cow_start", "second_write_us"): disks.one_write,
    ("cow_start", "first_write_p99_us"): tightest(disks.one_write, disks.first_write),
    ("cow_start", "second_write_p99_us"): disks.one_write,
    ("cow_start", "read_us"): disks.one_read,
    ("cow_start", "write_amplification"): disks.amplification,
    ("image_streaming", "stream_s"): guests.stream,
    ("image_streaming", "stream_mib_s"): guests.stream_speed,
    ("image_streaming", "served_mib"): guests.served,
    ("image_streaming", "write_p99_us"): disks.one_write,
    ("image_streaming", "read_p99_after_us"): disks.one_read,
    ("image_streaming", "write_p99_after_us"): disks.one_write,
    ("wipe", "wipe_mib_s"): disks.wipe_speed,
    ("wipe", "wipe_ms"): disks.wipe_ms,
    ("chunked_upload", "goodput_mib_s"): lambda known: fastest(store.upload_speed(known)),
    ("chunked_upload", "segment_s"): store.segment,
    ("chunked_upload", "manifest_s"): store.to_the_store(S),
    ("chunked_upload", "readable_s"): store.to_the_store(S),
    ("chunked_upload", "distinct_disks"): store.used_disks,
    ("chunked_upload", "load_skew"): store.skew,
    ("object_as_file", "range_ms"): tightest(store.reading, store.to_the_store(MS)),
    ("object_as_file", "copy_mib_s"): lambda known: fastest(store.to_disks(known)),
    ("object_as_file", "overwrite_s"): store.replacing,
    ("object_as_file", "delete_s"): store.to_the_store(S),
    ("live_migration", "total_ms"): moves.total,
    ("live_migration", "downtime_ms"): moves.told_pause,
    ("live_migration", "blackout_ms"): moves.pause,
    ("live_migration", "guest_stall_ms"): moves.pause,
    ("live_migration", "sent_mib"): moves.memory_sent,
    ("live_migration", "wire_mib"): moves.wire,
    ("evacuation", "emptied_s"): moves.emptied,
    ("evacuation", "returned_s"): moves.returned,
    ("evacuation", "worst_silence_ms"): moves.evacuation_pause,
    ("evacuation", "sent_mib"): moves.evacuation_sent,
    ("migration_conflicts", "makespan_s"): moves.makespan,
    ("migration_conflicts", "serial_makespan_s"): moves.serial_makespan,
    ("migration_conflicts", "sent_mib"): moves.conflict_sent,
    ("migration_conflicts", "serial_sent_mib"): moves.conflict_sent,
    ("link_cut", "silence_ms"): moves.unheard,
}
