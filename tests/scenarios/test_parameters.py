"""A parameter outside its range is refused in one line; what differs from the defaults identifies a sample."""

from pathlib import Path

import pytest

from scenarios import parameters, sweeps
from scenarios.parameters import Choice, Number, Several
from scenarios.registry import SCENARIOS
from scenarios.strict import BadData, parse_toml
from scenarios.sweeps import Sweep

DECLARED = (
    Number("memory_mib", 128, 96, 4096, "MiB", "the guest's memory"),
    Number("vcpus", 0, 1, 8, "CPUs", "0 is as the stack says"),
    Choice("firmware", "none", ("none", "seabios"), "what boots the kernel"),
    Several("methods", ("copy", "overlay"), ("copy", "overlay"), "how the disk is made"),
)


def test_what_is_not_given_is_as_by_default() -> None:
    values = parameters.read(DECLARED, {"memory_mib": 512})
    assert values == {"memory_mib": 512, "vcpus": 0, "firmware": "none", "methods": ("copy", "overlay")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory_mib": 64}, r"memory_mib = 64 must be a whole number from 96 to 4096 \(MiB\)"),
        ({"memory_mib": True}, "memory_mib = True must be a whole number"),
        ({"memory_mib": "128"}, "memory_mib = '128' must be a whole number"),
        ({"vcpus": 9}, r"vcpus = 9 must be a whole number from 1 to 8 \(CPUs\), or 0"),
        ({"firmware": "bios"}, "firmware = 'bios' must be one of none, seabios"),
        ({"methods": []}, r"methods = \[\] must be a list of some of copy, overlay"),
        ({"methods": ["copy", "copy"]}, "methods = .* must be a list of some of"),
        ({"methods": "copy"}, "methods = 'copy' must be a list of some of"),
        ({"memory_mb": 128}, "unknown parameter 'memory_mb'; did you mean 'memory_mib'"),
        ({"colour": 1}, r"unknown parameter 'colour' \(there are: memory_mib, vcpus, firmware, methods\)"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters.read(DECLARED, given)


def test_only_what_differs_identifies_and_a_choice_of_cells_never_does() -> None:
    values = parameters.read(DECLARED, {"memory_mib": 128, "firmware": "seabios", "methods": ["copy"]})
    assert parameters.identifying(DECLARED, values) == {"firmware": "seabios"}


@pytest.mark.parametrize("name", sweeps.names())
def test_every_sweep_asks_what_its_scenario_can_answer(name: str) -> None:
    sweep = sweeps.load(name)
    declared = SCENARIOS[sweep.scenario].parameters
    told = [parameters.identifying(declared, parameters.read(declared, cell.params)) for cell in sweep.cells]
    assert len(sweep.cells) >= 2
    assert all(told.count(one) == 1 for one in told), "two cells of a sweep would be one series"


def test_a_sweep_has_every_combination_of_its_axes() -> None:
    text = 'title = "t"\nscenario = "chunked_upload"\ncell_s = 2\nblocks = 3\n[axis]\nparallel = [1, 2]\nsegment_mib = [8, 16, 32]'
    sweep = parse_toml(text, Sweep, source="sweep")
    assert len(sweep.cells) == 6
    assert {"parallel": 2, "segment_mib": 16} in [cell.params for cell in sweep.cells]
    assert sweep.expected_s(builds=2) == 2 * 3 * (sweeps.DEPLOY_S + 6 * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('scenario = "bot"\n[axis]\nx = [1]', "scenario 'bot' does not exist"),
        ('scenario = "boot"\n[axis]', "axis needs at least one parameter"),
        ('scenario = "chunked_upload"\n[axis]\nparallel = [0]', "parallel = 0 must be a whole number from 1 to 64"),
    ],
)
def test_a_sweep_that_asks_nonsense_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        parse_toml(f'title = "t"\ncell_s = 1\n{text}', Sweep, source="sweep")


def test_a_sweep_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there is no sweep '../boot' \\(there are: "):
        sweeps.load("../boot")
