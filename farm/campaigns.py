"""Campaigns: which builds are measured together, in how many sessions, on which clusters.

A campaign's sessions and their blocks are fixed when it is asked for. Whatever the purpose, a question is a list
of builds with roles; the worker does not know the difference.
"""

import datetime
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from farm import stacks
from farm.results.tables import CheckIn, Finding, OutcomeRow, Owner, Purpose, Session
from farm.settings import RepositorySettings, Settings
from scenarios.crossing import PlannedBuild, PlannedScenario, Role, canonical_json, digest_of, revision_of, to_data
from scenarios.sweeps import Sweep

Time = datetime.datetime

# people before machines, news before history; lower runs first
PRIORITY: Mapping[Purpose, int] = {
    "on demand": 10,
    "check-in": 20,
    "culprit": 25,
    "comparison": 30,
    "a/a": 30,
    "history": 40,
    "sweep": 50,
}

LONG_BLOCK = 8  # builds; with more, each session is one block, so that a lost host costs no more than that
MOST_TOP_UPS = 1
_SAME_FOR_CAMPAIGN = (
    *("purpose", "campaign", "repository", "revision", "base_revision", "cluster", "rounds", "builds", "scenarios"),
    "priority",
    *("tenant", "account", "visibility"),
)


@dataclass(frozen=True)
class Question:
    """What one campaign asks: these builds, on each of its clusters."""

    purpose: Purpose
    campaign: str
    repository: str
    revision: str
    base_revision: str | None
    builds: tuple[PlannedBuild, ...]
    scenarios: tuple[PlannedScenario, ...] | None = None  # None: as the settings say
    blocks: tuple[int, ...] | None = None  # of each session; None: as the settings say


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


def culprit_question(
    repository: RepositorySettings,
    finding: Finding,
    number: int,
    scenarios: tuple[PlannedScenario, ...],
    canary: str,
) -> Question:
    """Commits inside the merge that a finding names, with what they are compared with, side by side in each block."""
    assert finding.inside is not None  # that is where the commits come from
    commits: list[str] = finding.inside["next"]
    return Question(
        "culprit",
        f"{repository.name}-inside-{number}-{digest_of(commits)[:8]}",
        repository.name,
        finding.revision,
        finding.last_good,
        merge_builds(repository, [*((commit, "window") for commit in commits), (canary, "canary")]),
        scenarios,
    )


def aa_question(repository: RepositorySettings, canary: str, campaign: str) -> Question:
    """The canary beside itself, as two builds of one commit: whatever differs is noise.

    The second one's identity is no check-in's, so that nothing it shows is ever held against one.
    """
    (first,) = merge_builds(repository, [(canary, "base"), (canary, "canary")])
    again = replace(
        first,
        revision=revision_of({repository.name: canary, "a/a": "2"}),  # no repository's name has a slash
        label=f"{first.label} (again)",
        roles=("subject",),
    )
    return Question("a/a", campaign, repository.name, again.revision, first.revision, (again, first))


def sweep_question(repository: RepositorySettings, subject: str, canary: str, sweep: Sweep, campaign: str) -> Question:
    """A commit and the canary, asked with every combination of the sweep, in one session."""
    return Question(
        "sweep",
        campaign,
        repository.name,
        revision_of({repository.name: subject}),
        None,
        merge_builds(repository, [(subject, "subject"), (canary, "canary")]),
        scenarios=sweep.cells,
        blocks=(sweep.blocks,),
    )


def merge_builds(repository: RepositorySettings, wanted: Iterable[tuple[str, Role]]) -> tuple[PlannedBuild, ...]:
    """One build per commit, with all its roles: what coincides is deployed and measured once."""
    roles: dict[str, list[Role]] = {}
    for commit, role in wanted:
        roles.setdefault(commit, []).append(role)
    return tuple(_build(repository, commit, tuple(dict.fromkeys(its_roles))) for commit, its_roles in roles.items())


