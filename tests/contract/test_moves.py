"""Guests on the move, on a real cluster: three hosts in two zones, with a QEMU that moves guests unharmed."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from scenarios import evacuation, link_cut, live_migration, migration_conflicts
from scenarios.contract import WorkNotProven
from tests.helpers.labs import InterferingBench, Lab, lab_on, outcomes_of, values_of
from tests.helpers.local_clusters import planned_cluster

pytestmark = pytest.mark.machine

ZONES = ("here/room-1", "here/room-2", "here/room-2")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    plain = planned_cluster("moves", "local:backports", hosts=3)
    hosts = tuple(replace(host, zone=zone) for host, zone in zip(plain.hosts, ZONES, strict=True))
    with lab_on(replace(plain, hosts=hosts), tmp_path_factory.mktemp("home")) as lab:
        yield lab


@pytest.mark.parametrize(
    ("disk", "placement", "hosts"),
    [("copied", "same-zone", ("h2", "h3")), ("copied-overlay", "other-zone", ("h1", "h2"))],
)
def test_a_guests_disk_goes_with_it_within_a_zone_or_across(
    lab: Lab, disk: str, placement: str, hosts: tuple[str, str]
) -> None:
    sheet = lab.measure(live_migration.SCENARIO, lab.bench(), disk=disk, placement=placement)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    assert {tuple(sample.hosts.values()) for sample in sheet.samples()} == {hosts}
    assert outcome.evidence[0].startswith(f"alive on {hosts[1]} alone")
    assert ("were copied" if disk == "copied" else "from the base") in outcome.evidence[1]
    assert {"total_ms", "guest_stall_ms", "brownout_ms"} <= set(values_of(sheet))
    assert lab.guests_left() == []


def test_zones_that_the_cluster_does_not_have_are_unsupported(lab: Lab) -> None:
    bench = lab.bench()
    bench.hosts = bench.hosts[1:]
    (outcome,) = outcomes_of(lab.measure(live_migration.SCENARIO, bench, placement="other-zone"))
    assert outcome.outcome == "unsupported"
    assert "h2 in here/room-2, h3 in here/room-2" in (outcome.reason or "")


def test_a_host_is_emptied_and_gets_its_guests_back(lab: Lab) -> None:
    sheet = lab.measure(evacuation.SCENARIO, lab.bench(), order="parallel", guests=2)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    assert outcome.evidence[0] == "h1 emptied: its 2 guests live on h2, h3"
    assert [told.startswith("alive on h1 alone") for told in outcome.evidence[1:]] == [True, True]
    assert set(values_of(sheet)) == {metric.name for metric in evacuation.SCENARIO.metrics}
    assert lab.guests_left() == []


def test_a_guest_that_is_paused_away_from_home_does_not_count_as_evacuated(lab: Lab) -> None:
    bench = InterferingBench(lab, when=lambda host: host == "h2")
    sheet = lab.measure(evacuation.SCENARIO, bench, guests=1)
    (outcome,) = outcomes_of(sheet)
    assert bench.suspended
    assert (outcome.outcome, outcome.fault) == ("failed", "hypervisor")
    assert "silent" in (outcome.reason or "")
    assert not any(sample.valid for sample in sheet.samples())
    assert lab.guests_left() == []


def test_a_guest_is_moved_when_the_link_of_its_host_is_back(lab: Lab) -> None:
    sheet = lab.measure(link_cut.SCENARIO, lab.bench(), side="source", outage_s=2)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    values = values_of(sheet)
    assert values["moved"] == 1
    assert values["silence_ms"] > 2000
    assert values["ended_s"] > 2
    assert outcome.evidence[-1].startswith("alive on h2 alone")
    assert lab.guests_left() == []


def test_a_guest_stays_where_it_is_when_the_link_breaks_for_good(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_cut, "PATIENCE_S", 6.0)
    sheet = lab.measure(link_cut.SCENARIO, lab.bench(), outage_s=0)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    values = values_of(sheet)
    assert values["moved"] == 0
    assert values["daemon_cpu_s"] > 0
    assert "not done within 6 s" in outcome.evidence[0]  # it hung, until we gave it up
    assert outcome.evidence[-1].startswith("alive on h1 alone")
    assert lab.guests_left() == []


@pytest.mark.parametrize(
    ("case", "moved", "refusal"),
    [
        ("same-guest-twice", {1}, "there no more|another migration job"),
        ("room-for-one", {0, 1}, "memory"),
        ("crossing", {2}, None),
        ("shared-link", {2}, None),
        ("cancel", {0, 1}, "migration out|expected state: cancelled"),  # as far as QEMU had come
    ],
)
def test_moves_in_each_others_way_leave_all_guests_whole(
    lab: Lab, case: str, moved: set[int], refusal: str | None
) -> None:
    sheet = lab.measure(migration_conflicts.SCENARIO, lab.bench(), case=case)
    (outcome,) = outcomes_of(sheet)
    assert (outcome.outcome, outcome.reason) == ("measured", None)
    values = values_of(sheet)
    moves = [told for told in outcome.evidence if told.startswith("move ")]
    refused = [told for told in moves if not told.endswith("made")]
    assert values["moved"] in moved
    assert values["moved"] == len(moves) - len(refused)
    assert ("refusal_s" in values) == bool(refused)
    assert all(refusal is not None and re.search(refusal, told) for told in refused), refused
    assert sum(told.startswith("alive on") for told in outcome.evidence) == (
        1 if len(moves) == 1 or moved == {1} else 2
    )
    assert ("serial_makespan_s" in values) == (case == "shared-link")
    assert lab.guests_left() == []


def test_a_link_that_was_not_cut_all_the_while_proves_nothing(lab: Lab) -> None:
    """As if a host's own monitor had put it up again."""
    host = lab.bench().hosts[0]
    agent = next(link.agent for link in lab.qemu.links if link.name == host.name)
    speak = f"import socket; socket.socket().connect_ex(('{lab.hosts.observer.address}', 1))"

    def meddle() -> None:
        with host.link_cut(limit_s=60):
            agent.run(["ip", "link", "set", "eth0", "up"], timeout_s=10)
            agent.run(["/usr/bin/python3", "-c", speak], timeout_s=10)

    with pytest.raises(WorkNotProven, match="went over the link of h1 while it was cut"):
        meddle()
