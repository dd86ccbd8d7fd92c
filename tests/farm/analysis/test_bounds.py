"""The limit of each figure, by hand; and every metric of the house has one, or says why not."""

from dataclasses import replace

import pytest

from farm.analysis.bounds import is_bounded, limit_of, unlimited
from farm.analysis.limits import Circumstances, Limit, Place
from scenarios.registry import SCENARIOS

BEST: dict[Place, float] = {
    ("disk read", "h1", None): 800.0,
    ("disk write", "h1", None): 500.0,
    ("disk write", "h2", None): 100.0,
    ("disk write", "storage", None): 1200.0,
    ("small read", "h1", None): 30.0,
    ("small write", "h1", None): 40.0,
    ("flush", "h1", None): 90.0,
    ("memory copy", "h1", None): 8000.0,
    ("memory copy", "h3", None): 1000.0,
    ("network", "h1", "h2"): 2000.0,
    ("network", "h2", "h1"): 1000.0,
    ("network", "observer", "storage"): 600.0,
    ("network", "storage", "observer"): 500.0,
    ("network", "observer", "h1"): 900.0,
    ("round trip", "h1", "h2"): 80.0,
    ("round trip", "observer", "storage"): 60.0,
}
KNOWN = Circumstances(
    params={"method": "overlay", "guests": "1", "volume_mib": "64", "size_mib": "256", "segment_mib": "32"},
    hosts={"host": "h1"},
    beside={"qemu_cpu_s": 2.2, "answer_ms": 2500.0},
    cores={"h1": 2, "h2": 8},
    best=BEST,
    replicas=3,
    base_mib=128.0,
    disks=6,
    cache="writethrough",
    cluster_kib=64,
)
COPY = replace(KNOWN, params={"method": "copy"})
PAST_CACHES = replace(KNOWN, cache="none")
CACHED = replace(KNOWN, cache="writeback")
MOVE = replace(
    KNOWN,
    params={"working_set_mib": "32", "disk": "shared"},
    hosts={"source": "h1", "target": "h2"},
    beside={"sent_mib": 100.0, "total_ms": 900.0},
)
COPIED = replace(MOVE, params={"working_set_mib": "32", "disk": "copied"})
TWO = replace(
    KNOWN,
    params={"case": "crossing"},
    hosts={"host-1": "h1", "host-2": "h2"},
    beside={"sent_mib": 300.0, "serial_sent_mib": 400.0, "moved": 2.0},
)
SHARED_LINK = replace(TWO, params={"case": "shared-link"})
STREAM = replace(KNOWN, params={"bandwidth_mib_s": "0"}, hosts={"host": "h1", "server": "h2"})
CAPPED = replace(STREAM, params={"bandwidth_mib_s": "32"})
REMOTE = replace(CAPPED, beside={"qemu_cpu_s": 2.0, "read_mib": 64.0, "served_mib": 70.0})
FETCHED = replace(
    KNOWN, params={"image": "fetched"}, beside={"qemu_cpu_s": 2.0, "fetch_ms": 500.0, "fetch_mib_s": 100.0}
)
EMPTIED = replace(KNOWN, params={"guests": "3", "order": "serial"}, hosts={"emptied": "h1", "other-1": "h2"})
CUT = replace(KNOWN, params={"side": "source", "outage_s": "5"})
WIPED = replace(KNOWN, params={"method": "dd", "volume_mib": "64"})


