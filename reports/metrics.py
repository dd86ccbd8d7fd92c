"""What a figure is called: metrics with their parameters, as pages, links and sentences name them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from farm.verdicts import may_be_judged
from scenarios.contract import Direction, Metric
from scenarios.registry import SCENARIOS

_SPEAKING = ("method", "shape")  # parameters whose values say what they are
_TIME_UNITS = ("s", "ms", "us", "µs")


@dataclass(frozen=True, order=True)
class MeasuredMetric:
    """One metric of one scenario version with one set of parameters: what has a page of its own."""

    scenario: str
    version: int
    metric: str
    params: tuple[tuple[str, str], ...]
    unit: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "MeasuredMetric":
        """From a row that has scenario, version, metric, params (a mapping) and unit."""
        params = tuple(sorted((str(key), str(value)) for key, value in row["params"].items()))
        return cls(str(row["scenario"]), int(row["version"]), str(row["metric"]), params, str(row["unit"]))

    @classmethod
    def of_record(cls, record: Mapping[Any, Any]) -> "MeasuredMetric":
        """From a row of the samples' frame, whose params are JSON text."""
        return cls.of({**record, "params": json.loads(record["params"])})

    @cached_property
    def declared(self) -> Metric | None:
        """The scenario's declaration; None for a version that is no longer in the house."""
        scenario = SCENARIOS.get(self.scenario)
        if scenario is None or scenario.version != self.version:
            return None
        return next((metric for metric in scenario.metrics if metric.name == self.metric), None)

    @property
    def may_be_judged(self) -> bool:
        """Whether its scenario lets anybody be judged by it; the rest is shown in tables, and in no overview."""
        return may_be_judged(self.scenario, self.metric)

    @cached_property
    def asked(self) -> dict[str, str]:
        """Which of the scenario's parameters were not as by default, as a sweep asks them; the rest names its cells."""
        scenario = SCENARIOS.get(self.scenario)
        known = {parameter.name for parameter in scenario.parameters} if scenario else set()
        return {name: value for name, value in self.params if name in known}

    @property
    def direction(self) -> Direction:
        return self.declared.direction if self.declared else "lower"

    @property
    def unit_text(self) -> str:
        """The unit as pages print it."""
        return {"us": "µs", "ratio": "×"}.get(self.unit, self.unit)

    @property
    def better(self) -> str:
        return f"{self.direction} is better"

    @property
    def title(self) -> str:
        """Such as "cow start, overlay: time to first answer"."""
        told = self.declared.title if self.declared else self.metric
        if told[1:2].islower():  # a word, no abbreviation such as CPU
            told = told[:1].lower() + told[1:]
        asked = "".join(f", {words}" for words in self._asked)
        return f"{self.scenario.replace('_', ' ')}{asked}: {told}"

    @property
    def _asked(self) -> list[str]:
        """The parameters as words; a value that does not speak for itself with its parameter's name."""
        return [value if name in _SPEAKING else f"{name.replace('_', ' ')} {value}" for name, value in self.params]

    @property
    def short_title(self) -> str:
        return self.title.split(": ", 1)[1]

    @property
    def group(self) -> str:
        """The scenario with its parameters: what a sentence says became slower."""
        return self.title.split(": ", 1)[0]

    @property
    def slug(self) -> str:
        words = [self.scenario, self.metric, *self._asked, f"v{self.version}"]
        return re.sub(r"[^a-z0-9_.-]+", "_", "-".join(words).lower()).strip(".")

    @property
    def path(self) -> str:
        return f"metrics/{self.slug}.html"

    def change_words(self, ratio: float) -> str:
        """What a ratio means for a reader, such as "1.60 times slower" or "1.37 times higher"."""
        times = f"{ratio_text(max(ratio, 1 / ratio))} times"
        if self.unit in _TIME_UNITS and not self.metric.endswith("cpu_s"):
            return f"{times} {'slower' if ratio > 1 else 'faster'}"
        return f"{times} {'higher' if ratio > 1 else 'lower'}"

    def tone(self, ratio: float | None) -> Literal["worse", "better", "plain"]:
        """ "worse", "better" or "plain" (no change, or none known)."""
        if ratio is None or ratio == 1:
            return "plain"
        return "worse" if (ratio > 1) == (self.direction == "lower") else "better"


def ratio_text(ratio: float) -> str:
    """A ratio with three digits that count."""
    return f"{ratio:.2f}" if 0.1 <= ratio < 10 else f"{ratio:.3g}"


def interval_text(ratio: float, low: float | None, high: float | None) -> str:
    """The interval of `max(ratio, 1/ratio)`, as sentences say it: "[1.55–1.66]", or nothing."""
    if low is None or high is None:
        return ""
    if ratio < 1:
        low, high = 1 / high, 1 / low
    return f"[{ratio_text(low)}–{ratio_text(high)}]"


def number_text(value: float) -> str:
    """Four digits that count, thousands apart by a thin space."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.4g}" if abs(value) >= 0.001 else f"{value:.2e}"
