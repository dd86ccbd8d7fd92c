"""Promises of hosts, links and storage: all that one holder needs, or nothing.

A promise ends by itself at `until`, so a holder that dies keeps nothing for ever. Every booking carries a
fencing token that is higher than all before it: a worker that sees a higher token for a host knows that its
own promise is over. Rows are kept when a promise has ended: they say who had what, and keep the tokens growing.

Call these inside one `farm.results.database.transact`, which makes them serialisable.
"""

import datetime
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session as Transaction

from farm.results.tables import Owner, Reservation

Time = datetime.datetime


@dataclass(frozen=True)
class Held:
    """One resource that somebody was promised, from `since` until before `until`."""

    resource: str
    holder: str
    since: Time
    until: Time


@dataclass(frozen=True)
class Booking:
    """All that one holder was promised at once."""

    id: str
    holder: str
    token: int
    resources: tuple[str, ...]
    since: Time
    until: Time


@dataclass(frozen=True)
class Refusal:
    """Nothing was promised, because these are in the way."""

    conflicts: tuple[Held, ...]

    def __str__(self) -> str:
        return "; ".join(
            f"{held.resource} is held by {held.holder} until {held.until:%Y-%m-%d %H:%M:%SZ}" for held in self.conflicts
        )


def conflicts(wanted: Iterable[str], since: Time, until: Time, held: Iterable[Held]) -> tuple[Held, ...]:
    """What stands in the way of `wanted` between the two times; an end and a beginning may meet."""
    names = set(wanted)
    in_the_way = (one for one in held if one.resource in names and one.since < until and since < one.until)
    return tuple(sorted(in_the_way, key=lambda one: (one.resource, one.since)))


def reserve(
    transaction: Transaction, owner: Owner, resources: Sequence[str], holder: str, since: Time, until: Time
) -> Booking | Refusal:
    """Promise all resources to `holder`, or none of them.

    Asking again for what the holder already has at `since` returns the booking it has. Raises ValueError for
    a promise of nothing, or one that ends before it begins.
    """
    wanted = tuple(dict.fromkeys(resources))
    if not wanted or since >= until:
        raise ValueError("a reservation needs at least one resource, and an end after its beginning")
    had = booking_of(transaction, holder, since)
    if had is not None and set(had.resources) == set(wanted):
        return had
    in_the_way = conflicts(wanted, since, until, held_between(transaction, since, until))
    if in_the_way:
        return Refusal(in_the_way)
    token = (transaction.scalar(select(func.max(Reservation.token))) or 0) + 1
    booking = Booking(secrets.token_hex(8), holder, token, wanted, since, until)
    transaction.add_all(
        Reservation(
            booking=booking.id,
            resource=resource,
            holder=holder,
            token=token,
            since=since,
            until=until,
            released_at=None,
            **owner.columns,
        )
        for resource in wanted
    )
    transaction.flush()
    return booking


def extend(transaction: Transaction, holder: str, now: Time, until: Time) -> Booking | Refusal | None:
    """Let the holder's present booking last until `until`; None where it has none, or no longer."""
    booking = booking_of(transaction, holder, now)
    if booking is None or booking.until >= until:
        return booking
    others = [held for held in held_between(transaction, now, until) if held.holder != holder]
    in_the_way = conflicts(booking.resources, now, until, others)
    if in_the_way:
        return Refusal(in_the_way)
    transaction.execute(update(Reservation).where(Reservation.booking == booking.id).values(until=until))
    return Booking(booking.id, holder, booking.token, booking.resources, booking.since, until)


def release(transaction: Transaction, holder: str, now: Time) -> int:
    """End all promises to the holder; returns how many resources that frees. Again is no harm."""
    ended = transaction.execute(
        update(Reservation)
        .where(Reservation.holder == holder, Reservation.released_at.is_(None), Reservation.until > now)
        .values(released_at=now)
        .returning(Reservation.id)
    )
    return len(ended.all())


def booking_of(transaction: Transaction, holder: str, at: Time) -> Booking | None:
    """What the holder is promised at that time: its newest booking, if several."""
    rows = transaction.scalars(
        select(Reservation)
        .where(
            Reservation.holder == holder,
            Reservation.released_at.is_(None),
            Reservation.since <= at,
            Reservation.until > at,
        )
        .order_by(Reservation.token.desc(), Reservation.id)
    )
    live = list(rows)
    if not live:
        return None
    first = live[0]
    resources = tuple(row.resource for row in live if row.booking == first.booking)
    return Booking(first.booking, holder, first.token, resources, first.since, first.until)


def held_between(transaction: Transaction, since: Time, until: Time) -> list[Held]:
    """Everything promised to anybody that touches the time between the two."""
    rows = transaction.scalars(
        select(Reservation)
        .where(Reservation.released_at.is_(None), Reservation.since < until, Reservation.until > since)
        .order_by(Reservation.resource, Reservation.since)
    )
    return [Held(row.resource, row.holder, row.since, row.until) for row in rows]
