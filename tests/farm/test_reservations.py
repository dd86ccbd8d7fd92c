"""Reservations: all or nothing, one holder at a time, tokens that grow, whatever the history."""

import datetime
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session as Transaction

from farm.reservations import Booking, Held, Refusal, booking_of, conflicts, extend, release, reserve
from farm.results.database import open_database, reading, transact
from farm.results.tables import Owner, Reservation

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
OWNER = Owner("local", "local")
RESOURCES = ("machine:this", "host:acorn/h1", "host:acorn/h2", "storage:acorn")
HOLDERS = ("session:a", "session:b", "user:c")


def after(minutes: float) -> datetime.datetime:
    return NOON + datetime.timedelta(minutes=minutes)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return open_database(f"sqlite:///{tmp_path_factory.mktemp('reservations') / 'farm.sqlite'}")


@pytest.fixture(autouse=True)
def _empty(engine: Engine) -> Iterator[None]:
    yield
    transact(engine, lambda transaction: transaction.execute(delete(Reservation)))


def book(engine: Engine, holder: str, *resources: str, since: float = 0, until: float = 10) -> Booking | Refusal:
    return transact(engine, lambda tx: reserve(tx, OWNER, resources, holder, after(since), after(until)))


def booked(engine: Engine, holder: str, *resources: str, since: float = 0, until: float = 10) -> Booking:
    booking = book(engine, holder, *resources, since=since, until=until)
    assert isinstance(booking, Booking), str(booking)
    return booking


def rows(engine: Engine) -> list[Reservation]:
    with reading(engine) as transaction:
        return list(transaction.scalars(select(Reservation).order_by(Reservation.token, Reservation.resource)))


def test_all_resources_or_none(engine: Engine) -> None:
    booked(engine, "user:c", "host:acorn/h2")
    refusal = book(engine, "session:a", "host:acorn/h1", "host:acorn/h2")
    assert str(refusal) == "host:acorn/h2 is held by user:c until 2026-01-01 12:10:00Z"
    assert [row.resource for row in rows(engine)] == ["host:acorn/h2"]


def test_asking_again_returns_what_the_holder_has(engine: Engine) -> None:
    first = booked(engine, "session:a", "host:acorn/h1", "storage:acorn")
    again = booked(engine, "session:a", "storage:acorn", "host:acorn/h1", since=1, until=30)
    assert (again.id, again.token, again.until) == (first.id, first.token, first.until)
    assert len(rows(engine)) == 2


def test_one_promise_may_begin_when_another_ends(engine: Engine) -> None:
    first = booked(engine, "session:a", "machine:this", until=10)
    second = booked(engine, "session:b", "machine:this", since=10, until=20)
    assert second.token > first.token


def test_a_promise_ends_by_itself(engine: Engine) -> None:
    booked(engine, "session:a", "machine:this", until=10)
    assert isinstance(book(engine, "session:b", "machine:this", since=9.9, until=20), Refusal)
    with reading(engine) as transaction:
        assert booking_of(transaction, "session:a", after(10)) is None


def test_a_future_promise_holds_back_what_would_run_into_it(engine: Engine) -> None:
    booked(engine, "user:c", "machine:this", since=30, until=60)
    assert isinstance(book(engine, "session:a", "machine:this", since=25, until=35), Refusal)
    booked(engine, "session:a", "machine:this", since=20, until=30)


def test_release_frees_at_once_and_again_is_no_harm(engine: Engine) -> None:
    first = booked(engine, "session:a", "machine:this", "storage:acorn")
    assert transact(engine, lambda tx: release(tx, "session:a", after(1))) == 2
    assert transact(engine, lambda tx: release(tx, "session:a", after(2))) == 0
    assert booked(engine, "session:b", "machine:this", since=2).token == first.token + 1


def test_extending_moves_the_end_unless_somebody_is_in_the_way(engine: Engine) -> None:
    booked(engine, "session:a", "machine:this", until=10)
    booked(engine, "user:c", "machine:this", since=20, until=30)
    longer = transact(engine, lambda tx: extend(tx, "session:a", after(5), after(20)))
    assert isinstance(longer, Booking)
    assert longer.until == after(20)
    assert isinstance(transact(engine, lambda tx: extend(tx, "session:a", after(5), after(21))), Refusal)
    assert transact(engine, lambda tx: extend(tx, "session:a", after(20), after(25))) is None


