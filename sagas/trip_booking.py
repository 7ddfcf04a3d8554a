"""A trip: book all legs side by side, each a saga of its own; pay; from then on only forward, to the tickets.

What it shows: children, `each` over a list that is known when it gets there, a router, a pivot whose
doubt is settled by a probe. A leg that fails takes the trip back: the legs that were booked are
compensated, those that had completed too. Once the trip is paid, nothing is undone any more:
tickets are tried again until they are issued, or until a person is needed.

    saga start trip-booking --wait --input '{"trip_id": "porto", "traveller": "bo-castro", "legs": [
        {"kind": "flight", "offer": "flight-porto", "cents": 22900},
        {"kind": "hotel", "offer": "hotel-porto", "cents": 15900},
        {"kind": "car", "offer": "car-porto", "cents": 9900}]}'
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from orchestrator import (
    Attempted,
    Happened,
    NotHappened,
    Router,
    Saga,
    WorkflowContext,
    each,
    pure,
    step,
)
from sagas.participants.bank import Bank
from sagas.participants.travel import Travel


class Leg(BaseModel, frozen=True, extra="forbid"):
    """One part of a trip, at the price that was agreed."""

    kind: Literal["flight", "hotel", "car"]
    offer: str
    cents: int = Field(gt=0)


class BookTrip(BaseModel, frozen=True, extra="forbid"):
    """Who travels, and how."""

    trip_id: str = Field(min_length=1)
    traveller: str
    legs: list[Leg] = Field(min_length=1, max_length=20)


class BookLeg(BaseModel, frozen=True):
    """What the saga of one leg is asked for."""

    trip_id: str
    traveller: str
    leg: Leg


class Booking(BaseModel, frozen=True):
    """A place is taken."""

    trip_id: str
    traveller: str
    leg: Leg
    booking_id: str


class Paid(BaseModel, frozen=True):
    """The trip belongs to the traveller."""

    payment_id: str
    bookings: list[Booking]


class Ticket(BaseModel, frozen=True):
    """What is shown at the gate, the desk, the counter."""

    offer: str
    ticket_id: str


class Trip(BaseModel, frozen=True):
    """All is done."""

    trip_id: str
    payment_id: str
    cents: int
    tickets: list[Ticket]


# ---------------------------------------------------------------------------- the legs


@step(retries=3, timeout=30)
async def hold_place(order: BookLeg, ctx: WorkflowContext) -> Booking:
    """Take a seat, a room or a car."""
    leg = order.leg
    booking_id = await ctx.use(Travel).book(
        order.trip_id, leg.offer, order.traveller, leg.cents, key=ctx.idempotency_key
    )
    return Booking(trip_id=order.trip_id, traveller=order.traveller, leg=leg, booking_id=booking_id)


@hold_place.compensation_on_doubt
async def give_place_back(tried: Attempted[BookLeg, Booking], ctx: WorkflowContext) -> None:
    """Somebody else may have it; a booking that arrives late is not let in."""
    await ctx.use(Travel).cancel(tried.key)


@step(retries=3, timeout=30)
async def show_passport(booking: Booking, ctx: WorkflowContext) -> Booking:
    """No airline takes a passenger without one."""
    return await _register(booking, "passport", ctx)


@step(retries=3, timeout=30)
async def show_licence(booking: Booking, ctx: WorkflowContext) -> Booking:
    """Nobody rents a car without one."""
    return await _register(booking, "licence", ctx)


@show_passport.compensation_on_doubt
@show_licence.compensation_on_doubt
async def strike_out(tried: Attempted[Booking, Booking], ctx: WorkflowContext) -> None:
    """The traveller does not come."""
    await ctx.use(Travel).strike(tried.key)


async def _register(booking: Booking, paper: str, ctx: WorkflowContext) -> Booking:
    travel, key = ctx.use(Travel), ctx.idempotency_key
    await travel.register(booking.trip_id, booking.traveller, paper, key=key)
    return booking


flight = Saga("trip-flight", version=1, body=hold_place >> show_passport)
hotel = Saga("trip-hotel", version=1, body=hold_place)
car = Saga("trip-car", version=1, body=hold_place >> show_licence)


# ---------------------------------------------------------------------------- the trip


def legs(trip: BookTrip) -> list[BookLeg]:
    """What is to be booked."""
    return [BookLeg(trip_id=trip.trip_id, traveller=trip.traveller, leg=leg) for leg in trip.legs]


def kind_of(order: BookLeg, ctx: WorkflowContext) -> str:
    """The route of a leg."""
    return order.leg.kind


@step(retries=3, timeout=30)
async def pay_trip(bookings: list[Booking], ctx: WorkflowContext) -> Paid:
    """Charge the traveller's card for all legs at once."""
    payment_id = await ctx.use(Bank).charge(
        bookings[0].trip_id, bookings[0].traveller, total(bookings), key=ctx.idempotency_key
    )
    return Paid(payment_id=payment_id, bookings=bookings)


@pay_trip.probe
async def was_it_paid(
    tried: Attempted[list[Booking], Paid], ctx: WorkflowContext
) -> Happened[Paid] | NotHappened:
    """Ask the bank. Where it says no, a charge that is still under way is not let in any more."""
    payment_id = await ctx.use(Bank).charged(tried.key)
    if payment_id is None:
        return NotHappened()
    return Happened(Paid(payment_id=payment_id, bookings=tried.input))


def bookings_of(paid: Paid) -> list[Booking]:
    """What tickets are due for."""
    return paid.bookings


@step(timeout=30)
async def issue_ticket(booking: Booking, ctx: WorkflowContext) -> Ticket:
    """Make a booking a ticket."""
    ticket_id = await ctx.use(Travel).issue(
        booking.trip_id, booking.booking_id, key=ctx.idempotency_key
    )
    return Ticket(offer=booking.leg.offer, ticket_id=ticket_id)


def itinerary(done: tuple[Paid, list[Ticket]]) -> Trip:
    """All of it on one sheet."""
    paid, tickets = done
    return Trip(
        trip_id=paid.bookings[0].trip_id,
        payment_id=paid.payment_id,
        cents=total(paid.bookings),
        tickets=tickets,
    )


def total(bookings: list[Booking]) -> int:
    """The price of the trip in cents."""
    return sum(booking.leg.cents for booking in bookings)


book_leg = Router(
    {"flight": flight.child(), "hotel": hotel.child(), "car": car.child()}, router_fn=kind_of
)

saga = Saga(
    "trip-booking",
    version=1,
    body=(
        pure(legs)
        >> each(book_leg, concurrency=5)
        >> pay_trip.pivot()
        >> pure(bookings_of)
        >> each(issue_ticket.retry(1_000, cap=600), concurrency=5)
        >> pure(itinerary).using(lambda v: (v.output(pay_trip), v.value))
    ),
)
