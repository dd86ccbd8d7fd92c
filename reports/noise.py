"""How noisy every metric is on every cluster, from the public samples."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from farm.analysis.blocks import BlockTable
from farm.analysis.noise import Noise, noise_of
from farm.analysis.rules import FAMILY_ALPHA
from farm.frames import series_tables, split
from reports.metrics import MeasuredMetric
from scenarios.registry import SCENARIOS


class NoisePlace(NamedTuple):
    """Stacks differ in noise, so it is told by repository too."""

    repository: str
    cluster: str
    metric: MeasuredMetric


_DECLARED = {(scenario.name, metric.name): metric for scenario in SCENARIOS.values() for metric in scenario.metrics}


def noises(samples: pd.DataFrame) -> Mapping[NoisePlace, Noise]:
    """By place, for metrics of the scenarios' present versions; samples as `farm.results.queries.samples` gives them.

    Each cluster's present epoch alone counts: another kernel or machine scatters in its own way. Sweeps are left
    out: with other parameters in each, they would stretch the family that a campaign is judged in.
    """
    aa: dict[NoisePlace, list[BlockTable]] = {}
    ordinary: dict[NoisePlace, list[BlockTable]] = {}
    families: dict[tuple[str, str], int] = {}
    counted = _in_present_epoch(samples[samples["purpose"] != "sweep"])
    for (repository, cluster, purpose, _), frame in split(
        counted, "repository", "cluster", "purpose", "campaign"
    ).items():
        judged = 0
        for series in series_tables(frame, _DECLARED):
            metric = MeasuredMetric.of_record(series.key._asdict())
            judged += series.metric.judged
            if metric.declared is not None:
                place = NoisePlace(repository, cluster, metric)
                (aa if purpose == "a/a" else ordinary).setdefault(place, []).append(series.table)
        families[repository, cluster] = max(judged, families.get((repository, cluster), 1))
    shares = counted.groupby(["repository", "campaign"])["cluster"].nunique().groupby("repository").max()
    found = {
        place: noise_of(
            aa.get(place, ()),
            ordinary.get(place, ()),
            FAMILY_ALPHA / (families[place.repository, place.cluster] * int(shares[place.repository])),
        )
        for place in sorted(aa.keys() | ordinary.keys())
    }
    return {place: noise for place, noise in found.items() if noise is not None}


def _in_present_epoch(samples: pd.DataFrame) -> pd.DataFrame:
    """What each cluster measured since its declared facts changed last; rows come in the order they were taken."""
    present = samples.groupby("cluster")["epoch"].transform("last")
    return samples[samples["epoch"] == present]