def _build(repository: RepositorySettings, commit: str, roles: tuple[Role, ...]) -> PlannedBuild:
    plain = PlannedBuild(
        revision=revision_of({repository.name: commit}),
        label=f"{repository.name} {commit[:10]}",
        roles=roles,
        repository=repository.url,
        commit=commit,
    )
    if not repository.stack:
        return plain
    recipe, lock = stacks.at_commit(repository.stack, repository.component_name, repository.url, commit)
    return replace(plain, recipe=recipe, lock=lock)


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
        for ordinal, blocks in enumerate(question.blocks or session_blocks(campaign.blocks, len(question.builds)))
        for cluster in clusters
    ]
    there = set(transaction.scalars(select(Session.key).where(Session.key.in_([one.key for one in wanted]))))
    fresh = [session for session in wanted if session.key not in there]
    transaction.add_all(fresh)
    transaction.flush()
    return fresh


def session_blocks(blocks: Sequence[int], builds: int) -> tuple[int, ...]:
    """Blocks of each session: as the settings say, or one each where a block alone is a long session."""
    return tuple(blocks) if builds <= LONG_BLOCK else (1,) * sum(blocks)


def top_up(transaction: Transaction, identity: str) -> Session | None:
    """One more session for the campaign of this one on its cluster, if it has ended with too few whole blocks.

    Voids and failures decide, never values, so that the number of blocks is still fixed without looking at them.
    Cells that were never measured, and blocks beyond what the campaign was to have, are not made up for.
    """
    ended = transaction.get_one(Session, identity)
    its = list(
        transaction.scalars(
            select(Session)
            .where(
                Session.repository == ended.repository,
                Session.campaign == ended.campaign,
                Session.cluster == ended.cluster,
                Session.tenant == ended.tenant,
                Session.account == ended.account,
            )
            .order_by(Session.ordinal)
        )
    )
    extra = [session for session in its if session.top_up]
    if any(session.state not in ("done", "failed") for session in its) or len(extra) >= MOST_TOP_UPS:
        return None
    planned = sum(session.blocks for session in its if not session.top_up)
    missing = _missing_blocks(transaction, [session.id for session in its], planned)
    if not missing:
        return None
    last = its[-1]
    fresh = Session(
        **{name: getattr(last, name) for name in _SAME_FOR_CAMPAIGN},
        id=_new_id(),
        key=digest_of({"top-up of": last.key, "ordinal": last.ordinal + 1}),
        ordinal=last.ordinal + 1,
        blocks=missing,
        state="queued",
        attempt=0,
        failures=0,
        top_up=True,
        created_at=last.created_at,
    )
    transaction.add(fresh)
    return fresh


def _missing_blocks(transaction: Transaction, identities: Sequence[str], planned: int) -> int:
    """How many whole blocks the worst cell lacks that was measured at least once."""
    measured: dict[tuple[str, ...], set[tuple[str, int]]] = {}
    spoilt: dict[tuple[str, ...], set[tuple[str, int]]] = {}
    for row in transaction.scalars(select(OutcomeRow).where(OutcomeRow.session.in_(identities))):
        cell = row.revision, row.scenario, canonical_json(row.params)
        (measured if row.outcome == "measured" else spoilt).setdefault(cell, set()).add((row.session, row.block))
    whole = [len(blocks - spoilt.get(cell, set())) for cell, blocks in measured.items()]
    return max(0, planned - min(whole)) if whole else 0


def _new_id() -> str:
    """By its id a session's processes and files are known on hosts, so two farms must never share one."""
    return secrets.token_hex(8)


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
    return Session(
        id=_new_id(),
        key=digest_of(identity),
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
        scenarios=None if question.scenarios is None else [to_data(one) for one in question.scenarios],
        priority=PRIORITY[question.purpose],
        state="queued",
        attempt=0,
        failures=0,
        top_up=False,
        created_at=now,
        **owner.columns,
    )