@pytest.mark.parametrize(
    ("scenario", "metric", "known", "value", "why"),
    [
        ("boot", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("boot", "answer_ms", replace(KNOWN, hosts={"host": "h2"}), 275.0, "2.2 s of CPU time ÷ 8 processors"),
        ("boot", "answer_ms", replace(KNOWN, beside={"qemu_cpu_s": 0.1, "read_mib": 80.0}), 100.0, "80 MiB read ÷ disk read 800 MiB/s"),
        ("boot_many", "last_answer_ms", replace(KNOWN, params={"guests": "4"}), 4400.0, "4 × 2.2 s of CPU time ÷ 2 processors"),
        ("boot_many", "last_answer_ms", replace(KNOWN, params={"guests": "4"}, hosts={"host": "h1", "host-2": "h2"}), 880.0, "4 × 2.2 s of CPU time ÷ 10 processors"),
        ("cow_start", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("operator_guest", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("image_start", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("image_start", "answer_ms", REMOTE, 2000.0, "64 MiB read ÷ a cap of 32 MiB/s"),
        ("image_fetch", "answer_ms", KNOWN, 1100.0, "2.2 s of CPU time ÷ 2 processors"),
        ("image_fetch", "answer_ms", FETCHED, 1100.0, "50 MiB fetched ÷ disk write 500 MiB/s + 2 s of CPU time ÷ 2 processors"),
        ("image_fetch", "fetch_ms", FETCHED, 100.0, "50 MiB fetched ÷ disk write 500 MiB/s"),
        ("image_fetch", "fetch_mib_s", FETCHED, 500.0, "disk write 500 MiB/s"),
        ("cow_start", "create_ms", COPY, 256.0, "128 MiB ÷ disk write 500 MiB/s"),
        ("image_start", "create_ms", replace(COPY, beside={"read_mib": 20.0}), 40.0, "20 MiB that its guest read ÷ disk write 500 MiB/s"),
        ("cow_start", "first_write_us", KNOWN, 125.0, "0.0625 MiB copied ÷ disk write 500 MiB/s"),
        ("cow_start", "first_write_us", COPY, 90.0, "one flush 90 µs"),
        ("cow_start", "first_write_p99_us", KNOWN, 125.0, "0.0625 MiB copied ÷ disk write 500 MiB/s"),
        ("cow_start", "second_write_us", KNOWN, 90.0, "one flush 90 µs"),
        ("cow_start", "second_write_us", PAST_CACHES, 40.0, "one small write 40 µs"),
        ("cow_start", "read_us", PAST_CACHES, 30.0, "one small read 30 µs"),
        ("cow_start", "write_amplification", KNOWN, 8.5, "128 pieces of 64 KiB, then every block once more"),
        ("cow_start", "write_amplification", replace(KNOWN, params={"method": "overlay", "extended_l2": "yes"}), 1.0, "256 pieces of 2 KiB, then every block once more"),
        ("cow_start", "write_amplification", replace(KNOWN, params={"method": "overlay", "cluster_size_kib": "4", "offset_sectors": "1"}), 1.5, "256 pieces of 4 KiB, then every block once more"),
        ("cow_start", "write_amplification", replace(KNOWN, params={"method": "overlay", "cluster_size_kib": "1024"}), 8.5, "8 pieces of 1024 KiB, then every block once more"),
        ("cow_start", "write_amplification", COPY, 1.0, "128 pieces of 4 KiB, then every block once more"),
        ("image_streaming", "stream_mib_s", STREAM, 1000.0, "network 1000 MiB/s"),
        ("image_streaming", "stream_mib_s", CAPPED, 32.0, "a cap of 32 MiB/s"),
        ("image_streaming", "stream_mib_s", replace(STREAM, hosts={"host": "h3", "server": "h2"}), 2000.0, "2 × memory copy 1000 MiB/s"),
        ("image_streaming", "stream_s", CAPPED, 3.96875, "127 MiB ÷ a cap of 32 MiB/s"),
        ("image_streaming", "served_mib", CAPPED, 127.0, "the image's 127 MiB that no guest wrote"),
        ("chunked_upload", "goodput_mib_s", KNOWN, 400.0, "the store's disks 1200 MiB/s ÷ 3 replicas"),
        ("chunked_upload", "goodput_mib_s", replace(KNOWN, replicas=1), 600.0, "network 600 MiB/s"),
        ("chunked_upload", "goodput_mib_s", replace(KNOWN, replicas=None), 600.0, "network 600 MiB/s"),
        ("chunked_upload", "segment_s", KNOWN, 32 / 600, "32 MiB ÷ network 600 MiB/s"),
        ("chunked_upload", "segment_s", replace(KNOWN, params={"size_mib": "20", "segment_mib": "32"}), 20 / 600, "20 MiB ÷ network 600 MiB/s"),
        ("chunked_upload", "manifest_s", KNOWN, 60e-6, "one round trip 60 µs"),
        ("chunked_upload", "distinct_disks", KNOWN, 6.0, "the store's 6 disks"),
        ("chunked_upload", "distinct_disks", replace(KNOWN, params={"shape": "single"}), 3.0, "3 pieces of it, replicas counted"),
        ("chunked_upload", "load_skew", KNOWN, 1.0, "6 disks ÷ the store's 6 disks"),
        ("chunked_upload", "load_skew", replace(KNOWN, params={"shape": "single"}), 2.0, "6 disks ÷ 3 pieces of it, replicas counted"),
        ("object_as_file", "range_ms", KNOWN, 2.0, "1 MiB ÷ network 500 MiB/s"),
        ("object_as_file", "overwrite_s", KNOWN, 0.32, "128 MiB ÷ the store's disks 1200 MiB/s ÷ 3 replicas"),
        ("object_as_file", "copy_mib_s", KNOWN, 400.0, "the store's disks 1200 MiB/s ÷ 3 replicas"),
        ("object_as_file", "delete_s", KNOWN, 60e-6, "one round trip 60 µs"),
        ("live_migration", "total_ms", MOVE, 50.0, "100 MiB sent ÷ network 2000 MiB/s"),
        ("live_migration", "total_ms", replace(MOVE, hosts={"source": "h2", "target": "h1"}), 100.0, "100 MiB sent ÷ network 1000 MiB/s"),
        ("live_migration", "total_ms", COPIED, 114.0, "228 MiB of memory and disk ÷ network 2000 MiB/s"),
        ("live_migration", "blackout_ms", MOVE, 0.08, "one round trip 80 µs"),
        ("live_migration", "guest_stall_ms", replace(MOVE, hosts={"source": "h2", "target": "h1"}), 0.08, "one round trip 80 µs"),
        ("live_migration", "downtime_ms", replace(MOVE, best={("round trip", "h1", "h2"): 2000.0}), 2.0, "one round trip 2000 µs"),
        ("live_migration", "sent_mib", MOVE, 32.0, "the guest's working set of 32 MiB"),
        ("live_migration", "wire_mib", COPIED, 160.0, "the guest's working set of 32 MiB and its disk of 128 MiB"),
        ("evacuation", "emptied_s", EMPTIED, 0.024, "48 MiB of working sets ÷ network 2000 MiB/s"),
        ("evacuation", "returned_s", EMPTIED, 0.048, "48 MiB of working sets ÷ network 1000 MiB/s"),
        ("evacuation", "sent_mib", EMPTIED, 96.0, "the guests' working sets, both ways: 96 MiB"),
        ("evacuation", "worst_silence_ms", EMPTIED, 0.08, "one round trip 80 µs"),
        ("migration_conflicts", "makespan_s", TWO, 0.1, "300 MiB sent ÷ 2 links together 3000 MiB/s"),
        ("migration_conflicts", "serial_makespan_s", TWO, 0.2, "400 MiB sent ÷ network 2000 MiB/s"),
        ("migration_conflicts", "makespan_s", SHARED_LINK, 9.375, "300 MiB sent ÷ a cap of 32 MiB/s"),
        ("migration_conflicts", "sent_mib", TWO, 32.0, "32 MiB of working sets of the guests that moved"),
        ("link_cut", "silence_ms", CUT, 5000.0, "5 s without a link"),
        ("wipe", "wipe_mib_s", WIPED, 500.0, "disk write 500 MiB/s"),
        ("wipe", "wipe_ms", WIPED, 128.0, "64 MiB ÷ disk write 500 MiB/s"),
        ("wipe", "wipe_ms", KNOWN, 0.09, "one flush 90 µs"),
        ("wipe", "wipe_mib_s", KNOWN, 64 / 90e-6, "64 MiB ÷ one flush 90 µs"),
    ],
)  # fmt: skip
def test_limits(scenario: str, metric: str, known: Circumstances, value: float, why: str) -> None:
    limit = limit_of(scenario, metric, known)
    assert isinstance(limit, Limit), limit
    assert limit.value == pytest.approx(value)
    assert limit.why == why
    declared = {one.name: one.direction for one in SCENARIOS[scenario].metrics}
    assert limit.better == declared[metric]


ALL_LINKS = {("network", one, two): 10.0 for one in ("h1", "h2", "h3") for two in ("h1", "h2", "h3") if one != two}


def test_of_more_than_two_hosts_all_links_count() -> None:
    three: dict[Place, float] = {("network", one, two): speed for (_, one, two), speed in ALL_LINKS.items()}
    many = replace(TWO, hosts={**TWO.hosts, "host-3": "h3"}, best=three)
    limit = limit_of("migration_conflicts", "makespan_s", many)
    assert isinstance(limit, Limit)
    assert (limit.value, limit.why) == (5.0, "300 MiB sent ÷ 6 links together 60 MiB/s")
    parallel = replace(EMPTIED, params={"guests": "3", "order": "parallel"}, best=three)
    limit = limit_of("evacuation", "emptied_s", replace(parallel, hosts={**EMPTIED.hosts, "other-2": "h3"}))
    assert isinstance(limit, Limit)
    assert (limit.value, limit.why) == (2.4, "48 MiB of working sets ÷ 2 links together 20 MiB/s")


@pytest.mark.parametrize(
    ("scenario", "metric", "known", "why"),
    [
        ("boot", "vmm_ms", KNOWN, "how much of the boot's work is done by then nobody tells"),
        ("boot", "qemu_cpu_s", KNOWN, "how much CPU time the work takes is the software's own doing"),
        ("boot", "answer_ms", replace(KNOWN, beside={}), "qemu_cpu_s is not known"),
        ("boot", "answer_ms", replace(KNOWN, cores={}), "the host does not tell how many processors it has"),
        ("boot_many", "last_answer_ms", replace(KNOWN, params={"guests": "many"}), "the host does not tell how many processors it has"),
        ("wipe", "wipe_ms", replace(KNOWN, params={"method": "dd", "volume_mib": "1e9"}), "volume_mib is not known"),
        ("cow_start", "create_ms", KNOWN, "only metadata is written, and nothing waits for it to reach the disk"),
        ("image_start", "create_ms", KNOWN, "only metadata is written, and nothing waits for it to reach the disk"),
        ("cow_start", "create_ms", replace(COPY, base_mib=None), "the base image's size is not told"),
        ("cow_start", "create_ms", replace(COPY, best={}), "disk write of h1 was not probed 3 times since the facts last changed"),
        ("cow_start", "first_write_us", CACHED, "the host's page cache takes the guest's writes (cache = writeback)"),
        ("cow_start", "read_us", KNOWN, "the host's page cache answers the guest's reads (cache = writethrough)"),
        ("cow_start", "write_amplification", CACHED, "what the host's page cache still has is not on the device (cache = writeback)"),
        ("cow_start", "write_amplification", replace(KNOWN, cluster_kib=None), "the size of the overlay's clusters is not told"),
        ("cow_start", "second_write_us", replace(PAST_CACHES, params={"inside": "xfs"}), "the host's page cache takes the guest's writes (cache = none, on xfs in a file)"),
        ("chunked_upload", "goodput_mib_s", replace(KNOWN, best={}), "network of the upload client to the store was not probed 3 times since the facts last changed"),
        ("chunked_upload", "load_skew", replace(KNOWN, disks=None), "how many disks the store has is not told"),
        ("chunked_upload", "speedup", KNOWN, "it is a ratio of two figures, each with a limit of its own or none"),
        ("live_migration", "total_ms", replace(MOVE, beside={}), "sent_mib is not known"),
        ("live_migration", "total_ms", replace(MOVE, hosts={"source": "h1", "target": "h4"}), "network of h1 to h4 was not probed 3 times since the facts last changed"),
        ("live_migration", "downtime_ms", MOVE, "one round trip 80 µs: less than the whole ms in which it is told"),
        ("image_streaming", "stream_mib_s", KNOWN, "no host is told as server"),
        ("image_streaming", "stream_s", replace(STREAM, base_mib=-1.0), "the base image's size is not told"),
        ("object_as_file", "copy_mib_s", replace(KNOWN, replicas=None), "the store's replicas are not told"),
        ("migration_conflicts", "makespan_s", replace(TWO, best={("network", "h1", "h2"): 2000.0}), "network of h2 to h1 was not probed 3 times since the facts last changed"),
        ("migration_conflicts", "serial_makespan_s", replace(TWO, beside={}), "serial_sent_mib is not known"),
        ("link_cut", "silence_ms", replace(CUT, params={"side": "target", "outage_s": "5"}), "the guest's own host stays on the network, or until the move has ended off it"),
        ("dance", "joy", KNOWN, "none is known of this version"),
    ],
)  # fmt: skip
def test_where_no_limit_is_known_none_is_made_up(scenario: str, metric: str, known: Circumstances, why: str) -> None:
    assert limit_of(scenario, metric, known) == why


@pytest.mark.parametrize(
    ("scenario", "metric"), [(name, metric.name) for name, one in SCENARIOS.items() for metric in one.metrics]
)
def test_every_metric_has_a_limit_or_says_why_not(scenario: str, metric: str) -> None:
    assert is_bounded(scenario, metric) is (unlimited(scenario, metric) == "")
