"""The ledger of a boot: what is recorded of it, and what it proves."""

from dataclasses import replace
from typing import Any

import pytest

from scenarios.boot import SCENARIO
from scenarios.contract import Moment, Stages, WorkNotProven
from scenarios.stages import record_stages
from workers.sheet import OpenCell


def by_the_host(at_s: float) -> Moment:
    return Moment(at_s, at_s - 0.004, at_s + 0.001)


def by_the_guest(at_s: float) -> Moment:
    """A busy host let it read its clock late."""
    return Moment(at_s, at_s - 0.02, at_s + 0.2)


SEEN = Stages(
    requested_s=10.0,
    process=by_the_host(10.02),
    vcpu=by_the_host(10.3),
    running_s=10.31,
    kernel=by_the_guest(10.5),
    init=by_the_host(12.0),
    userspace=by_the_guest(12.1),
    answer_s=12.2,
)


def cell() -> OpenCell:
    return OpenCell({metric.name: metric for metric in SCENARIO.metrics}, {}, {})


def written(stages: Stages) -> OpenCell:
    into = cell()
    record_stages(into, stages)
    return into


def recorded(stages: Stages) -> dict[str, float]:
    return {metric: value for metric, value, _ in written(stages).values}


def test_every_stage_is_a_metric_since_the_request() -> None:
    assert recorded(SEEN) == {
        "process_ms": pytest.approx(20),
        "vcpu_ms": pytest.approx(300),
        "vmm_ms": pytest.approx(310),
        "kernel_ms": pytest.approx(500),
        "init_ms": pytest.approx(2000),
        "userspace_ms": pytest.approx(2100),
        "answer_ms": pytest.approx(2200),
    }


@pytest.mark.parametrize("stage", ["process", "vcpu", "kernel", "init", "userspace"])
def test_a_stage_that_nobody_saw_has_no_sample(stage: str) -> None:
    unseen: dict[str, Any] = {stage: None}
    values = recorded(replace(SEEN, **unseen))
    assert len(values) == 6
    assert f"{stage}_ms" not in values


def test_a_console_that_the_host_saw_late_spoils_nothing() -> None:
    assert recorded(replace(SEEN, init=by_the_host(12.15)))["init_ms"] == pytest.approx(2150)


@pytest.mark.parametrize(
    ("seen", "untold"),
    [
        ({"kernel": by_the_guest(10.2)}, "kernel_ms"),
        ({"kernel": by_the_guest(10.104)}, "kernel_ms"),
        ({"process": by_the_host(9.9995)}, "process_ms"),
        ({"process": by_the_host(10.302)}, "process_ms"),
        ({"vcpu": by_the_host(10.68)}, "kernel_ms"),
        ({"init": Moment(12.3, 12.19, 12.301)}, "init_ms"),
        ({"userspace": by_the_guest(12.21)}, "userspace_ms"),
    ],
    ids=lambda told: told if isinstance(told, str) else next(iter(told)),
)
def test_a_stage_that_only_the_clocks_put_out_of_order_is_not_told(seen: dict[str, Any], untold: str) -> None:
    told = written(replace(SEEN, **seen))
    assert {metric for metric, *_ in told.values} == set(recorded(SEEN)) - {untold}
    assert [line.startswith(f"{untold} is not told") for line in told.lines] == [True]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"answer_s": 11.9}, "answer_ms came before init_ms"),
        ({"kernel": by_the_guest(10.09)}, "kernel_ms came before vcpu_ms"),
        ({"kernel": None, "userspace": by_the_guest(10.09)}, "userspace_ms came before vcpu_ms"),
        ({"process": by_the_host(9.9)}, "process_ms came before the request"),
        ({"running_s": 9.9}, "vmm_ms came before the request"),
        ({"process": by_the_host(10.31)}, "vcpu_ms came before process_ms"),
        ({"userspace": by_the_guest(10.2)}, "userspace_ms came before kernel_ms"),
        ({"init": by_the_host(12.3)}, "answer_ms came before init_ms"),
        ({"init": by_the_host(10.4)}, "init_ms came before kernel_ms"),
    ],
    ids=lambda told: told if isinstance(told, str) else next(iter(told)),
)
def test_stages_that_cannot_have_been_in_their_order_prove_nothing(wrong: dict[str, Any], reason: str) -> None:
    into = cell()
    with pytest.raises(WorkNotProven, match=reason):
        record_stages(into, replace(SEEN, **wrong))
    assert into.values  # kept, to be looked at
