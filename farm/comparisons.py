"""Revisions compared: which pairs a campaign was made for, the family they are corrected in, their verdicts.

Pure: frames and rows in, `Compared` out. A campaign is judged on a cluster when none of its sessions there is
still to come, so that the number of blocks is the one that was fixed in advance.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from farm.analysis.blocks import Difference, difference
from farm.analysis.multiplicity import holm
from farm.analysis.rules import (
    BLOCKS_NEEDED,
    FAMILY_ALPHA,
    SESSIONS_NEEDED,
    Estimate,
    Verdict,
    interval,
    verdict_of,
)
from farm.frames import Declared, SeriesKey, series_tables, split
from farm.results.tables import CheckIn, ComparisonRow, InsideCommit, Session
from scenarios.contract import Metric
from scenarios.crossing import revision_of

PENDING = ("queued", "reserved", "running")


@dataclass(frozen=True)
class MeasuredCampaign:
    """The sessions of one campaign on one cluster, in order, and the pairs (child, parent) that it was made for.

    `share` is the number of clusters that the campaign runs on: they split its error rate.
    """

    repository: str
    name: str
    cluster: str
    sessions: tuple[Session, ...]
    pairs: tuple[tuple[str, str], ...]
    share: int

    @property
    def complete(self) -> bool:
        return all(session.state not in PENDING for session in self.sessions)

    @property
    def owner(self) -> dict[str, str]:
        return owner_of(self.sessions[0])


@dataclass(frozen=True)
class Compared:
    """A revision against its parent in one series of one campaign. `p_adjusted` is None outside any family."""

    campaign: MeasuredCampaign
    series: SeriesKey
    metric: Metric
    fidelity: str
    child: str
    parent: str
    difference: Difference | None
    p_adjusted: float | None = None
    verdict: Verdict = "not judged"

    @property
    def ready(self) -> bool:
        """Whether it may be judged: no session is still to come, and there are blocks and sessions enough."""
        found = self.difference
        return (
            self.campaign.complete
            and found is not None
            and found.estimate.n >= BLOCKS_NEEDED
            and len(found.per_session) >= SESSIONS_NEEDED
        )

    def row(self) -> ComparisonRow:
        found = self.difference
        return comparison_row(
            self.series,
            self.metric,
            found.estimate if found else None,
            between="revisions",
            cluster=self.campaign.cluster,
            other_cluster=None,
            repository=self.campaign.repository,
            revision=self.child,
            other_revision=self.parent,
            replication="block",
            sessions=len(found.per_session) if found else 0,
            p_adjusted=self.p_adjusted if self.ready else None,
            verdict=self.verdict,
            fidelity=self.fidelity,
            **self.campaign.owner,
        )


def owner_of(session: Session) -> dict[str, str]:
    """The columns that say whose a row is and who may see it."""
    return {"tenant": session.tenant, "account": session.account, "visibility": session.visibility}


def campaigns_of(
    sessions: Sequence[Session], check_ins: Iterable[CheckIn], inside: Iterable[InsideCommit]
) -> list[MeasuredCampaign]:
    """All campaigns by cluster, in the order of their first sessions."""
    parents: dict[tuple[str, str], str | None] = {
        (row.repository, row.revision): revision_of({row.repository: row.parents[0]}) for row in inside if row.parents
    }
    parents |= {(row.repository, row.revision): row.parent_revision for row in check_ins}
    groups: dict[tuple[str, str], dict[str, list[Session]]] = {}
    for session in sessions:
        groups.setdefault((session.repository, session.campaign), {}).setdefault(session.cluster, []).append(session)
    return [
        MeasuredCampaign(repository, name, cluster, tuple(its), tuple(_pairs(its[0], parents)), len(by_cluster))
        for (repository, name), by_cluster in groups.items()
        for cluster, its in by_cluster.items()
    ]


def _pairs(session: Session, parents: Mapping[tuple[str, str], str | None]) -> Iterator[tuple[str, str]]:
    """Within a window each check-in against its parent; otherwise the subject against its parent or base.

    A search for a culprit leaves commits out: there it is the nearest ancestor within the window.
    """
    roles = {str(build["revision"]): build["roles"] for build in session.builds}
    window = [revision for revision, its_roles in roles.items() if "window" in its_roles]
    pairs = [(revision, parents.get((session.repository, revision))) for revision in window]
    if session.purpose == "culprit":
        pairs = [(revision, _nearest(session.repository, revision, window, parents)) for revision in window]
    for child, parent in pairs or [(session.revision, session.base_revision)]:
        if child in roles and parent in roles and child != parent:
            yield child, parent


def _nearest(
    repository: str, revision: str, window: Collection[str], parents: Mapping[tuple[str, str], str | None]
) -> str | None:
    """The nearest ancestor of first parents that is in the window."""
    ancestor = parents.get((repository, revision))
    while ancestor is not None and ancestor not in window:
        ancestor = parents.get((repository, ancestor))
    return ancestor


def compare_revisions(
    samples: pd.DataFrame, campaigns: Iterable[MeasuredCampaign], declared: Declared
) -> list[Compared]:
    """Every pair of every campaign in every series; samples as `farm.results.queries.samples` gives them.

    A check-in whose parent has no valid sample is held against the nearest ancestor of the window that has.
    Where several campaigns measured the same pair, the first that could be judged stands: measuring again
    until a verdict pleases changes nothing.
    """
    frames = split(samples, "repository", "campaign", "cluster")
    kept: dict[tuple[Any, ...], Compared] = {}
    for campaign in campaigns:
        frame = frames.get((campaign.repository, campaign.name, campaign.cluster))
        if frame is None:
            continue
        for one in _judge(list(_compare(frame, campaign, declared)), campaign.share):
            key = (campaign.repository, campaign.cluster, one.child, one.parent, one.series)
            if key not in kept or (one.ready and not kept[key].ready):
                kept[key] = one
    return list(kept.values())


def _compare(frame: pd.DataFrame, campaign: MeasuredCampaign, declared: Declared) -> Iterator[Compared]:
    above = dict(campaign.pairs)
    for series in series_tables(frame, declared):
        for child, its_parent in campaign.pairs:
            parent = its_parent
            # a parent that could not be measured must not hide what came with it or after it
            while parent not in series.table.revisions and parent in above:
                parent = above[parent]
            if child in series.table.revisions or parent in series.table.revisions:
                found = difference(series.table, child, parent)
                yield Compared(campaign, series.key, series.metric, series.fidelity, child, parent, found)


def _judge(compared: Sequence[Compared], share: int) -> list[Compared]:
    """Correct and judge one campaign on one cluster; what still waits for blocks is a family of its own."""
    result = [one for one in compared if not one.metric.judged]
    for ready in (True, False):
        family = [one for one in compared if one.metric.judged and one.ready is ready]
        adjusted = holm([_p_value(one.difference) for one in family], share)
        for one, p_adjusted in zip(family, adjusted, strict=True):
            verdict = _verdict(one, p_adjusted) if ready else "not judged"
            result.append(replace(one, p_adjusted=p_adjusted, verdict=verdict))
    return result


def _p_value(found: Difference | None) -> float:
    """A pair that cannot be tested keeps its place in the family, as one that shows nothing."""
    return 1.0 if found is None or found.estimate.p_value is None else found.estimate.p_value


def _verdict(one: Compared, p_adjusted: float) -> Verdict:
    if one.difference is None:
        return "not judged"
    return verdict_of(one.difference.estimate, p_adjusted, one.metric.delta, FAMILY_ALPHA)


def comparison_row(series: SeriesKey, metric: Metric, estimate: Estimate | None, **columns: Any) -> ComparisonRow:
    """A row of the table `comparison`; `columns` are those that the series and the estimate do not tell."""
    bounds = interval(estimate) if estimate else None
    return ComparisonRow(
        scenario=series.scenario,
        version=series.version,
        metric=series.metric,
        unit=series.unit,
        params=json.loads(series.params),
        delta=metric.delta,
        ratio=estimate.ratio if estimate else None,
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        n=estimate.n if estimate else 0,
        p_value=estimate.p_value if estimate else None,
        **columns,
    )
