"""The farm's own queue: sessions asked for, their states, and the plan of each attempt.

    queued ─▶ reserved ─▶ running ─▶ done
      ▲ ╰─▶ cancelled ◀──╯ │   │
      ╰────────────────────┴───┴──▶ failed, after too many attempts

A session's key says what it asks, so asking twice changes nothing. Attempts are counted here: Buildbot would
try for ever. `farm.results.ingest` moves a session to done, in the transaction that stores its samples.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session as Transaction

from farm.inventory import Cluster
from farm.names import there_are
from farm.reservations import Booking
from farm.results.builds import known
from farm.results.tables import Session, SessionState
from farm.settings import ScenarioSettings, Settings
from scenarios import parameters, sweeps
from scenarios.contract import Fault
from scenarios.crossing import (
    SCHEMA,
    Lease,
    Plan,
    PlannedBuild,
    PlannedScenario,
    Progress,
    digest_of,
    to_data,
)
from scenarios.registry import BY_DEFAULT, SCENARIOS
from scenarios.strict import BadData, from_data

Time = datetime.datetime

MAX_FAILURES = 3  # attempts that went wrong; an attempt that our own restart cut short is none of them
MAX_ATTEMPTS = 10  # of any kind: a session that takes the whole machine down must not loop
# `session_deadline_s` is enough for this many deployments; a session of more gets more, in proportion
DEPLOYMENTS_PER_DEADLINE = 10

TRANSITIONS: Mapping[SessionState, frozenset[SessionState]] = {
    "queued": frozenset({"reserved", "cancelled"}),
    "reserved": frozenset({"running", "queued", "failed", "cancelled"}),
    "running": frozenset({"done", "queued", "failed", "cancelled"}),
    "done": frozenset(),
    "failed": frozenset({"queued"}),  # at a new start of the farm, where it was nobody's check-in
    "cancelled": frozenset(),
}
OPEN_STATES: tuple[SessionState, ...] = ("reserved", "running")


class SessionError(ValueError):
    """One line: what was asked of a session that cannot be."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt brought nothing; `interrupted` when our own restart cut it short."""

    fault: Fault
    message: str
    interrupted: bool = False


def can_move(state: SessionState, to: SessionState) -> bool:
    return to in TRANSITIONS[state]


def after_failure(attempt: int, failures: int) -> Literal["queued", "failed"]:
    """Whether an attempt that brought nothing is tried again; `failures` includes this one."""
    return "failed" if failures >= MAX_FAILURES or attempt >= MAX_ATTEMPTS else "queued"


def holder_of(session: str) -> str:
    """The name under which a session holds reservations."""
    return f"session:{session}"


def queue(transaction: Transaction) -> list[Session]:
    """Queued sessions in the order of their turn.

    The first session of every campaign comes before any campaign's later ones: a provisional figure for each of
    several check-ins before a verdict for one. Sessions of one ordinal stand side by side for all clusters, so
    that comparisons of clusters are matched in time.
    """
    queued = transaction.scalars(select(Session).where(Session.state == "queued"))
    return sorted(queued, key=_turn)


def _turn(session: Session) -> tuple[object, ...]:
    campaign = [int(part) if part.isdigit() else -1 for part in session.campaign.split("-")]  # 9 before 10
    first = session.priority, session.ordinal > 0, session.created_at, campaign, session.campaign
    return (*first, session.ordinal, session.cluster, session.id)


def open_sessions(transaction: Transaction) -> list[Session]:
    """Sessions that hold, or should hold, a reservation."""
    return list(transaction.scalars(select(Session).where(Session.state.in_(OPEN_STATES)).order_by(Session.id)))


def mark_reserved(transaction: Transaction, session: Session, plan: Plan) -> None:
    """The session's next attempt has its hosts and its plan, and waits for its build to begin."""
    _move(session, "reserved")
    session.attempt = plan.attempt
    session.plan = to_data(plan)
    session.plan_digest = digest_of(plan)
    session.build_request = None
    session.progress = None
    session.message = session.fault = None
    session.started_at = None
    transaction.flush()


def record_request(transaction: Transaction, identity: str, attempt: int, build_request: int) -> None:
    """Buildbot has this request for the attempt."""
    transaction.execute(
        update(Session)
        .where(Session.id == identity, Session.attempt == attempt, Session.state == "reserved")
        .values(build_request=build_request)
    )


def begin(transaction: Transaction, identity: str, attempt: int, build_request: int, now: Time) -> Session:
    """The build of this attempt begins: once only. Raises SessionError where it has begun, or is not wanted."""
    session = find(transaction, identity)
    if session.attempt != attempt or session.state != "reserved":
        raise SessionError(
            f"session {identity}: attempt {attempt} may not begin: it is {session.state}, attempt {session.attempt}"
        )
    _move(session, "running")
    session.build_request = build_request
    session.started_at = now
    return session


def note_progress(transaction: Transaction, identity: str, attempt: int, progress: Progress) -> None:
    transaction.execute(
        update(Session)
        .where(Session.id == identity, Session.attempt == attempt, Session.state == "running")
        .values(progress=to_data(progress))
    )


