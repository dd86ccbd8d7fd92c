"""From check-ins to reserved sessions: campaigns, turns, recovery."""

import datetime
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session as Transaction

from farm import scheduler, sessions
from farm.inventory import Cluster, load_inventory
from farm.reservations import booking_of, reserve
from farm.results.database import open_database, reading, transact
from farm.results.tables import CheckIn, Owner, Reservation, Session
from farm.scheduler import START_TIMEOUT, Waiting, choose
from farm.settings import CHECKOUT, CampaignSettings, FarmFile, RepositorySettings, ScenarioSettings, Settings
from scenarios.contract import Fault
from scenarios.crossing import Plan, Progress, digest_of
from scenarios.registry import SCENARIOS
from scenarios.strict import BadData, from_data
from tests.helpers.probe import PROBE
from tests.helpers.repositories import Repository

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
BOTH = ("acorn", "birch")


def after(seconds: float) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=seconds)


class Desk:
    """The scheduler over a real repository and database, with the master's part played by hand."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "tiny")
        self.settings = Settings(
            folder,
            None,
            FarmFile(
                repository=(RepositorySettings("tiny", str(folder / "tiny")),),
                scenario=(ScenarioSettings("probe", {"size": 3}),),
                campaign=CampaignSettings(blocks=(1, 2)),
            ),
        )
        self.inventory: dict[str, Cluster] = load_inventory(CHECKOUT / "inventory")
        self.engine: Engine = open_database(self.settings.database_url)

    def watch(self, now: datetime.datetime = NOON) -> list[str]:
        return scheduler.watch(self.engine, self.settings, self.inventory, now)

    def schedule(self, now: datetime.datetime = NOON, ready: Collection[str] = BOTH) -> list[str]:
        """One pass; returns the clusters that hold a reserved session then."""
        scheduler.schedule(self.engine, self.settings, self.inventory, lambda: "f" * 64, ready, now)
        return [one.cluster for one in scheduler.open_sessions(self.engine)]

    def settle(self, now: datetime.datetime, live: Collection[str] = ()) -> None:
        scheduler.settle(self.engine, scheduler.open_sessions(self.engine), live, now)

    def rows(self) -> list[Session]:
        order = (Session.created_at, Session.campaign, Session.ordinal, Session.cluster)
        with reading(self.engine) as transaction:
            return list(transaction.scalars(select(Session).order_by(*order)))

    def the_open_one(self) -> Session:
        (found,) = [row for row in self.rows() if row.state in sessions.OPEN_STATES]
        return found

    def begin(self, now: datetime.datetime = NOON) -> Session:
        one = self.the_open_one()
        return transact(self.engine, lambda tx: sessions.begin(tx, one.id, one.attempt, 7, now))

    def done(self) -> None:
        one = self.the_open_one()

        def work(transaction: Transaction) -> None:
            sessions.find(transaction, one.id).state = "done"

        transact(self.engine, work)

    def fail(self, one: Session, fault: Fault, now: datetime.datetime) -> None:
        failure = sessions.Failure(fault, "trouble")
        transact(self.engine, lambda tx: sessions.fail_attempt(tx, one.id, one.attempt, failure, now))
        self.settle(now)

    def held(self, now: datetime.datetime) -> set[str]:
        with reading(self.engine) as transaction:
            rows = transaction.scalars(
                select(Reservation).where(Reservation.released_at.is_(None), Reservation.until > now)
            )
            return {row.resource for row in rows}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setitem(SCENARIOS, PROBE.name, PROBE)
    return Desk(tmp_path)


def test_a_new_repository_gets_one_history_campaign(desk: Desk) -> None:
    oldest = desk.repository.commit("one")
    newest = desk.repository.commit("two")
    assert desk.watch() == []
    assert desk.watch(after(5)) == []
    rows = desk.rows()
    assert [(row.purpose, row.ordinal, row.cluster, row.blocks) for row in rows] == [
        ("history", 0, "acorn", 1),
        ("history", 0, "birch", 1),
        ("history", 1, "acorn", 2),
        ("history", 1, "birch", 2),
    ]
    assert [(build["commit"], build["roles"]) for build in rows[0].builds] == [
        (oldest, ["window", "canary"]),
        (newest, ["window"]),
    ]
    assert (rows[0].tenant, rows[0].account, rows[0].visibility) == ("local", "local", "public")


def test_every_later_check_in_is_measured_beside_its_parent_and_the_canary(desk: Desk) -> None:
    canary = desk.repository.commit("one")
    desk.watch()
    second = desk.repository.commit("two")
    third = desk.repository.commit("three")
    desk.watch(after(5))
    desk.watch(after(10))
    new = [row for row in desk.rows() if row.purpose == "check-in"]
    assert len(new) == 2 * 2 * 2
    roles = {row.campaign: [(b["commit"], b["roles"]) for b in row.builds] for row in new}
    assert roles == {
        "tiny-2": [(second, ["subject"]), (canary, ["parent", "canary"])],
        "tiny-3": [(third, ["subject"]), (second, ["parent"]), (canary, ["canary"])],
    }


def test_a_cluster_that_joins_later_catches_up_with_history(desk: Desk) -> None:
    birch = desk.inventory.pop("birch")
    desk.repository.commit("one")
    desk.watch()
    desk.repository.commit("two")
    desk.watch(after(5))
    desk.inventory["birch"] = birch
    desk.watch(after(10))
    assert [(row.purpose, len(row.builds)) for row in desk.rows() if row.cluster == "birch"] == [("history", 2)] * 2


def test_a_canary_from_the_settings_is_measured_too(desk: Desk) -> None:
    frozen = desk.repository.commit("one")
    desk.repository.commit("two")
    (repository,) = desk.settings.farm.repository
    named = RepositorySettings(repository.name, repository.url, canary=frozen[:8])
    farm = FarmFile(**{**desk.settings.farm.__dict__, "repository": (named,)})
    farm = FarmFile(**{**farm.__dict__, "campaign": CampaignSettings(blocks=(1,), history=1)})
    desk.settings = Settings(desk.settings.home, None, farm)
    desk.watch()
    assert [[build["roles"] for build in row.builds] for row in desk.rows()] == [[["window"], ["canary"]]] * 2
    assert desk.rows()[0].builds[1]["commit"] == frozen


def test_a_repository_that_does_not_answer_does_not_hold_up_the_others(desk: Desk) -> None:
    desk.repository.commit("one")
    gone = RepositorySettings("gone", str(desk.settings.home / "gone"))
    farm = FarmFile(**{**desk.settings.farm.__dict__, "repository": (gone, *desk.settings.farm.repository)})
    desk.settings = Settings(desk.settings.home, None, farm)
    (warning,) = desk.watch()
    assert warning.startswith("repository gone: ")
    assert {row.repository for row in desk.rows()} == {"tiny"}


def test_clusters_of_one_machine_take_turns_in_the_order_of_the_queue(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    turns = []
    for turn in range(4):
        now = after(100 * turn)
        assert len(desk.schedule(now)) == 1
        assert len(desk.schedule(now)) == 1, "nobody else may start meanwhile"
        one = desk.begin(now)
        turns.append((one.ordinal, one.cluster))
        desk.settle(now, live={one.id})
        assert desk.held(now) == set(desk.inventory[one.cluster].resources)
        desk.done()
        desk.settle(now, live={one.id})
        assert desk.held(now), "the build, which sweeps, has not ended yet"
        desk.settle(now)
        assert desk.held(now) == set()
    assert turns == [(0, "acorn"), (0, "birch"), (1, "acorn"), (1, "birch")]
    assert desk.schedule(after(1000)) == []


def test_a_cluster_whose_worker_is_away_does_not_hold_up_the_other(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    assert desk.schedule(ready=["birch"]) == ["birch"]


def test_somebody_elses_reservation_holds_a_session_back(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    owner = Owner("local", "local")
    transact(desk.engine, lambda tx: reserve(tx, owner, ["host:acorn/h2"], "user:c", NOON, after(60)))
    assert desk.schedule() == [], "acorn's turn comes first and it keeps its place for the machine they share"
    assert desk.schedule(after(60)) == ["acorn"]


def test_the_plan_says_all_that_a_worker_needs(desk: Desk) -> None:
    commit = desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    row = desk.the_open_one()
    plan = from_data(row.plan, Plan, source="plan")
    assert row.plan_digest == digest_of(plan)
    assert (plan.session, plan.attempt, plan.harness, plan.blocks, plan.rounds) == (row.id, 1, "f" * 64, 1, 1)
    assert [(build.commit, build.repository) for build in plan.builds] == [(commit, str(desk.repository.path))]
    assert [(one.name, one.version, one.params) for one in plan.scenarios] == [("probe", 1, {"size": 3})]
    assert [host.name for host in plan.cluster.hosts] == ["h1", "h2"]
    assert plan.lease.holder == f"session:{row.id}"
    assert plan.lease.resources == desk.inventory["acorn"].resources
    with reading(desk.engine) as transaction:
        booking = booking_of(transaction, plan.lease.holder, NOON)
    assert booking is not None
    assert (plan.lease.token, plan.lease.expires) == (booking.token, booking.until.isoformat())
    assert booking.until > after(plan.deadline_s)


def test_a_long_session_gets_a_long_deadline(desk: Desk) -> None:
    limit_s = desk.settings.farm.campaign.session_deadline_s
    assert sessions.deadline_s(desk.settings, deployments=3) == limit_s
    assert sessions.deadline_s(desk.settings, deployments=60) == 6 * limit_s


def test_an_unknown_scenario_is_named(desk: Desk) -> None:
    farm = FarmFile(**{**desk.settings.farm.__dict__, "scenario": (ScenarioSettings("prob"),)})
    with pytest.raises(BadData, match=r"scenario 'prob' does not exist \(did you mean 'probe'\?"):
        sessions.planned_scenarios(farm.scenario)


def test_a_build_that_is_gone_is_a_failure_and_the_next_attempt_has_a_higher_token(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    for failures in (1, 2, 3):
        desk.schedule(after(failures))
        one = desk.begin(after(failures))
        assert one.attempt == failures
        desk.settle(after(failures))
        assert desk.held(after(failures)) == set()
    last = next(row for row in desk.rows() if row.id == one.id)
    assert (last.state, last.failures, last.fault) == ("failed", 3, "farm")
    with reading(desk.engine) as transaction:
        tokens = transaction.scalars(
            select(Reservation.token).where(Reservation.resource == "machine:this").order_by(Reservation.id)
        ).all()
    assert list(tokens) == [1, 2, 3]


def test_our_own_restart_is_no_failure_but_not_for_ever(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    first = None
    for attempt in range(1, sessions.MAX_ATTEMPTS + 1):
        desk.schedule(after(attempt))
        one = desk.begin(after(attempt))
        first = first or one.id
        assert (one.id, one.attempt, one.failures) == (first, attempt, 0)
        scheduler.interrupt_all(desk.engine, after(attempt))
        assert desk.held(after(attempt)) == set()
    assert next(row for row in desk.rows() if row.id == first).state == "failed"


def test_a_restart_puts_what_was_reserved_back_without_counting_a_failure(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    scheduler.interrupt_all(desk.engine, after(1))
    assert {(row.state, row.failures) for row in desk.rows()} == {("queued", 0)}
    assert desk.held(after(2)) == set()


@pytest.mark.parametrize(("fault", "state"), [("farm", "queued"), ("donor", "queued"), ("stack", "failed")])
def test_a_new_start_tries_again_what_was_nobodys_check_in(desk: Desk, fault: Fault, state: str) -> None:
    desk.repository.commit("one")
    desk.watch()
    failed = None
    for attempt in range(sessions.MAX_FAILURES):
        desk.schedule(after(attempt))
        one = desk.begin(after(attempt))
        failed = one.id
        desk.fail(one, fault, after(attempt))
    assert failed is not None
    scheduler.interrupt_all(desk.engine, after(60))
    row = next(row for row in desk.rows() if row.id == failed)
    assert (row.state, row.failures) == (state, 0 if state == "queued" else sessions.MAX_FAILURES)


def test_a_worker_that_does_not_take_a_session_up_loses_it(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    desk.settle(after(2))
    assert desk.the_open_one().state == "reserved"
    desk.settle(NOON + START_TIMEOUT + datetime.timedelta(seconds=1))
    assert {row.state for row in desk.rows()} == {"queued"}
    assert desk.held(after(120)) == set()


def test_what_was_settled_meanwhile_stands(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    desk.begin()
    before = scheduler.open_sessions(desk.engine)
    desk.done()
    scheduler.settle(desk.engine, before, (), after(1))
    assert desk.rows()[0].state == "done"


def test_a_live_session_keeps_its_lease_beyond_its_end(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    one = desk.begin()
    late = after(sessions.deadline_s(desk.settings, deployments=1) + 200)
    desk.settle(late, live={one.id})
    assert desk.held(late + datetime.timedelta(seconds=200)) == set(desk.inventory["acorn"].resources)


def test_a_session_begins_once(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    one = desk.begin()
    with pytest.raises(sessions.SessionError, match="attempt 1 may not begin: it is running, attempt 1"):
        transact(desk.engine, lambda tx: sessions.begin(tx, one.id, 1, 8, NOON))
    with pytest.raises(sessions.SessionError, match="there is no session 'x'"):
        transact(desk.engine, lambda tx: sessions.begin(tx, "x", 1, 8, NOON))


def test_late_words_of_an_earlier_attempt_change_nothing(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    one = desk.begin()
    desk.settle(after(1))
    desk.schedule(after(2))
    desk.begin(after(2))
    late = sessions.Failure("donor", "too late")
    transact(desk.engine, lambda tx: sessions.fail_attempt(tx, one.id, 1, late, after(3)))
    transact(desk.engine, lambda tx: sessions.note_progress(tx, one.id, 1, Progress(9, 9, "late")))
    now = desk.the_open_one()
    assert (now.state, now.attempt, now.failures, now.progress) == ("running", 2, 1, None)


def test_cancelling(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.schedule()
    one = desk.begin()
    for _ in range(2):
        cancelled = transact(desk.engine, lambda tx: sessions.cancel(tx, one.id, after(1)))
        assert (cancelled.state, cancelled.finished_at) == ("cancelled", after(1))
    assert scheduler.cancelled_among(desk.engine, {one.id, "x"}) == {one.id}
    desk.settle(after(2), live={one.id})
    assert desk.held(after(2)), "its build has not ended yet"
    desk.settle(after(3))
    assert desk.held(after(3)) == set()
    desk.schedule(after(4))
    desk.begin(after(4))
    other = desk.the_open_one()
    desk.done()
    with pytest.raises(sessions.SessionError, match="is done and cannot be cancelled any more"):
        transact(desk.engine, lambda tx: sessions.cancel(tx, other.id, after(5)))


def test_forced_pushes_are_all_measured(desk: Desk) -> None:
    desk.repository.commit("one")
    desk.watch()
    desk.repository.commit("two")
    desk.watch()
    desk.repository.git("reset", "--quiet", "--hard", "HEAD~1")
    desk.repository.commit("two, better")
    desk.watch()
    with reading(desk.engine) as transaction:
        numbers = list(transaction.scalars(select(CheckIn.number).order_by(CheckIn.number)))
    assert numbers == [1, 2, 3]
    assert {row.campaign for row in desk.rows()} == {"tiny-history", "tiny-2", "tiny-3"}


resources = st.frozensets(st.sampled_from("abcd"), min_size=1)
queues = st.lists(st.tuples(st.sampled_from(["acorn", "birch"]), resources), max_size=8)


@given(queues, st.frozensets(st.sampled_from("abcd")), st.sets(st.sampled_from(["acorn", "birch"])))
def test_nobody_gets_what_is_held_or_overtakes_for_it(
    queue: list[tuple[str, frozenset[str]]], held: frozenset[str], ready: set[str]
) -> None:
    waiting = [Waiting(str(i), cluster, tuple(sorted(wanted))) for i, (cluster, wanted) in enumerate(queue)]
    chosen = choose(waiting, held, ready)
    taken = [resource for one in chosen for resource in one.resources]
    assert len(taken) == len(set(taken))
    assert held.isdisjoint(taken)
    for place, one in enumerate(waiting):
        if one.cluster not in ready:
            assert one not in chosen
        elif one not in chosen:
            ahead = {resource for w in waiting[:place] if w.cluster in ready for resource in w.resources}
            assert not (held | ahead).isdisjoint(one.resources), "it waits for somebody before it, or for a holder"
        else:
            ahead = {resource for w in waiting[:place] if w.cluster in ready for resource in w.resources}
            assert ahead.isdisjoint(one.resources), "it overtook somebody"
