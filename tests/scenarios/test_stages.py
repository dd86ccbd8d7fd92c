"""The ledger of a boot: what is recorded of it, and what it proves."""

from dataclasses import replace
from typing import Any

import pytest

from scenarios.boot import SCENARIO
from scenarios.contract import Stages, WorkNotProven
from scenarios.stages import record_stages
from workers.sheet import OpenCell

SEEN = Stages(
    requested_s=10.0,
    process_s=10.02,
    vcpu_s=10.3,
    running_s=10.31,
    kernel_s=10.5,
    init_s=12.0,
    userspace_s=12.1,
    answer_s=12.2,
)


def cell() -> OpenCell:
    return OpenCell({metric.name: metric for metric in SCENARIO.metrics}, {}, {})


def recorded(stages: Stages) -> dict[str, float]:
    into = cell()
    record_stages(into, stages)
    return {metric: value for metric, value, _ in into.values}


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


@pytest.mark.parametrize("stage", ["process_s", "vcpu_s", "kernel_s", "init_s", "userspace_s"])
def test_a_stage_that_nobody_saw_has_no_sample(stage: str) -> None:
    unseen: dict[str, Any] = {stage: None}
    values = recorded(replace(SEEN, **unseen))
    assert len(values) == 6
    assert stage.replace("_s", "_ms") not in values


def test_a_console_that_the_host_saw_late_spoils_nothing() -> None:
    assert recorded(replace(SEEN, init_s=12.15))["init_ms"] == pytest.approx(2150)


@pytest.mark.parametrize(
    "wrong",
    [
        {"answer_s": 11.9},
        {"kernel_s": 10.2},
        {"process_s": 9.9},
        {"running_s": 9.9},
        {"userspace_s": 10.4},
        {"init_s": 12.3},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_stages_out_of_their_order_prove_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(WorkNotProven):
        record_stages(cell(), replace(SEEN, **wrong))
