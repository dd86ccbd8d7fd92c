"""The limit of each figure, by hand, and where none is known."""

import math
from dataclasses import replace

import pytest

from farm.analysis.limits import Circumstances, Limit, Place, best_of, limit_of
from scenarios.registry import SCENARIOS

BEST: dict[Place, float] = {
    ("disk write", "h1", None): 500.0,
    ("disk write", "h2", None): 100.0,
    ("disk write", "storage", None): 1200.0,
    ("flush", "h1", None): 90.0,
    ("memory copy", "h1", None): 8000.0,
    ("network", "h1", "h2"): 2000.0,
    ("network", "h2", "h1"): 1000.0,
    ("network", "observer", "storage"): 600.0,
}
KNOWN = Circumstances(
    params={},
    hosts={"host": "h1"},
    beside={"qemu_cpu_s": 2.2, "answer_ms": 2500.0},
    cores={"h1": 2, "h2": 8},
    best=BEST,
    replicas=3,
    base_mib=128.0,
)
MOVE = replace(KNOWN, hosts={"source": "h1", "target": "h2"}, beside={"sent_mib": 100.0, "total_ms": 900.0})
TWO = replace(KNOWN, hosts={"host-1": "h1", "host-2": "h2"}, beside={"sent_mib": 300.0, "serial_sent_mib": 400.0})


@pytest.mark.parametrize(
    ("scenario", "metric", "known", "value", "why"),
    [
        ("boot", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("boot", "answer_ms", replace(KNOWN, hosts={"host": "h2"}), 275.0, "2.2 s of CPU time ÷ 8 processors"),
        ("boot_many", "last_answer_ms", replace(KNOWN, params={"guests": "4"}), 4400.0, "4 × 2.2 s of CPU time ÷ 2 processors"),
        ("cow_start", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("operator_guest", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("image_start", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("image_fetch", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("cow_start", "create_ms", replace(KNOWN, params={"method": "copy"}), 256.0, "128 MiB ÷ disk write 500 MiB/s"),
        ("chunked_upload", "goodput_mib_s", KNOWN, 400.0, "the store's disks 1200 MiB/s ÷ 3 replicas"),
        ("chunked_upload", "goodput_mib_s", replace(KNOWN, replicas=1), 600.0, "network 600 MiB/s"),
        ("chunked_upload", "goodput_mib_s", replace(KNOWN, replicas=None), 600.0, "network 600 MiB/s"),
        ("live_migration", "total_ms", MOVE, 50.0, "100 MiB sent ÷ network 2000 MiB/s"),
        ("live_migration", "total_ms", replace(MOVE, hosts={"source": "h2", "target": "h1"}), 100.0, "100 MiB sent ÷ network 1000 MiB/s"),
        ("image_streaming", "stream_mib_s", replace(KNOWN, hosts={"host": "h1", "server": "h2"}), 1000.0, "network 1000 MiB/s"),
        ("wipe", "wipe_mib_s", replace(KNOWN, params={"method": "dd"}), 500.0, "disk write 500 MiB/s"),
        ("wipe", "wipe_ms", replace(KNOWN, params={"method": "dd", "volume_mib": "64"}), 128.0, "64 MiB ÷ disk write 500 MiB/s"),
        ("object_as_file", "copy_mib_s", KNOWN, 400.0, "the store's disks 1200 MiB/s ÷ 3 replicas"),
        ("migration_conflicts", "makespan_s", TWO, 0.1, "300 MiB sent ÷ network both ways 3000 MiB/s"),
        ("migration_conflicts", "serial_makespan_s", TWO, 0.2, "400 MiB sent ÷ network 2000 MiB/s"),
    ],
)  # fmt: skip
def test_limits(scenario: str, metric: str, known: Circumstances, value: float, why: str) -> None:
    limit = limit_of(scenario, metric, known)
    assert limit is not None
    assert limit.value == pytest.approx(value)
    assert limit.why == why
    if scenario in SCENARIOS:
        declared = {one.name: one.direction for one in SCENARIOS[scenario].metrics}
        assert limit.better == declared[metric]


@pytest.mark.parametrize(
    ("scenario", "metric", "known"),
    [
        ("boot", "vmm_ms", KNOWN),
        ("boot", "qemu_cpu_s", KNOWN),
        ("boot", "answer_ms", replace(KNOWN, beside={})),
        ("boot", "answer_ms", replace(KNOWN, cores={})),
        ("boot_many", "last_answer_ms", replace(KNOWN, params={"guests": "many"})),
        ("boot_many", "last_answer_ms", replace(KNOWN, params={"guests": "-1"})),
        ("wipe", "wipe_ms", replace(KNOWN, params={"method": "dd", "volume_mib": "1e9"})),
        ("cow_start", "create_ms", replace(KNOWN, params={"method": "overlay"})),  # as quick for any size
        ("cow_start", "create_ms", replace(KNOWN, params={"method": "copy"}, base_mib=None)),
        ("cow_start", "create_ms", replace(KNOWN, params={"method": "copy"}, best={})),
        ("cow_start", "first_write_us", KNOWN),
        ("chunked_upload", "goodput_mib_s", replace(KNOWN, best={})),
        ("chunked_upload", "speedup", KNOWN),
        ("live_migration", "total_ms", replace(MOVE, beside={})),  # the hypervisor does not tell what it sent
        ("live_migration", "total_ms", replace(MOVE, hosts={"source": "h1", "target": "h3"})),  # a link nobody probed
        ("live_migration", "blackout_ms", MOVE),
        ("wipe", "wipe_mib_s", replace(KNOWN, params={"method": "discard"})),
        ("wipe", "wipe_ms", replace(KNOWN, params={"method": "dd"})),
        ("image_streaming", "stream_mib_s", KNOWN),
        ("image_streaming", "answer_ms", KNOWN),
        ("object_as_file", "copy_mib_s", replace(KNOWN, replicas=None)),
        ("migration_conflicts", "makespan_s", replace(TWO, hosts={**TWO.hosts, "host-3": "h3"})),
        ("migration_conflicts", "makespan_s", replace(TWO, best={("network", "h1", "h2"): 2000.0})),
        ("migration_conflicts", "serial_makespan_s", replace(TWO, beside={})),
        ("dance", "joy", KNOWN),
    ],
)
def test_where_no_limit_is_known_none_is_made_up(scenario: str, metric: str, known: Circumstances) -> None:
    assert limit_of(scenario, metric, known) is None


@pytest.mark.parametrize(
    ("limit", "value", "share"),
    [
        (Limit(50.0, "lower", ""), 100.0, 0.5),
        (Limit(50.0, "lower", ""), 25.0, 2.0),
        (Limit(50.0, "lower", ""), 0.0, math.inf),
        (Limit(50.0, "higher", ""), 25.0, 0.5),
        (Limit(50.0, "higher", ""), 0.0, 0.0),
    ],
)
def test_a_share_of_one_is_all_that_is_possible(limit: Limit, value: float, share: float) -> None:
    assert limit.share(value) == share


def test_the_best_is_the_largest_speed_and_the_shortest_flush() -> None:
    disk: Place = ("disk read", "h1", None)
    flush: Place = ("flush", "h1", None)
    probes = [(disk, 5.0), (flush, 90.0), (disk, 7.0), (flush, 80.0), (disk, 6.0)]
    assert best_of([*probes, (flush, 85.0)]) == {disk: 7.0, flush: 80.0}
    assert best_of(probes) == {disk: 7.0}  # of the other too few to know that no moment was busy
