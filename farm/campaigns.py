"""Campaigns: which builds are measured together, in how many sessions, on which clusters.

A campaign's sessions and their blocks are fixed when it is asked for. Whatever the purpose, a question is a list
of builds with roles; the worker does not know the difference.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from farm.results.tables import CheckIn, Owner, Purpose, Session
from farm.settings import RepositorySettings, Settings
from scenarios.crossing import PlannedBuild, Role, digest_of, revision_of, to_data

Time = datetime.datetime

# people before machines, news before history; lower runs first
PRIORITY: Mapping[Purpose, int] = {"on demand": 10, "check-in": 20, "comparison": 30, "a/a": 30, "history": 40}


@dataclass(frozen=True)
class Question:
    """What one campaign asks: these builds, on each of its clusters."""

    purpose: Purpose
    campaign: str
    repository: str
    revision: str
    base_revision: str | None
    builds: tuple[PlannedBuild, ...]


def history_question(repository: RepositorySettings, window: Sequence[CheckIn], canary: str) -> Question:
    """Every check-in of the window, oldest first, and the canary's commit, side by side in each block."""
    return Question(
        "history",
        f"{repository.name}-history",
        repository.name,
        window[-1].revision,
        window[0].revision,
        merge_builds(repository, [*((one.commit, "window") for one in window), (canary, "canary")]),
    )


def check_in_question(
    repository: RepositorySettings, subject: CheckIn, parent: CheckIn | None, canary: str
) -> Question:
    """One check-in beside its parent, if that was seen, and the canary's commit."""
    wanted: list[tuple[str, Role]] = [(subject.commit, "subject")]
    if parent is not None:
        wanted.append((parent.commit, "parent"))
    return Question(
        "check-in",
        f"{repository.name}-{subject.number}",
        repository.name,
        subject.revision,
        parent.revision if parent is not None else None,
        merge_builds(repository, [*wanted, (canary, "canary")]),
    )


def on_demand_question(
    repository: RepositorySettings, subject: str, base: str | None, canary: str, campaign: str
) -> Question:
    """A commit, beside a base commit if there is one, as often as there are different campaign names."""
    wanted: list[tuple[str, Role]] = [(subject, "subject")]
    if base is not None:
        wanted.append((base, "base"))
    return Question(
        "on demand",
        campaign,
        repository.name,
        revision_of({repository.name: subject}),
        revision_of({repository.name: base}) if base is not None else None,
        merge_builds(repository, [*wanted, (canary, "canary")]),
    )


def merge_builds(repository: RepositorySettings, wanted: Iterable[tuple[str, Role]]) -> tuple[PlannedBuild, ...]:
    """One build per commit, with all its roles: what coincides is deployed and measured once."""
    roles: dict[str, list[Role]] = {}
    for commit, role in wanted:
        roles.setdefault(commit, []).append(role)
    return tuple(
        PlannedBuild(
            revision=revision_of({repository.name: commit}),
            label=f"{repository.name} {commit[:10]}",
            roles=tuple(dict.fromkeys(its_roles)),
            repository=repository.url,
            commit=commit,
        )
        for commit, its_roles in roles.items()
    )


def ask(
    transaction: Transaction,
    settings: Settings,
    owner: Owner,
    clusters: Iterable[str],
    question: Question,
    now: Time,
) -> list[Session]:
    """Queue the question's campaign on the clusters; returns the sessions that were not there yet."""
    campaign = settings.farm.campaign
    wanted = [
        _session(owner, cluster, question, ordinal, blocks, campaign.rounds, now)
        for ordinal, blocks in enumerate(campaign.blocks)
        for cluster in clusters
    ]
    there = set(transaction.scalars(select(Session.key).where(Session.key.in_([one.key for one in wanted]))))
    fresh = [session for session in wanted if session.key not in there]
    transaction.add_all(fresh)
    transaction.flush()
    return fresh


def _session(
    owner: Owner, cluster: str, question: Question, ordinal: int, blocks: int, rounds: int, now: Time
) -> Session:
    identity = {
        "account": f"{owner.tenant}:{owner.account}",
        "revision": question.revision,
        "base": question.base_revision,
        "cluster": cluster,
        "purpose": question.purpose,
        "campaign": question.campaign,
        "ordinal": ordinal,
    }
    key = digest_of(identity)
    return Session(
        id=key[:16],
        key=key,
        purpose=question.purpose,
        campaign=question.campaign,
        ordinal=ordinal,
        repository=question.repository,
        revision=question.revision,
        base_revision=question.base_revision,
        cluster=cluster,
        blocks=blocks,
        rounds=rounds,
        builds=[to_data(build) for build in question.builds],
        priority=PRIORITY[question.purpose],
        state="queued",
        attempt=0,
        failures=0,
        created_at=now,
        **owner.columns,
    )
