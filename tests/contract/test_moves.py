"""Guests on the move, on a real cluster: three hosts in two zones, with a QEMU that moves guests unharmed."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from scenarios import live_migration
from tests.helpers.labs import Lab, lab_on, outcomes_of, values_of
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
