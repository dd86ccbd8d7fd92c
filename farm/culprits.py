"""The search for the commit inside a merge that a finding names.

Each analysis says of every finding about a merge how far the search is (`look_inside`, in `Finding.inside`), and what
is to be measured next; whoever watches the repositories queues that (`ask_inside`). So the search lives in what was
measured alone, and goes on after a restart as if there had been none.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from farm.analysis.inside import Found, Pair, Shown, search
from farm.analysis.rules import AGREEMENT, interval
from farm.campaigns import ask, culprit_question
from farm.comparisons import Compared, MeasuredCampaign
from farm.findings import Entry, breaks, entry_of, state_of
from farm.results.tables import Analysis, CheckIn, Finding, InsideCommit, OutcomeRow, Owner, Session
from farm.sessions import planned_scenarios
from farm.settings import RepositorySettings, Settings
from scenarios.crossing import PlannedScenario, canonical_json, revision_of
from scenarios.strict import from_data

_About = tuple[str, str, str]  # scenario, metric, params as canonical JSON: a series, whichever its version


@dataclass(frozen=True)
class _Answer:
    """What a pair showed, and the figures that show it."""

    shown: Shown
    entries: tuple[Entry, ...] = ()


def look_inside(
    findings: Iterable[Finding],
    compared: Iterable[Compared],
    outcomes: Iterable[OutcomeRow],
    campaigns: Iterable[MeasuredCampaign],
    commits: Iterable[InsideCommit],
) -> None:
    """Say of each confirmed finding about a merge what is known of the commits inside."""
    merges: dict[tuple[str, str], list[InsideCommit]] = {}
    for row in commits:
        merges.setdefault((row.repository, row.merge), []).append(row)
    entered = [
        finding
        for finding in findings
        if finding.kind == "product"
        and finding.state == "confirmed"
        and (finding.repository, finding.revision) in merges
    ]
    if not entered:
        return
    evidence = _Evidence.of(compared, outcomes, campaigns)
    for finding in entered:
        rows = merges[finding.repository, finding.revision]
        inside = {row.revision: [_revision(row, parent) for parent in row.parents] for row in rows}
        answers = evidence.answers(finding)
        found = search(_parents(inside), inside, {pair: answer.shown for pair, answer in answers.items()})
        finding.inside = {
            "state": _state(found),
            "commits": [{"revision": name, "metrics": _shown_by(name, answers)} for name in found.named],
            "together": [list(names) for names in found.together],
            "next": _commits(rows, found.next),
            "scenarios": evidence.scenarios(finding),
        }


def _revision(row: InsideCommit, commit: str) -> str:
    return revision_of({row.repository: commit})


def _parents(inside: Mapping[str, Sequence[str]]) -> list[str]:
    """The merge's: the first is outside, the others are what no other commit inside was made from."""
    made_from = {parent for parents in inside.values() for parent in parents}
    return ["", *(revision for revision in inside if revision not in made_from)]


def _shown_by(revision: str, answers: Mapping[Pair, _Answer]) -> list[Entry]:
    return [entry for (child, _), answer in answers.items() if child == revision for entry in answer.entries]


def _state(found: Found) -> str:
    if found.next or found.pending:
        return "measuring"
    if found.named or found.together:
        return "named"
    return "undecided" if found.undecided else "whole"


def _commits(rows: Iterable[InsideCommit], pairs: Iterable[Pair]) -> list[str]:
    """The commits of the pairs, each once."""
    known = {_revision(row, commit): commit for row in rows for commit in (row.commit, *row.parents)}
    return list(dict.fromkeys(known[revision] for pair in pairs for revision in reversed(pair)))


