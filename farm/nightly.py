"""What a farm asks by itself at night: every sweep, and the canary beside itself, once a night on every cluster.

They come after people, check-ins and history. What one night did not get to is given up when the next one begins,
so that a slow cluster is never further behind than a day.
"""

import datetime
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from farm import campaigns, sessions
from farm.campaigns import Question
from farm.results.tables import Owner, Session
from farm.settings import NightlySettings, RepositorySettings, Settings
from scenarios import sweeps
from scenarios.strict import BadData

Time = datetime.datetime

# a farm that was down for longer than this after the hour waits for the next night
LATEST_START = datetime.timedelta(hours=4)
_MARK = "-nightly-"


def night_of(nightly: NightlySettings, now: Time) -> str | None:
    """The date by which this night's campaigns are called, if `now` is when they are asked for; else None."""
    if not nightly.at:
        return None
    begins = datetime.datetime.combine(now.date(), datetime.time.fromisoformat(nightly.at), tzinfo=datetime.UTC)
    if begins > now:
        begins -= datetime.timedelta(days=1)
    return begins.date().isoformat() if now - begins < LATEST_START else None


def ask_nightly(
    transaction: Transaction,
    settings: Settings,
    owner: Owner,
    clusters: Iterable[str],
    repository: RepositorySettings,
    newest: str,
    canary: str,
    now: Time,
) -> list[str]:
    """Queue this night's campaigns for the commit `newest` where they are not there yet.

    Returns a warning for each sweep that would not end within its session's deadline: it is left out.
    """
    night = night_of(settings.farm.nightly, now)
    if night is None:
        return []
    tonight = f"{repository.name}{_MARK}{night}"
    _give_up_earlier(transaction, repository, tonight, now)
    warnings: list[str] = []
    questions = [campaigns.aa_question(repository, canary, f"{tonight}-aa")]
    for name in settings.farm.nightly.sweeps or sweeps.names():
        question = campaigns.sweep_question(repository, newest, canary, sweeps.load(name), f"{tonight}-{name}")
        try:
            sessions.require_time(settings, question.builds, name)
        except BadData as error:
            warnings.append(f"left out at night: {error}")
            continue
        questions.append(question)
    for question in questions:
        campaigns.ask(transaction, settings, owner, _not_asked(transaction, question, clusters), question, now)
    return warnings


def _not_asked(transaction: Transaction, question: Question, clusters: Iterable[str]) -> list[str]:
    """Clusters that were not asked yet; by the campaign's name, since a newer check-in may have come since."""
    asked = set(
        transaction.scalars(
            select(Session.cluster).where(
                Session.repository == question.repository, Session.campaign == question.campaign
            )
        )
    )
    return [cluster for cluster in clusters if cluster not in asked]


def _give_up_earlier(transaction: Transaction, repository: RepositorySettings, tonight: str, now: Time) -> None:
    waiting = transaction.scalars(
        select(Session).where(
            Session.repository == repository.name,
            Session.state == "queued",
            Session.campaign.startswith(f"{repository.name}{_MARK}", autoescape=True),
        )
    )
    for session in list(waiting):
        if not session.campaign.startswith(tonight):
            sessions.cancel(transaction, session.id, now)
