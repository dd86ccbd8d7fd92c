"""From check-ins to sessions that may start: one pass after another, each harmless to repeat.

    watch      asks the repositories for new check-ins and queues their campaigns, and what findings ask for
    settle     ends what was interrupted, and frees what nobody uses any more
    schedule   reserves for the sessions whose turn it is all that they need

Nothing here knows Buildbot: `farm.master` tells which sessions have a live build and which clusters are ready,
and starts a build for each reserved session that has none.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session as Transaction

from farm import campaigns, culprits, history, nightly, reservations, sessions
from farm.inventory import Cluster
from farm.results.database import reading, transact
from farm.results.tables import CheckIn, Owner, Reservation, Session, SessionState
from farm.settings import RepositorySettings, Settings

Time = datetime.datetime

START_TIMEOUT = datetime.timedelta(seconds=60)  # for a worker that was ready to take up the build
# beyond its deadline, a session needs time to be stopped, swept, brought back and admitted
LEASE_MARGIN = datetime.timedelta(seconds=300)


@dataclass(frozen=True)
class Waiting:
    """A queued session, as far as its turn depends on it."""

    session: str
    cluster: str
    resources: tuple[str, ...]


@dataclass(frozen=True)
class OpenSession:
    """A session that holds a reservation, and Buildbot's request for its present attempt, once there is one."""

    session: str
    attempt: int
    cluster: str
    revision: str
    state: SessionState
    build_request: int | None


def mirrors_dir(settings: Settings) -> Path:
    return settings.home / "mirrors"


def owner_of(settings: Settings) -> Owner:
    """Whom the embedded farm works for."""
    return Owner(settings.farm.tenant, settings.farm.account)


# Watching ----------------------------------------------------------------------------------------------------


def watch(engine: Engine, settings: Settings, inventory: Mapping[str, Cluster], now: Time) -> list[str]:
    """One look at every repository; returns a warning for each that is not usable. The others go on."""
    warnings: list[str] = []
    for repository in settings.farm.repository:
        try:
            warnings += _watch_one(engine, settings, inventory, repository, now)
        except history.RepositoryUnusable as error:
            warnings.append(str(error))
    return warnings


def _watch_one(
    engine: Engine, settings: Settings, inventory: Mapping[str, Cluster], repository: RepositorySettings, now: Time
) -> list[str]:
    mirrors = mirrors_dir(settings)
    with reading(engine) as transaction:
        seen = history.seen_commits(transaction, repository.name)
    commits = history.fetch_new(mirrors, repository, seen, settings.farm.campaign.history)
    canary = history.resolve_commit(mirrors, repository, repository.canary) if repository.canary else None
    owner = owner_of(settings)

    def take(transaction: Transaction) -> list[str]:
        history.record(transaction, owner, repository.name, commits, now)
        seen = history.recorded(transaction, repository.name)
        if not seen:
            return []
        frozen = canary or seen[0].commit
        for cluster in inventory:
            _ask_missing(transaction, settings, owner, cluster, repository, seen, frozen, now)
        culprits.ask_inside(transaction, settings, owner, repository, frozen, now)
        newest = seen[-1].commit
        return nightly.ask_nightly(transaction, settings, owner, inventory, repository, newest, frozen, now)

    return transact(engine, take)


def _ask_missing(
    transaction: Transaction,
    settings: Settings,
    owner: Owner,
    cluster: str,
    repository: RepositorySettings,
    seen: Sequence[CheckIn],
    canary: str,
    now: Time,
) -> None:
    """Queue what this cluster was not asked yet: the history first, then every later check-in."""
    by_revision = {check_in.revision: check_in for check_in in seen}
    asked = {
        (purpose, revision)
        for purpose, revision in transaction.execute(
            select(Session.purpose, Session.revision)
            .where(
                Session.repository == repository.name,
                Session.cluster == cluster,
                Session.purpose.in_(("history", "check-in")),
            )
            .distinct()
        )
    }
    newest_of_history = [by_revision[revision].number for purpose, revision in asked if purpose == "history"]
    if not newest_of_history:
        window = seen[-settings.farm.campaign.history :]
        question = campaigns.history_question(repository, window, canary)
        campaigns.ask(transaction, settings, owner, [cluster], question, now)
        return
    for check_in in seen:
        if check_in.number <= max(newest_of_history) or ("check-in", check_in.revision) in asked:
            continue
        parent = by_revision.get(check_in.parent_revision or "")
        question = campaigns.check_in_question(repository, check_in, parent, canary)
        campaigns.ask(transaction, settings, owner, [cluster], question, now)


# Settling ----------------------------------------------------------------------------------------------------


def open_sessions(engine: Engine) -> list[OpenSession]:
    with reading(engine) as transaction:
        return [
            OpenSession(one.id, one.attempt, one.cluster, one.revision, sessions.state_of(one), one.build_request)
            for one in sessions.open_sessions(transaction)
        ]


