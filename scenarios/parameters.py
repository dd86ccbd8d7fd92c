"""What a scenario may be asked with: its parameters, each with a range, checked before anything is measured.

A scenario declares them; plans, sweeps and settings give values; `read` refuses what does not fit. What differs from
the defaults stands in every sample, since a figure taken otherwise belongs to a series of its own.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Value = int | str | tuple[str, ...]
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Number:
    """A whole number from `low` to `high`, in `unit`. A default beside them means that somebody else decides."""

    name: str
    default: int
    low: int
    high: int
    unit: str
    told: str

    def read(self, given: object) -> int:
        if (
            isinstance(given, bool)
            or not isinstance(given, int)
            or not (self.low <= given <= self.high or given == self.default)
        ):
            beside = "" if self.low <= self.default <= self.high else f", or {self.default}"
            allowed = f"a whole number from {self.low} to {self.high} ({self.unit}){beside}"
            raise ValueError(f"{self.name} = {given!r} must be {allowed}")
        return given


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    name: str
    default: str
    values: tuple[str, ...]
    told: str

    def read(self, given: object) -> str:
        if not isinstance(given, str) or given not in self.values:
            raise ValueError(f"{self.name} = {given!r} must be one of {', '.join(self.values)}")
        return given


@dataclass(frozen=True)
class Several:
    """Which of its cells a scenario measures. Each cell says which one it is, so this identifies no sample."""

    name: str
    default: tuple[str, ...]
    values: tuple[str, ...]
    told: str

    def read(self, given: object) -> tuple[str, ...]:
        words = tuple(given) if isinstance(given, list | tuple) else ()
        if not words or any(word not in self.values for word in words) or len(set(words)) < len(words):
            raise ValueError(f"{self.name} = {given!r} must be a list of some of {', '.join(self.values)}")
        return words


Parameter = Number | Choice | Several


def read(parameters: Iterable[Parameter], given: Mapping[str, object]) -> dict[str, Value]:
    """A value for every parameter, the default where none is given; raises ValueError with one line."""
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (there are: {', '.join(known) or 'none'})"
            raise ValueError(f"unknown parameter '{name}'{hint}")
    return {name: one.read(given[name]) if name in given else one.default for name, one in known.items()}


def identifying(parameters: Iterable[Parameter], values: Values) -> dict[str, str]:
    """What of the values stands in every sample: all that is not as by default."""
    return {
        one.name: str(values[one.name])
        for one in parameters
        if not isinstance(one, Several) and values[one.name] != one.default
    }


def number(values: Values, name: str) -> int:
    """The value of a Number."""
    value = values[name]
    assert isinstance(value, int)
    return value


def word(values: Values, name: str) -> str:
    """The value of a Choice."""
    value = values[name]
    assert isinstance(value, str)
    return value


def words(values: Values, name: str) -> tuple[str, ...]:
    """The value of a Several."""
    value = values[name]
    assert isinstance(value, tuple)
    return value
