"""Samples, as `farm.results.queries.samples` gives them, arranged into series and block tables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from farm.analysis.blocks import BlockTable, Measured, block_table
from scenarios.contract import Metric

Declared = Mapping[tuple[str, str], Metric]  # by scenario and metric

_FIDELITIES = ("hardware", "emulated", "simulated", "contract")  # best first


class SeriesKey(NamedTuple):
    """What must be equal for values to be compared. `params` is canonical JSON.

    The guest image is not in it: a check-in that changes the guest is judged for what that does.
    """

    scenario: str
    version: int
    metric: str
    unit: str
    params: str
    placement: str


class SeriesTable(NamedTuple):
    """One series of a frame. `fidelity` is the lowest that any of its sessions reached."""

    key: SeriesKey
    metric: Metric
    fidelity: str
    table: BlockTable


def split(frame: pd.DataFrame, *columns: str) -> dict[tuple[Any, ...], pd.DataFrame]:
    """The frame by the values of some columns, in their order."""
    return {tuple(key): part for key, part in frame.groupby(list(columns), sort=True)}


def series_tables(frame: pd.DataFrame, declared: Declared) -> Iterator[SeriesTable]:
    """The frame by series. Warm-ups are left out, and metrics that no scenario declares any more."""
    groups: dict[SeriesKey, tuple[list[Measured], set[str]]] = {}
    # plain lists: a frame has few rows for each of many series, where pandas' own grouping is slow
    keys = map(SeriesKey, *_columns(frame, *SeriesKey._fields))
    values = map(Measured, *_columns(frame, "session", "block", "round", "revision", "value", "valid"))
    for key, value, warm_up, fidelity in zip(keys, values, *_columns(frame, "warm_up", "fidelity"), strict=True):
        if not warm_up and (key.scenario, key.metric) in declared:
            measured, fidelities = groups.setdefault(key, ([], set()))
            measured.append(value)
            fidelities.add(fidelity)
    for key, (measured, fidelities) in sorted(groups.items(), key=lambda group: group[0]):
        yield SeriesTable(key, declared[key.scenario, key.metric], lowest_fidelity(fidelities), block_table(measured))


def lowest_fidelity(names: Iterable[str]) -> str:
    """Fidelities are never mixed upwards: a figure is worth what its weakest part is."""
    return max(names, key=_FIDELITIES.index)


def _columns(frame: pd.DataFrame, *names: str) -> list[list[Any]]:
    return [frame[name].tolist() for name in names]