def cancelled_among(engine: Engine, identities: Collection[str]) -> set[str]:
    """Those of the sessions that nobody wants any more."""
    with reading(engine) as transaction:
        query = select(Session.id).where(Session.id.in_(identities), Session.state == "cancelled")
        return set(transaction.scalars(query))


def interrupt_all(engine: Engine, now: Time) -> None:
    """After a restart: no build has survived it, so what was at work is queued again and counts as no failure.

    What was given up by a fault of the farm or of a donor is tried again too.
    """
    cut_short = sessions.Failure("farm", "cut short by a restart of the farm", interrupted=True)

    def work(transaction: Transaction) -> None:
        for session in sessions.open_sessions(transaction):
            state = sessions.state_of(session)
            sessions.fail_attempt(transaction, session.id, session.attempt, cut_short, now, only_in=state)
            reservations.release(transaction, sessions.holder_of(session.id), now)
        sessions.try_again(transaction)

    transact(engine, work)


def settle(engine: Engine, before: Sequence[OpenSession], live: Collection[str], now: Time) -> None:
    """End attempts whose build is gone, keep the leases of the others, free what nobody uses.

    `before` must have been read before `live`, the sessions that have a build at this moment: a session that
    was running then and has no build now has lost it. Whatever the build itself settled meanwhile stands.
    """
    lost = sessions.Failure("farm", "the worker was lost while it ran the session")
    not_taken = sessions.Failure("farm", f"its worker did not take it up within {START_TIMEOUT.seconds} s")

    def work(transaction: Transaction) -> None:
        for one in before:
            holder = sessions.holder_of(one.session)
            booking = reservations.booking_of(transaction, holder, now)
            if one.session in live:
                reservations.extend(transaction, holder, now, now + LEASE_MARGIN)
            elif one.state == "running":
                sessions.fail_attempt(transaction, one.session, one.attempt, lost, now, only_in="running")
            elif booking is None or now - booking.since > START_TIMEOUT:
                sessions.fail_attempt(transaction, one.session, one.attempt, not_taken, now, only_in="reserved")
        _free_unused(transaction, live, now)

    transact(engine, work)


def _free_unused(transaction: Transaction, live: Collection[str], now: Time) -> None:
    """Reservations of sessions that have ended, once their build, which sweeps the hosts, has ended too."""
    needed = {sessions.holder_of(session) for session in live}
    needed |= {sessions.holder_of(one.id) for one in sessions.open_sessions(transaction)}
    held = transaction.scalars(
        select(Reservation.holder)
        .where(
            Reservation.holder.startswith(sessions.holder_of("")),
            Reservation.released_at.is_(None),
            Reservation.until > now,
        )
        .distinct()
    )
    for holder in set(held) - needed:
        reservations.release(transaction, holder, now)


# Scheduling --------------------------------------------------------------------------------------------------


def choose(waiting: Iterable[Waiting], held: Collection[str], ready: Collection[str]) -> list[Waiting]:
    """Whose turn it is: in the order of the queue, everything that can have all its resources now.

    A session that has to wait for one resource keeps its place for all of them, so that one which needs many
    is not starved by those which need few. A cluster that is not ready keeps nothing: it must not hold up
    the others.
    """
    taken = set(held)
    chosen: list[Waiting] = []
    for one in waiting:
        if one.cluster not in ready:
            continue
        if taken.isdisjoint(one.resources):
            chosen.append(one)
        taken.update(one.resources)
    return chosen


def schedule(
    engine: Engine,
    settings: Settings,
    inventory: Mapping[str, Cluster],
    harness: Callable[[], str],
    ready: Collection[str],
    now: Time,
) -> None:
    """Reserve for every session whose turn it is, and plan its next attempt.

    `ready` are the clusters whose worker is there and idle; `harness` tells the present
    `crossing.harness_digest`.
    """

    def work(transaction: Transaction) -> None:
        queued = {one.id: one for one in sessions.queue(transaction) if one.cluster in inventory}
        waiting = [Waiting(one.id, one.cluster, inventory[one.cluster].resources) for one in queued.values()]
        longest = max((_lease_time(settings, one) for one in queued.values()), default=LEASE_MARGIN)
        held = {one.resource for one in reservations.held_between(transaction, now, now + longest)}
        for one in choose(waiting, held, ready):
            _reserve(transaction, settings, inventory[one.cluster], queued[one.session], harness(), now)

    transact(engine, work)


def _reserve(
    transaction: Transaction, settings: Settings, cluster: Cluster, session: Session, harness: str, now: Time
) -> None:
    owner = Owner(session.tenant, session.account, "private")
    until = now + _lease_time(settings, session)
    booking = reservations.reserve(transaction, owner, cluster.resources, sessions.holder_of(session.id), now, until)
    if isinstance(booking, reservations.Refusal):
        return
    plan = sessions.build_plan(transaction, session, cluster, booking, settings, harness)
    sessions.mark_reserved(transaction, session, plan)


def _lease_time(settings: Settings, session: Session) -> datetime.timedelta:
    deployments = len(session.builds) * session.blocks
    return datetime.timedelta(seconds=sessions.deadline_s(settings, deployments=deployments)) + LEASE_MARGIN
