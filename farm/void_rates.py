"""Whether the farm's own losses spare some revisions: that would make whatever is left of the others look better.

Proofs that fail, hosts and hypervisors that break, are nobody's check-in. So they must meet all revisions of a campaign
alike, and all roles over many campaigns. Where they do not, the harness is to be looked into: a finding of kind
harness, which accuses no check-in.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from farm.analysis.multiplicity import holm
from farm.analysis.rules import FAMILY_ALPHA
from farm.analysis.voids import unequal_p
from farm.comparisons import MeasuredCampaign
from farm.results.tables import Finding, OutcomeRow
from scenarios.crossing import digest_of

_OutcomesBySession = Mapping[str, Sequence[OutcomeRow]]


@dataclass(frozen=True)
class _Deployment:
    """The unit: what goes wrong in one may void all of its cells at once.

    `lost` is the first of its cells that was lost without being the stack's fault.
    """

    revision: str
    roles: frozenset[str]
    lost: OutcomeRow | None


@dataclass(frozen=True)
class _Unequal:
    """Deployments of one kind that lose more, or less, than all others; the first loss of theirs or of anybody's."""

    lost: int
    of: int
    others_lost: int
    others: int
    first: OutcomeRow


def harness_findings(
    outcomes: Iterable[OutcomeRow], campaigns: Iterable[MeasuredCampaign], now: datetime.datetime
) -> list[Finding]:
    """One for each revision that loses more, or less, than the others of its campaign on a cluster, and each role."""
    by_session: dict[str, list[OutcomeRow]] = {}
    for row in outcomes:
        by_session.setdefault(row.session, []).append(row)
    complete = [campaign for campaign in campaigns if campaign.complete]
    findings = [finding for campaign in complete for finding in _of_revisions(campaign, by_session, now)]
    together: dict[tuple[str, ...], list[MeasuredCampaign]] = {}
    for campaign in complete:
        place = (campaign.repository, campaign.cluster, *sorted(campaign.owner.values()))
        together.setdefault(place, []).append(campaign)
    several = [alike for alike in together.values() if len(alike) > 1]  # of one alone its revisions tell it
    return findings + [finding for alike in several for finding in _of_roles(alike, by_session, now)]


def _of_revisions(
    campaign: MeasuredCampaign, outcomes: _OutcomesBySession, now: datetime.datetime
) -> Iterator[Finding]:
    deployments = list(_deployments(campaign, outcomes))
    for revision, found in _unequal(deployments, lambda one: frozenset({one.revision}), campaign.share):
        yield _finding(campaign, {"campaign": campaign.name, "revision": revision}, revision, found, now)


def _of_roles(
    campaigns: Sequence[MeasuredCampaign], outcomes: _OutcomesBySession, now: datetime.datetime
) -> Iterator[Finding]:
    """Of all campaigns of a repository on a cluster, whose clusters split the error rate."""
    deployments = [one for campaign in campaigns for one in _deployments(campaign, outcomes)]
    share = max(campaign.share for campaign in campaigns)
    for role, found in _unequal(deployments, lambda one: one.roles, share):
        yield _finding(campaigns[0], {"role": role}, found.first.revision, found, now)


def _deployments(campaign: MeasuredCampaign, outcomes: _OutcomesBySession) -> Iterator[_Deployment]:
    for session in campaign.sessions:
        roles = {build["revision"]: frozenset(build["roles"]) for build in session.builds}
        cells: dict[tuple[str, int], list[OutcomeRow]] = {}
        for row in outcomes.get(session.id, ()):
            if row.outcome in ("measured", "failed") and row.fault != "stack":
                cells.setdefault((row.revision, row.block), []).append(row)
        for (revision, _), its in sorted(cells.items()):
            lost = next((row for row in its if row.outcome == "failed"), None)
            yield _Deployment(revision, roles.get(revision, frozenset()), lost)


def _unequal(
    deployments: Sequence[_Deployment], kinds_of: Callable[[_Deployment], frozenset[str]], share: int
) -> Iterator[tuple[str, _Unequal]]:
    """Each kind of deployments whose losses are not those of all that are not of this kind."""
    first = next((one.lost for one in deployments if one.lost is not None), None)
    if first is None:
        return
    found = {}
    for kind in sorted({kind for one in deployments for kind in kinds_of(one)}):
        own = [one for one in deployments if kind in kinds_of(one)]
        others = [one for one in deployments if kind not in kinds_of(one)]
        its_first = next((one.lost for one in own if one.lost is not None), first)
        found[kind] = _Unequal(_lost(own), len(own), _lost(others), len(others), its_first)
    p_values = [unequal_p(one.lost, one.of, one.others_lost, one.others) for one in found.values()]
    for (kind, one), p_adjusted in zip(found.items(), holm(p_values, share), strict=True):
        if p_adjusted <= FAMILY_ALPHA:
            yield kind, one


def _lost(deployments: Iterable[_Deployment]) -> int:
    return sum(one.lost is not None for one in deployments)


def _finding(
    campaign: MeasuredCampaign, kind: Mapping[str, str], revision: str, found: _Unequal, now: datetime.datetime
) -> Finding:
    identity = {"kind": "harness", "repository": campaign.repository, "cluster": campaign.cluster}
    entry = {
        "scenario": found.first.scenario,
        "version": found.first.version,
        "metric": "void",
        "unit": "",
        "params": found.first.params,
        "ratio": None,
        "low": None,
        "high": None,
        "n": found.of,
        "replication": "block",
        "direction": "void",
        "role": kind.get("role"),
        "lost": found.lost,
        "others_lost": found.others_lost,
        "others": found.others,
        "reason": found.first.reason,
    }
    return Finding(
        key=digest_of({**identity, **kind, **campaign.owner}),
        kind="harness",
        state="confirmed",
        cluster=campaign.cluster,
        repository=campaign.repository,
        revision=revision,
        last_good=None,
        direction="void",
        metrics=[entry],
        found_at=now,
        **campaign.owner,
    )
