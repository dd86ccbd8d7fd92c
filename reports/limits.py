"""What is possible on a cluster, how far apart its probes were, and how much of it each figure reached."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from farm.results.tables import ProbeRow
from reports.charts import Bar
from reports.metrics import MeasuredMetric
from reports.summaries import SERIES
from scenarios.probes import KINDS, PLACES, ProbeKind


@dataclass(frozen=True)
class Reached:
    """How much of what is possible a figure is: `share` 1 is all of it. `why` says what the limit is made of."""

    share: float
    limit: float
    why: str

    @property
    def told(self) -> str:
        return f"{percent_text(self.share)} of what is possible ({self.why})"


@dataclass(frozen=True)
class KnownLimit:
    """One place of one kind in the cluster's present epoch; `best` is the limit, `found` the probe that gave it."""

    name: str
    kind: ProbeKind
    place: str
    best: float
    found: ProbeRow
    middle: float
    worst: float
    n: int

    @property
    def unit_text(self) -> str:
        return self.kind.unit

    @property
    def bar(self) -> Bar:
        """The middle of all probes, as a share of the best, and how far they reach."""
        return Bar(f"{self.name}, {self.place}", self._share(self.middle), self._share(self.worst), 1.0, "plain")

    def _share(self, value: float) -> float:
        return value / self.best if self.kind.better == "higher" else self.best / value


def limits_of(probes: Iterable[ProbeRow]) -> list[KnownLimit]:
    """From one cluster's probes in the order in which they were found: those of its newest epoch count."""
    rows = list(probes)
    groups: dict[tuple[str, str], list[ProbeRow]] = {}
    for row in rows:
        if row.epoch == rows[-1].epoch:
            groups.setdefault((row.kind, place_text(row)), []).append(row)
    return [_known(name, place, found) for (name, place), found in sorted(groups.items())]


def _known(name: str, place: str, rows: Sequence[ProbeRow]) -> KnownLimit:
    kind = _kind(name)
    ordered = sorted(rows, key=lambda row: row.value, reverse=kind.better == "higher")
    middle = median(row.value for row in rows)
    return KnownLimit(name, kind, place, ordered[0].value, ordered[0], middle, ordered[-1].value, len(rows))


def probe_table(probes: Iterable[ProbeRow]) -> dict[str, Any]:
    """One session's probes: `blocks`, how many were measured before each column, and a row for each place."""
    rows = list(probes)
    blocks = sorted({row.block for row in rows})
    places: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        places.setdefault((row.kind, place_text(row)), {})[row.block] = row.value
    return {
        "blocks": blocks,
        "rows": [
            {"name": name, "place": place, "unit": _kind(name).unit, "values": [values.get(block) for block in blocks]}
            for (name, place), values in sorted(places.items())
        ],
    }


def _kind(name: str) -> ProbeKind:
    return {str(kind): declared for kind, declared in KINDS.items()}[name]


def place_text(row: ProbeRow) -> str:
    ends = [PLACES.get(end, end) for end in (row.at, row.to) if end is not None]
    return " to ".join(ends)


def reached_by(samples: pd.DataFrame) -> Mapping[tuple[Any, ...], Reached]:
    """By series (reports.summaries.SERIES) and revision, where a limit is known; valid samples alone count."""
    counted = samples[samples["valid"] & ~samples["warm_up"] & samples["limit"].notna()]
    return {
        key: Reached(float(group["share"].median()), float(group["limit"].median()), str(group["limit_why"].iloc[-1]))
        for key, group in counted.groupby([*SERIES, "revision"], sort=True)
    }


def reasons_of(samples: pd.DataFrame) -> Mapping[tuple[Any, ...], str]:
    """By series and revision, why no limit is known, where none is."""
    without = samples[samples["limit"].isna()]
    keys = [*SERIES, "revision"]
    rows = without.drop_duplicates(keys, keep="last")[[*keys, "limit_why"]].itertuples(index=False, name=None)
    return {tuple(key): str(why) for *key, why in rows}


def beyond_limit(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """What of these samples is void for being more than possible: session, metric and reason, each once."""
    void = samples[samples["beyond_limit"]].drop_duplicates(["session", *SERIES])
    return [
        {"session": row["session"], "metric": MeasuredMetric.of_record(row), "reason": row["void_reason"]}
        for row in void.to_dict("records")
    ]


def percent_text(share: float) -> str:
    """Two digits that count, and no more than that: 0.412 is "41 %"."""
    return f"{share * 100:.2g} %" if share < 0.995 else f"{share * 100:.0f} %"