@pytest.mark.parametrize(("resources", "until"), [((), 10), (("machine:this",), 0)])
def test_an_empty_promise_is_refused(engine: Engine, resources: tuple[str, ...], until: float) -> None:
    with pytest.raises(ValueError, match="at least one resource"):
        book(engine, "session:a", *resources, until=until)


def test_of_many_that_ask_at_once_exactly_one_gets_it(engine: Engine) -> None:
    answers: list[Booking | Refusal] = []
    start = threading.Barrier(8)

    def ask(number: int) -> None:
        start.wait(timeout=20)
        answers.append(book(engine, f"session:{number}", "host:acorn/h1", "machine:this"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [type(answer) for answer in answers].count(Booking) == 1
    assert len(answers) == 8


times = st.integers(0, 60)


@given(st.tuples(times, times), st.tuples(times, times))
def test_conflict_is_exactly_a_common_moment(one: tuple[int, int], other: tuple[int, int]) -> None:
    (since, until), (held_since, held_until) = sorted(one), sorted(other)
    held = Held("machine:this", "user:c", after(held_since), after(held_until))
    common = set(range(since, until)) & set(range(held_since, held_until))
    found = conflicts(["machine:this"], after(since), after(until), [held])
    if since < until and held_since < held_until:
        assert bool(found) == bool(common)
    assert conflicts(["storage:acorn"], after(since), after(until), [held]) == ()


class Crash(RuntimeError):
    pass


class Histories(RuleBasedStateMachine):
    """Random histories of asking, extending, releasing, waiting and dying in the middle."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        transact(self.engine, lambda transaction: transaction.execute(delete(Reservation)))
        self.now = 0
        self.tokens: list[int] = []

    @rule(
        holder=st.sampled_from(HOLDERS),
        resources=st.sets(st.sampled_from(RESOURCES), min_size=1),
        start=st.integers(0, 3),
        length=st.integers(1, 8),
    )
    def ask(self, holder: str, resources: set[str], start: int, length: int) -> None:
        since, until = self.now + start, self.now + start + length
        before = self.live()
        answer = book(self.engine, holder, *sorted(resources), since=since, until=until)
        if isinstance(answer, Refusal):
            assert all(held.resource in resources for held in answer.conflicts)
            assert conflicts(resources, after(since), after(until), before) == answer.conflicts
        elif not self.tokens or answer.token > self.tokens[-1]:
            self.tokens.append(answer.token)
            assert set(answer.resources) == resources
        else:
            assert answer.holder == holder, "only the holder's own booking may be given again"

    @rule(holder=st.sampled_from(HOLDERS), resource=st.sampled_from(RESOURCES))
    def die_while_asking(self, holder: str, resource: str) -> None:
        before = [(row.id, row.released_at) for row in rows(self.engine)]

        def work(transaction: Transaction) -> None:
            release(transaction, holder, after(self.now))
            reserve(transaction, OWNER, [resource], holder, after(self.now + 500), after(self.now + 501))
            raise Crash

        with pytest.raises(Crash):
            transact(self.engine, work)
        assert [(row.id, row.released_at) for row in rows(self.engine)] == before

    @rule(holder=st.sampled_from(HOLDERS), length=st.integers(1, 8))
    def ask_for_longer(self, holder: str, length: int) -> None:
        transact(self.engine, lambda tx: extend(tx, holder, after(self.now), after(self.now + length)))

    @rule(holder=st.sampled_from(HOLDERS))
    def give_back(self, holder: str) -> None:
        transact(self.engine, lambda tx: release(tx, holder, after(self.now)))
        assert all(held.holder != holder for held in self.live())

    @rule(minutes=st.integers(1, 5))
    def wait(self, minutes: int) -> None:
        self.now += minutes

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        live = self.live()
        for number, one in enumerate(live):
            assert conflicts([one.resource], one.since, one.until, live[number + 1 :]) == ()

    @invariant()
    def tokens_are_one_per_booking(self) -> None:
        by_booking = {row.booking: row.token for row in rows(self.engine)}
        assert len(set(by_booking.values())) == len(by_booking)

    def live(self) -> list[Held]:
        return [
            Held(row.resource, row.holder, row.since, row.until)
            for row in rows(self.engine)
            if row.released_at is None and row.until > after(self.now)
        ]


def test_any_history(engine: Engine) -> None:
    Histories.engine = engine
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