@dataclass(frozen=True)
class _Evidence:
    """Everything that one owner's campaigns brought."""

    compared: Mapping[tuple[str, str, str, str], Sequence[Compared]]  # by repository, cluster and pair
    outcomes: Mapping[str, Sequence[OutcomeRow]]  # by session
    campaigns: Sequence[MeasuredCampaign]

    @classmethod
    def of(
        cls, compared: Iterable[Compared], outcomes: Iterable[OutcomeRow], campaigns: Iterable[MeasuredCampaign]
    ) -> "_Evidence":
        by_pair: dict[tuple[str, str, str, str], list[Compared]] = {}
        for one in compared:
            key = (one.campaign.repository, one.campaign.cluster, one.child, one.parent)
            by_pair.setdefault(key, []).append(one)
        by_session: dict[str, list[OutcomeRow]] = {}
        for row in outcomes:
            by_session.setdefault(row.session, []).append(row)
        return cls(by_pair, by_session, list(campaigns))

    def _campaigns(self, finding: Finding) -> list[MeasuredCampaign]:
        where = finding.repository, finding.cluster
        return [one for one in self.campaigns if (one.repository, one.cluster) == where]

    def scenarios(self, finding: Finding) -> list[Any] | None:
        """With what the merge's own campaign was asked; None: with what the settings say."""
        pair = finding.revision, finding.last_good
        its = next((one for one in self._campaigns(finding) if pair in one.pairs), None)
        return its.sessions[0].scenarios if its else None

    def answers(self, finding: Finding) -> dict[Pair, _Answer]:
        """What every pair shows that a search on the finding's cluster has measured."""
        return {
            pair: self._answer(finding, campaign, pair)
            for campaign in self._campaigns(finding)
            if campaign.sessions[0].purpose == "culprit"
            for pair in campaign.pairs
        }

    def _answer(self, finding: Finding, campaign: MeasuredCampaign, pair: Pair) -> _Answer:
        if not campaign.complete:
            return _Answer("pending")
        answers = [(entry, self._about_entry(finding, campaign, pair, entry)) for entry in finding.metrics]
        showing = tuple(told for _, answer in answers for told in answer.entries)
        if showing:
            return _Answer("shows it", showing)
        # what the merge did shows in all metrics of a scenario that it moved: one that did not move is enough
        excluded = {entry["scenario"] for entry, answer in answers if answer.shown == "does not"}
        return _Answer("does not" if excluded == {entry["scenario"] for entry, _ in answers} else "undecided")

    def _about_entry(self, finding: Finding, campaign: MeasuredCampaign, pair: Pair, entry: Entry) -> _Answer:
        """What the pair shows of one thing that the merge did."""
        if entry["metric"] == "outcome":
            rows = [row for session in campaign.sessions for row in self.outcomes.get(session.id, ())]
            return _broken(rows, pair, entry)
        found = self.compared.get((finding.repository, finding.cluster, *pair), ())
        its = next((one for one in found if _series(one) == _about(entry)), None)
        return _level(its, entry) if its is not None else _Answer("undecided")


def _broken(rows: Sequence[OutcomeRow], pair: Pair, entry: Entry) -> _Answer:
    """Whether the commit broke what the merge broke."""
    state, told = next(
        ((state, told) for state, told in breaks(rows, *pair) if _about(told) == _about(entry)), (None, entry)
    )
    if state == "confirmed":
        return _Answer("shows it", (told,))
    held = {row.revision for row in rows if row.outcome == "measured" and row.scenario == entry["scenario"]}
    return _Answer("does not" if state is None and held >= set(pair) else "undecided")


def _level(one: Compared, entry: Entry) -> _Answer:
    """Whether a pair does what the merge did: a finding of its own would be made of it, in the same direction."""
    if one.difference is None or not one.ready:
        return _Answer("undecided")
    told = entry_of(one)
    if state_of(one) == "confirmed" and told["direction"] == entry["direction"]:
        return _Answer("shows it", (told,))
    whole = math.log(entry["ratio"])
    bounds = interval(one.difference.estimate)
    most = max(math.copysign(1, whole) * math.log(bound) for bound in bounds) if bounds else math.inf
    return _Answer("does not" if most < AGREEMENT * abs(whole) else "undecided")


def _series(one: Compared) -> _About:
    return one.series.scenario, one.series.metric, one.series.params


def _about(entry: Entry) -> _About:
    return entry["scenario"], entry["metric"], canonical_json(entry["params"])


def ask_inside(
    transaction: Transaction,
    settings: Settings,
    owner: Owner,
    repository: RepositorySettings,
    canary: str,
    now: datetime,
) -> list[Session]:
    """Queue what the newest analysis wants to know of commits inside merges; what is queued already stays alone."""
    newest = select(func.max(Analysis.id)).scalar_subquery()
    findings = select(Finding).where(
        Finding.analysis == newest,
        Finding.repository == repository.name,
        Finding.tenant == owner.tenant,
        Finding.account == owner.account,
    )
    fresh: list[Session] = []
    for finding in transaction.scalars(findings):
        scenarios = _scenarios(settings, finding)
        if not (finding.inside or {}).get("next") or not scenarios:  # what found it may not be asked any more
            continue
        number = select(CheckIn.number).where(
            CheckIn.repository == repository.name, CheckIn.revision == finding.revision
        )
        question = culprit_question(repository, finding, transaction.execute(number).scalar_one(), scenarios, canary)
        fresh += ask(transaction, settings, owner, [finding.cluster], question, now)
    return fresh


def _scenarios(settings: Settings, finding: Finding) -> tuple[PlannedScenario, ...]:
    """Those in which the merge shows something, asked as in the campaign that found it."""
    asked = (finding.inside or {}).get("scenarios")
    if asked is None:
        planned = planned_scenarios(settings.farm.scenario)
    else:
        planned = tuple(from_data(one, PlannedScenario, source=f"finding {finding.key}") for one in asked)
    showing = {entry["scenario"] for entry in finding.metrics}
    return tuple(one for one in planned if one.name in showing)
