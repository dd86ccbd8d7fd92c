"""Clocks that jump are noticed, and void what their hosts took part in; drift and uncertainty are no jump."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workers.test_sheet import sheet
from workers.clocks import Clock, at_one_moment, jump_s, told_jumps
from workers.hosts.namespaces import LocalCluster
from workers.hypervisors.qemu import QemuCluster

BEFORE = Clock(ahead_s=2.0, bound_s=0.001, at_s=100.0)


@pytest.mark.parametrize(
    ("after", "jump"),
    [
        (Clock(2.0, 0.001, 130.0), None),
        (Clock(2.0019, 0.001, 100.0), None),  # within both bounds
        (Clock(2.0021, 0.001, 100.0), 0.0021),
        (Clock(1.9979, 0.001, 100.0), -0.0021),
        (Clock(2.016, 0.001, 130.0), None),  # 500 ppm over half a minute
        (Clock(2.018, 0.001, 130.0), 0.018),
        (Clock(2.1, 0.2, 100.0), None),  # not known well enough to tell
    ],
)
def test_a_jump_is_more_than_drift_and_errors_explain(after: Clock, jump: float | None) -> None:
    found = jump_s(BEFORE, after)
    assert (found is None) is (jump is None)
    assert found is None or found == pytest.approx(jump)


@pytest.fixture(scope="module")
def hypervisors(make_cluster: Callable[..., LocalCluster], local_home: Path) -> Iterator[QemuCluster]:
    with QemuCluster(make_cluster("clocks").up(), local_home, "clocks-a1b2c3d4") as hypervisors:
        yield hypervisors


@pytest.mark.machine
def test_a_host_whose_clock_jumped_is_named_once(hypervisors: QemuCluster) -> None:
    assert hypervisors.clock_jumps_s() == {}
    second = hypervisors.links[1]
    second.clock = replace(
        second.clock, ahead_s=second.clock.ahead_s - 0.5
    )  # where it was before it jumped by half a second
    jumps = hypervisors.clock_jumps_s()
    assert jumps == {"h2": pytest.approx(0.5, abs=0.05)}
    assert hypervisors.clock_jumps_s() == {}


def test_what_a_distrusted_host_took_part_in_is_void_by_fault_of_its_donor() -> None:
    page = sheet()
    for hosts in ({"host": "h1"}, {"source": "h1", "target": "h2"}, {}):
        with page.cell(hosts=hosts, number=str(len(hosts))) as cell:
            cell.record("time_ms", 1.0)
    page.distrust(told_jumps({"h2": 0.25}))
    assert [(one.valid, one.void_reason) for one in page.samples()] == [
        (True, None),
        (False, "the clock of host h2 jumped by 250 ms"),
        (True, None),
    ]
    assert [(one.outcome, one.fault) for one in page.outcomes()] == [
        ("measured", None),
        ("failed", "donor"),
        ("measured", None),
    ]


def test_a_clock_that_came_late_once_is_read_again() -> None:
    """As when the host does something else between two readings."""
    readings: list[int] = []

    def tell() -> int:
        if not readings:
            time.sleep(0.5)
        readings.append(len(readings))
        return readings[-1]

    _, told = at_one_moment(tell)
    assert told > 0
