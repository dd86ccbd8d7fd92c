"""Cells are valid or void together; an error in one cell leaves the others as they are."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from scenarios.contract import Bench, Failed, Metric, ScenarioError, Sheet, Unsupported, WorkNotProven
from scenarios.parameters import Parameter, Values
from workers.sheet import Place, RoundSheet, Verification, classify


@dataclass
class Question:
    name: str = "question"
    version: int = 3
    metrics: tuple[Metric, ...] = (Metric("time_ms", "ms", "lower", 0.1, "Time"),)
    parameters: tuple[Parameter, ...] = ()

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        raise AssertionError("not used here")


def sheet() -> RoundSheet:
    return RoundSheet(Question(), Place("s1", 1, 0, 0, 2, "rev"))


def raising(error: Exception) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


def test_a_cell_without_errors_is_measured_and_its_samples_say_where_they_were_taken() -> None:
    page = sheet()
    with page.cell(hosts={"source": "h1"}, method="copy") as cell:
        cell.record("time_ms", 2.5)
        cell.prove(True, "not told")
    (sample,), (outcome,) = page.samples(), page.outcomes()
    assert (sample.value, sample.unit, sample.params, sample.hosts) == (2.5, "ms", {"method": "copy"}, {"source": "h1"})
    assert (sample.valid, sample.void_reason, sample.version, sample.order) == (True, None, 3, 2)
    assert (outcome.outcome, outcome.fault) == ("measured", None)


@pytest.mark.parametrize(
    ("error", "outcome", "fault"),
    [
        (WorkNotProven("nothing was copied"), "failed", "farm"),
        (Unsupported("no XFS"), "unsupported", None),
        (Failed("hypervisor", "guest died"), "failed", "hypervisor"),
        (Failed("stack", "503"), "failed", "stack"),
    ],
)
def test_an_error_voids_its_own_cell_only(error: ScenarioError, outcome: str, fault: str | None) -> None:
    page = sheet()
    with page.cell(hosts={}, method="bad") as cell:
        cell.record("time_ms", 1.0)
        raise error
    with page.cell(hosts={}, method="good") as cell:
        cell.record("time_ms", 2.0)
    assert [(s.valid, s.void_reason) for s in page.samples()] == [(False, str(error)), (True, None)]
    assert [(o.outcome, o.fault) for o in page.outcomes()] == [(outcome, fault), ("measured", None)]
    assert classify(error) == (outcome, fault)


def test_what_verification_finds_later_voids_the_cell() -> None:
    page = sheet()
    with page.cell(hosts={}) as cell:
        cell.record("time_ms", 1.0)
        cell.verify_later(raising(WorkNotProven("the digest differs")))
        cell.verify_later(raising(AssertionError("must not run after the first failure")))
    Verification([page]).wait()
    assert page.samples()[0].void_reason == "the digest differs"


def test_a_deployment_is_waited_for_only_by_the_checks_that_need_it() -> None:
    page, gone = sheet(), threading.Event()
    told = []
    with page.cell(hosts={}) as cell:
        cell.verify_later(lambda: told.append("needs it"))
        cell.verify_later(lambda: told.append("does not") if gone.wait(10) else None, deployed=False)
    verification = Verification([page])
    verification.wait_for_deployed()
    assert told == ["needs it"]
    gone.set()
    verification.wait()
    assert told == ["needs it", "does not"]


def test_what_was_verified_before_the_next_scenario_is_not_verified_again() -> None:
    page, told = sheet(), list[str]()
    with page.cell(hosts={}) as cell:
        cell.verify_later(lambda: told.append("needs it"))
        cell.verify_later(lambda: told.append("does not"), deployed=False)
    Verification([page]).wait()
    Verification([page]).wait()
    assert sorted(told) == ["does not", "needs it"]


def test_an_error_of_our_own_while_verifying_is_the_farms_fault_and_not_lost() -> None:
    page = sheet()
    with page.cell(hosts={}) as cell:
        cell.record("time_ms", 1.0)
        cell.verify_later(raising(KeyError("oops")))
    Verification([page]).wait()
    assert page.outcomes()[0].fault == "farm"
    assert "KeyError" in (page.outcomes()[0].reason or "")
    assert not page.samples()[0].valid


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_never_recorded(value: float) -> None:
    page = sheet()
    with page.cell(hosts={}) as cell:
        cell.record("time_ms", value)
    assert page.samples() == []
    assert page.outcomes()[0].outcome == "failed"


def test_a_metric_that_was_not_declared_is_a_programming_error() -> None:
    page = sheet()
    with pytest.raises(KeyError, match="speed"), page.cell(hosts={}) as cell:
        cell.record("speed", 1.0)
