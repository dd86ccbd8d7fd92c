"""Clusters compared: the same build in sessions that are matched in time, raw values, the session as the unit."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import pandas as pd

from farm.analysis.clusters import session_values, welch
from farm.analysis.multiplicity import holm
from farm.analysis.rules import CLUSTER_FAMILY_ALPHA, CLUSTER_SESSIONS_NEEDED, MATCHED_WITHIN_S, Verdict, verdict_of
from farm.comparisons import MeasuredCampaign, comparison_row
from farm.frames import Declared, SeriesKey, lowest_fidelity, series_tables, split
from farm.results.tables import ComparisonRow
from scenarios.contract import Metric

Slot = tuple[str, int]  # campaign and ordinal: sessions of one slot run side by side on all clusters


@dataclass(frozen=True)
class _Level:
    """One build in one series on one cluster: the logarithm of each session's value."""

    metric: Metric
    fidelity: str
    values: Mapping[Slot, float]
    at_s: Mapping[Slot, float]  # the middle of each session's samples


@dataclass(frozen=True)
class _Match:
    """One build in one series on two clusters, in the sessions that both have.

    `settled` is False while sessions of theirs are still to come.
    """

    series: SeriesKey
    revision: str
    ours: _Level
    theirs: _Level
    slots: tuple[Slot, ...]
    settled: bool

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """One logarithm for each matched session, ours and theirs: all that is compared."""
        ours, theirs = ([level.values[slot] for slot in self.slots] for level in (self.ours, self.theirs))
        return ours, theirs

    @property
    def ready(self) -> bool:
        """Whether it may be judged. Different fidelities never are."""
        enough = len(self.slots) >= CLUSTER_SESSIONS_NEEDED
        return self.settled and enough and self.ours.metric.judged and self.ours.fidelity == self.theirs.fidelity


def compare_clusters(
    samples: pd.DataFrame, campaigns: Sequence[MeasuredCampaign], declared: Declared
) -> list[ComparisonRow]:
    """Each two clusters, build by build: ratios are `cluster` ÷ `other_cluster`.

    Sessions of complete campaigns are judged once there are enough of them; before that all sessions
    are shown together, not judged. The judged metrics of one build on two clusters are one family.
    """
    rows: list[ComparisonRow] = []
    for (repository,), frame in split(samples, "repository").items():
        ours = [campaign for campaign in campaigns if campaign.repository == repository]
        levels = {name: _levels(part, declared) for (name,), part in split(frame, "cluster").items()}
        for one, other in combinations(levels, 2):
            complete = _complete(ours, one) & _complete(ours, other)
            matches = list(_matches(levels[one], levels[other], complete))
            for revision in dict.fromkeys(match.revision for match in matches):
                family = [match for match in matches if match.revision == revision]
                columns = {"cluster": one, "other_cluster": other, "repository": repository, **ours[0].owner}
                rows += _judge(family, columns)
    return rows


def _complete(campaigns: Iterable[MeasuredCampaign], cluster: str) -> set[str]:
    return {campaign.name for campaign in campaigns if campaign.cluster == cluster and campaign.complete}


def _levels(frame: pd.DataFrame, declared: Declared) -> dict[tuple[SeriesKey, str], _Level]:
    places = frame[["session", "campaign", "ordinal"]].drop_duplicates()
    slots = {session: (campaign, ordinal) for session, campaign, ordinal in places.itertuples(index=False)}
    middles = frame.groupby("session")["taken_at"].median()
    at_s = {slots[session]: middle.timestamp() for session, middle in middles.items()}
    levels = {}
    for series in series_tables(frame, declared):
        for revision in series.table.revisions:
            values = {slots[name]: value for name, value in session_values(series.table, revision).items()}
            levels[series.key, revision] = _Level(series.metric, series.fidelity, values, at_s)
    return levels


def _matches(
    ours: Mapping[tuple[SeriesKey, str], _Level], theirs: Mapping[tuple[SeriesKey, str], _Level], complete: set[str]
) -> Iterator[_Match]:
    for key in ours:
        if key not in theirs:
            continue
        both = sorted(ours[key].values.keys() & theirs[key].values.keys())
        slots = [slot for slot in both if abs(ours[key].at_s[slot] - theirs[key].at_s[slot]) <= MATCHED_WITHIN_S]
        done = [slot for slot in slots if slot[0] in complete]
        settled = len(done) >= CLUSTER_SESSIONS_NEEDED
        if slots:
            yield _Match(*key, ours[key], theirs[key], tuple(done if settled else slots), settled)


def _judge(family: Sequence[_Match], columns: Mapping[str, str]) -> Iterator[ComparisonRow]:
    estimates = [welch(*match.values) for match in family]
    ready = [i for i, match in enumerate(family) if match.ready]
    p_values = [p for i in ready if (p := estimates[i].p_value) is not None]
    adjusted = dict(zip(ready, holm(p_values), strict=True))
    for i, (match, estimate) in enumerate(zip(family, estimates, strict=True)):
        metric = match.ours.metric
        level, other_level = (math.exp(fmean(values)) for values in match.values)
        verdict: Verdict = "not judged"
        if i in adjusted:
            verdict = verdict_of(estimate, adjusted[i], metric.delta, CLUSTER_FAMILY_ALPHA)
        yield comparison_row(
            match.series,
            metric,
            estimate,
            between="clusters",
            revision=match.revision,
            other_revision=None,
            level=level,
            other_level=other_level,
            replication="session",
            sessions=estimate.n,
            p_adjusted=adjusted.get(i),
            verdict=verdict,
            fidelity=lowest_fidelity([match.ours.fidelity, match.theirs.fidelity]),
            **columns,
        )
