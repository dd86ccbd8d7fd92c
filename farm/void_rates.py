"""Whether the farm's own losses spare some revisions: that would make whatever is left of the others look better.

Proofs that fail, hosts and hypervisors that break, are nobody's check-in. So they must meet all revisions of a campaign
alike. Where they do not, the harness is to be looked into: a finding of kind harness, which accuses no check-in.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from farm.analysis.multiplicity import holm
from farm.analysis.rules import FAMILY_ALPHA
from farm.analysis.voids import unequal_p
from farm.comparisons import MeasuredCampaign
from farm.results.tables import Finding, OutcomeRow
from scenarios.crossing import digest_of


@dataclass(frozen=True)
class _Losses:
    """A revision's deployments, and those in which something was lost that was not the stack's fault."""

    revision: str
    lost: int
    deployments: int
    first: OutcomeRow | None


def harness_findings(
    outcomes: Iterable[OutcomeRow], campaigns: Iterable[MeasuredCampaign], now: datetime.datetime
) -> list[Finding]:
    """One for each revision that loses more, or less, than the others of its campaign on a cluster."""
    by_session: dict[str, list[OutcomeRow]] = {}
    for row in outcomes:
        by_session.setdefault(row.session, []).append(row)
    findings: list[Finding] = []
    for campaign in campaigns:
        if campaign.complete:
            rows = [row for session in campaign.sessions for row in by_session.get(session.id, ())]
            findings += _unequal(campaign, _losses(rows), now)
    return findings


def _losses(rows: Iterable[OutcomeRow]) -> list[_Losses]:
    """By revision. The deployment is the unit: what goes wrong in one may void all of its cells at once."""
    deployments: dict[str, dict[tuple[str, int], list[OutcomeRow]]] = {}
    for row in rows:
        if row.outcome in ("measured", "failed") and row.fault != "stack":
            deployments.setdefault(row.revision, {}).setdefault((row.session, row.block), []).append(row)
    found = []
    for revision, its in sorted(deployments.items()):
        failed = [lost for cells in its.values() if (lost := [row for row in cells if row.outcome == "failed"])]
        found.append(_Losses(revision, len(failed), len(its), failed[0][0] if failed else None))
    return found


def _unequal(campaign: MeasuredCampaign, losses: Sequence[_Losses], now: datetime.datetime) -> Iterator[Finding]:
    lost, deployments = sum(one.lost for one in losses), sum(one.deployments for one in losses)
    p_values = [unequal_p(one.lost, one.deployments, lost - one.lost, deployments - one.deployments) for one in losses]
    first = next((one.first for one in losses if one.first is not None), None)
    for one, p_adjusted in zip(losses, holm(p_values, campaign.share), strict=True):
        if first is not None and p_adjusted <= FAMILY_ALPHA:
            others = (lost - one.lost, deployments - one.deployments)
            yield _finding(campaign, one, one.first or first, others, now)


def _finding(
    campaign: MeasuredCampaign, one: _Losses, first: OutcomeRow, others: tuple[int, int], now: datetime.datetime
) -> Finding:
    identity = {"kind": "harness", "repository": campaign.repository, "campaign": campaign.name}
    entry = {
        "scenario": first.scenario,
        "version": first.version,
        "metric": "void",
        "unit": "",
        "params": first.params,
        "ratio": None,
        "low": None,
        "high": None,
        "n": one.deployments,
        "replication": "block",
        "direction": "void",
        "lost": one.lost,
        "others_lost": others[0],
        "others": others[1],
        "reason": first.reason,
    }
    return Finding(
        key=digest_of({**identity, "revision": one.revision, "cluster": campaign.cluster, **campaign.owner}),
        kind="harness",
        state="confirmed",
        cluster=campaign.cluster,
        repository=campaign.repository,
        revision=one.revision,
        last_good=None,
        direction="void",
        metrics=[entry],
        found_at=now,
        **campaign.owner,
    )
