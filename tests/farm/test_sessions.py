"""What a session is asked, and which states it may go through."""

import datetime
from pathlib import Path
from typing import get_args

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session as Transaction

from farm import campaigns, sessions
from farm.campaigns import merge_builds, on_demand_question
from farm.results.database import open_database, reading, transact
from farm.results.tables import Owner, Purpose, Session, SessionState
from farm.settings import CampaignSettings, FarmFile, RepositorySettings, Settings
from scenarios.crossing import revision_of

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
REPOSITORY = RepositorySettings("tiny", "somewhere")
ONE, TWO, THREE = ("1" * 40, "2" * 40, "3" * 40)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(f"sqlite:///{tmp_path / 'farm.sqlite'}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, None, FarmFile(campaign=CampaignSettings(blocks=(1, 2))))


def test_every_state_has_its_ways_out() -> None:
    states = get_args(SessionState)
    assert set(sessions.TRANSITIONS) == set(states)
    ends = {state for state in states if not sessions.TRANSITIONS[state]}
    assert ends == {"done", "cancelled"}
    assert all(sessions.can_move(state, "cancelled") for state in set(states) - ends - {"failed"})
    assert [state for state in states if sessions.can_move(state, "queued")] == ["reserved", "running", "failed"]
    assert [state for state in states if sessions.can_move(state, "done")] == ["running"]
    assert [state for state in states if sessions.can_move(state, "running")] == ["reserved"]


@pytest.mark.parametrize(
    ("attempt", "failures", "then"),
    [(1, 1, "queued"), (2, 2, "queued"), (3, 3, "failed"), (5, 2, "queued"), (10, 0, "failed")],
)
def test_attempts_are_limited(attempt: int, failures: int, then: str) -> None:
    assert sessions.after_failure(attempt, failures) == then


def test_every_purpose_has_its_place_in_the_queue() -> None:
    assert set(campaigns.PRIORITY) == set(get_args(Purpose))
    assert campaigns.PRIORITY["on demand"] < campaigns.PRIORITY["check-in"] < campaigns.PRIORITY["history"]


def test_builds_that_coincide_are_one_with_all_roles() -> None:
    builds = merge_builds(REPOSITORY, [(ONE, "subject"), (TWO, "parent"), (ONE, "canary"), (ONE, "canary")])
    assert [(build.commit, build.roles) for build in builds] == [(ONE, ("subject", "canary")), (TWO, ("parent",))]
    assert builds[0].revision == revision_of({"tiny": ONE})


def test_asking_twice_changes_nothing_and_another_campaign_repeats(engine: Engine, settings: Settings) -> None:
    owner = Owner("local", "local")

    def ask(campaign: str, subject: str = ONE, account: Owner = owner) -> int:
        question = on_demand_question(REPOSITORY, subject, TWO, THREE, campaign)
        asked = transact(engine, lambda tx: campaigns.ask(tx, settings, account, ["acorn", "birch"], question, NOON))
        return len(asked)

    assert [ask("monday"), ask("monday"), ask("tuesday"), ask("monday", subject=THREE)] == [4, 0, 4, 4]
    assert ask("monday", account=Owner("local", "other", "private")) == 4, "another account asks for itself"
    with reading(engine) as transaction:
        rows = list(transaction.scalars(select(Session)))
    assert len({row.key for row in rows}) == len(rows) == 16
    assert {(row.account, row.visibility) for row in rows} == {("local", "public"), ("other", "private")}
    assert [build["roles"] for build in rows[0].builds] == [["subject"], ["base"], ["canary"]]


def test_people_come_before_machines_and_clusters_alternate(engine: Engine, settings: Settings) -> None:
    owner = Owner("local", "local")

    def work(transaction: Transaction) -> list[tuple[str, int, str]]:
        for minute, campaign in enumerate(["old", "new"]):
            question = on_demand_question(REPOSITORY, ONE, None, ONE, campaign)
            now = NOON + datetime.timedelta(minutes=minute)
            campaigns.ask(transaction, settings, owner, ["acorn", "birch"], question, now)
        for row in sessions.queue(transaction):
            row.priority = 40 if row.campaign == "old" else 10
        queue = sessions.queue(transaction)
        return [(row.campaign, row.ordinal, row.cluster) for row in queue]

    assert transact(engine, work) == [
        (campaign, ordinal, cluster)
        for campaign in ("new", "old")
        for ordinal in (0, 1)
        for cluster in ("acorn", "birch")
    ]
