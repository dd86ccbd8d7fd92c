"""What the steps of a build decide by themselves, and the gate that bundles come in by."""

from pathlib import Path

import pytest

from farm.steps import Gate, failure_of, read_progress
from scenarios.crossing import Plan, Progress
from scenarios.registry import SCENARIOS
from tests.helpers.bundles import Draft, a_plan
from tests.helpers.farmhouse import Farmhouse, build_farmhouse
from tests.helpers.probe import PROBE

DECLARED = {(PROBE.name, PROBE.version): {metric.name: metric for metric in PROBE.metrics}}


@pytest.fixture
def farmhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farmhouse:
    monkeypatch.setitem(SCENARIOS, PROBE.name, PROBE)
    return build_farmhouse(tmp_path)


@pytest.fixture
def gate(farmhouse: Farmhouse) -> Gate:
    return Gate(farmhouse.engine, farmhouse.settings, farmhouse.inventory)


def issue(farmhouse: Farmhouse, session: str, attempt: int = 1) -> Plan:
    plan = a_plan(farmhouse.inventory["acorn"], session, attempt, declared=DECLARED)
    return farmhouse.issue(plan)


def upload(farmhouse: Farmhouse, plan: Plan, name: str = "") -> Path:
    return farmhouse.pack(Draft(plan, DECLARED), name=name or f"{plan.session}-{plan.attempt}.tar.gz")


def states(farmhouse: Farmhouse) -> dict[str, tuple[str, str | None]]:
    return {row["key"]: (row["state"], row["message"]) for row in farmhouse.rows()["session"]}


@pytest.mark.parametrize(
    ("status", "line", "timed_out", "fault", "message"),
    [
        (3, "no worker code here\n", False, "farm", "no worker code here"),
        (4, "host h1: no disk left", False, "donor", "host h1: no disk left"),
        (5, "lease lost", False, "farm", "lease lost"),
        (1, "", False, "farm", "the session program ended with status 1"),
        (-9, "  ", False, "farm", "the session program ended with status -9"),
        (4, "half way", True, "farm", "took longer than its deadline and was ended"),
        (4, "x" * 9000, False, "donor", "x" * 500),
    ],
)
def test_whose_fault_an_exit_is(status: int, line: str, timed_out: bool, fault: str, message: str) -> None:
    failure = failure_of(status, line, timed_out=timed_out)
    assert (failure.fault, failure.message, failure.interrupted) == (fault, message, False)


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ('FARM-PROGRESS {"done":1,"total":4,"what":"boot"}', Progress(1, 4, "boot")),
        ('FARM-PROGRESS {"done":"many"}', None),
        ("FARM-PROGRESS [[[", None),
        ('{"done":1,"total":4,"what":"boot"}', None),
    ],
)
def test_progress_is_what_fits_behind_its_mark(line: str, progress: Progress | None) -> None:
    assert read_progress(line) == progress


def test_an_upload_is_taken_in_and_removed(farmhouse: Farmhouse, gate: Gate) -> None:
    plan = issue(farmhouse, "s1")
    file = upload(farmhouse, plan)
    assert gate.take_in("s1", 1).accepted
    assert not file.exists()
    assert [state for state, _ in states(farmhouse).values()] == ["done"]


def test_a_rejected_upload_is_a_failed_attempt(farmhouse: Farmhouse, gate: Gate) -> None:
    plan = issue(farmhouse, "s1")
    upload(farmhouse, plan).write_bytes(b"no archive")
    assert not gate.take_in("s1", 1).accepted
    ((state, message),) = states(farmhouse).values()
    assert state == "queued"
    assert message is not None
    assert message.startswith("bundle rejected: ")


def test_an_earlier_answer_is_no_answer_to_this_plan(farmhouse: Farmhouse, gate: Gate) -> None:
    first = issue(farmhouse, "s1")
    content = upload(farmhouse, first).read_bytes()
    assert gate.take_in("s1", 1).accepted
    issue(farmhouse, "s2")
    (farmhouse.incoming / "s2-1.tar.gz").write_bytes(content)
    assert not gate.take_in("s2", 1).accepted
    assert sorted(state for state, _ in states(farmhouse).values()) == ["done", "queued"]


def test_what_had_arrived_before_a_crash_is_taken_in(farmhouse: Farmhouse, gate: Gate) -> None:
    plan = issue(farmhouse, "s1")
    upload(farmhouse, plan)
    (farmhouse.incoming / "buildbot-transfer-x1").write_bytes(b"half a bundle")
    (farmhouse.incoming / "nobody-1.tar.gz").write_bytes(b"no archive")
    for _ in range(2):
        gate.take_in_leftovers()
        assert list(farmhouse.incoming.iterdir()) == []
        assert [state for state, _ in states(farmhouse).values()] == ["done"]
    assert [row["session"] for row in farmhouse.rows()["bundle"] if row["accepted"]] == ["s1"]
