"""Sweeps: each file beside this one asks one scenario with every combination of its axes' values.

title = "Boot against the guest's memory"
scenario = "boot"
cell_s = 6                # what one combination takes, deployment aside, on emulated hosts

[fixed]                   # parameters that all of its cells have
vcpus = 1

[axis]                    # one or more: every combination is measured
memory_mib = [128, 512, 2048]
"""

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenarios import parameters
from scenarios.crossing import PlannedScenario
from scenarios.registry import SCENARIOS
from scenarios.strict import BadData, read_toml

FOLDER = Path(__file__).resolve().parent
DEPLOY_S = 15  # what a deployment takes beside its cells: deploy, verify, undeploy, on emulated hosts
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class Sweep:
    """The shape of a sweep's file."""

    title: str
    scenario: str
    cell_s: int
    axis: dict[str, list[Any]]
    fixed: dict[str, Any] = field(default_factory=dict)
    blocks: int = 2

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ValueError(f"scenario '{self.scenario}' does not exist (there are: {', '.join(SCENARIOS)})")
        if not self.axis or not all(self.axis.values()):
            raise ValueError("axis needs at least one parameter with at least one value")
        if self.blocks < 1 or self.cell_s < 1:
            raise ValueError("blocks and cell_s must be at least 1")
        for given in self._combinations():
            parameters.read(SCENARIOS[self.scenario].parameters, given)

    @property
    def cells(self) -> tuple[PlannedScenario, ...]:
        """Each combination as a plan has it."""
        version = SCENARIOS[self.scenario].version
        return tuple(PlannedScenario(self.scenario, version, given) for given in self._combinations())

    def expected_s(self, builds: int) -> int:
        """About how long a session of this sweep takes."""
        return builds * self.blocks * (DEPLOY_S + self.cell_s * len(self.cells))

    def _combinations(self) -> list[dict[str, Any]]:
        every = itertools.product(*self.axis.values())
        return [{**self.fixed, **dict(zip(self.axis, values, strict=True))} for values in every]


def names() -> list[str]:
    """All sweeps there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Sweep:
    """Raises BadData for one that does not exist, or asks what its scenario cannot answer."""
    if not _NAME.fullmatch(name) or name not in names():
        raise BadData(f"there is no sweep '{name}' (there are: {', '.join(names())})")
    return read_toml(FOLDER / f"{name}.toml", Sweep)