def fail_attempt(
    transaction: Transaction,
    identity: str,
    attempt: int,
    failure: Failure,
    now: Time,
    *,
    only_in: SessionState = "running",
) -> None:
    """An attempt brought nothing: queue the session again, or give it up.

    Nothing changes where the attempt is not the present one any more, or the session is not in state `only_in`.
    """
    session = find(transaction, identity)
    if session.attempt != attempt or session.state != only_in:
        return
    session.failures += 0 if failure.interrupted else 1
    _move(session, after_failure(session.attempt, session.failures))
    session.fault, session.message = failure.fault, failure.message
    if session.state == "failed":
        session.finished_at = now


def try_again(transaction: Transaction) -> None:
    """Queue anew what was given up by a fault of the farm or of a donor: whoever starts the farm again means it."""
    given_up = select(Session).where(
        Session.state == "failed", Session.fault.in_(("farm", "donor")), Session.attempt < MAX_ATTEMPTS
    )
    for session in transaction.scalars(given_up):
        _move(session, "queued")
        session.failures = 0
        session.finished_at = None


def cancel(transaction: Transaction, identity: str, now: Time) -> Session:
    """Nobody wants it any more. A running one is ended by the master, which then frees its hosts.

    Cancelling again changes nothing; raises SessionError for one that is unknown, done or failed.
    """
    session = find(transaction, identity)
    if session.state == "cancelled":
        return session
    if not can_move(state_of(session), "cancelled"):
        raise SessionError(f"session {session.id} is {session.state} and cannot be cancelled any more")
    _move(session, "cancelled")
    session.message = "cancelled on request"
    session.finished_at = now
    return session


def find(transaction: Transaction, identity: str) -> Session:
    """The session with this id; raises SessionError."""
    session = transaction.get(Session, identity)
    if session is None:
        raise SessionError(f"there is no session '{identity}'")
    return session


def _move(session: Session, to: SessionState) -> None:
    if not can_move(state_of(session), to):
        raise SessionError(f"session {session.id} is {session.state} and cannot become {to}")
    session.state = to


def state_of(session: Session) -> SessionState:
    """Its state, as the type that the column stands for."""
    state: SessionState = session.state  # type: ignore[assignment]  # the column holds nothing else
    return state


def build_plan(
    transaction: Transaction, session: Session, cluster: Cluster, booking: Booking, settings: Settings, harness: str
) -> Plan:
    """The next attempt of the session, whole, as a worker gets it. `harness` is `crossing.harness_digest`."""
    asked = (from_data(build, PlannedBuild, source=f"session {session.id}") for build in session.builds)
    builds = tuple(replace(build, resolved=known(transaction, session, build)) for build in asked)
    return Plan(
        schema=SCHEMA,
        harness=harness,
        session=session.id,
        attempt=session.attempt + 1,
        cluster=cluster.planned,
        lease=Lease(
            holder=booking.holder,
            token=booking.token,
            resources=booking.resources,
            expires=booking.until.isoformat(),
        ),
        builds=builds,
        scenarios=_scenarios_of(session, settings),
        blocks=session.blocks,
        rounds=session.rounds,
        seed=int(session.key[:12], 16),
        deadline_s=deadline_s(settings, deployments=len(builds) * session.blocks),
    )


def deadline_s(settings: Settings, *, deployments: int) -> int:
    """How long a session of that many deployments may take."""
    limit_s = settings.farm.campaign.session_deadline_s
    return max(limit_s, limit_s * deployments // DEPLOYMENTS_PER_DEADLINE)


def _scenarios_of(session: Session, settings: Settings) -> tuple[PlannedScenario, ...]:
    """What this session asks: scenarios of its own, or those that the settings ask for."""
    if session.scenarios is None:
        return planned_scenarios(settings.farm.scenario)
    return tuple(from_data(one, PlannedScenario, source=f"session {session.id}") for one in session.scenarios)


def require_time(settings: Settings, builds: Sequence[PlannedBuild], name: str) -> None:
    """Raises BadData for a sweep that would not end within its session's deadline."""
    sweep = sweeps.load(name)
    limit_s, expected_s = deadline_s(settings, deployments=len(builds) * sweep.blocks), sweep.expected_s(len(builds))
    if expected_s > limit_s:
        raise BadData(
            f"sweep '{name}' takes about {expected_s} s with {len(builds)} builds, but its session must end within "
            f"{limit_s} s: give it fewer values or blocks, or raise campaign.session_deadline_s"
        )


def planned_scenarios(asked: Sequence[ScenarioSettings]) -> tuple[PlannedScenario, ...]:
    """The scenarios that are asked for, or the default ones; raises BadData for what none of them can answer."""
    chosen = asked or tuple(ScenarioSettings(name) for name in BY_DEFAULT)
    ways: list[tuple[str, parameters.Values]] = []
    for one in chosen:
        if one.name not in SCENARIOS:
            raise BadData(f"scenario '{one.name}' does not exist {there_are(one.name, SCENARIOS)}")
        try:
            way = one.name, parameters.read(SCENARIOS[one.name].parameters, one.params)
        except ValueError as error:
            raise BadData(f"scenario '{one.name}': {error}") from None
        if way in ways:  # two samples of one place would get the whole bundle rejected
            raise BadData(f"scenario '{one.name}' is asked twice in the same way")
        ways.append(way)
    # always in the same order: one that leaves a guest running for its proof comes last
    order = list(SCENARIOS)
    return tuple(
        PlannedScenario(one.name, SCENARIOS[one.name].version, dict(one.params))
        for one in sorted(chosen, key=lambda one: order.index(one.name))
    )
