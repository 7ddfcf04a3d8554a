"""A trip on a real database with a real worker: all of it, or none of it, and only forward once it is paid."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack

import pytest

from orchestrator import Filter, Orchestrator, Status
from sagas.participants.bank import Bank
from sagas.participants.refusals import UnknownBooking
from sagas.participants.travel import Travel
from sagas.trip_booking import BookTrip, Leg, saga
from tests.sagas.office import ended, held, kill, office, process, seen, stands, started
from tests.sagas.town import Town

FLIGHT = Leg(kind="flight", offer="flight-porto", cents=2_000)
HOTEL = Leg(kind="hotel", offer="hotel-porto", cents=1_500)
CAR = Leg(kind="car", offer="car-porto", cents=900)
ACCOUNTS = "SELECT FROM participants.bank_account FOR UPDATE"
CLOSING = "UPDATE participants.bank_account SET closed = true"
BOOKINGS = "SELECT FROM participants.travel_booking FOR UPDATE"
OFFERS = ("flight-porto", "hotel-porto", "car-porto")


def trip(*legs: Leg, traveller: str = "ann") -> BookTrip:
    return BookTrip(trip_id="t1", traveller=traveller, legs=list(legs))


async def nothing_is_left(town: Town) -> None:
    books = await town.books()
    assert books.problems == ()
    assert books.half_booked == books.travelling == books.paid == frozenset()
    assert [await town.places(offer) for offer in OFFERS] == [2, 2, 2]
    assert await town.account("ann") == (100_000, 0, 0)


async def statuses_of_children(orchestrator: Orchestrator) -> dict[str, Status]:
    found = await orchestrator.search(Filter())
    return {child.name: child.status for child in found if child.parent is not None}


async def test_a_trip_is_booked_paid_and_ticketed(town: Town, dsn: str) -> None:
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, trip(FLIGHT, HOTEL, CAR))
        result = await handle.result(within=20)
    assert result.cents == 4_400
    assert [ticket.offer for ticket in result.tickets] == list(OFFERS)
    books = await town.books()
    assert books.problems == ()
    assert books.travelling == {"t1"}
    assert books.half_booked == books.half_done == frozenset()
    assert await town.account("ann") == (95_600, 0, 0)
    assert [await town.places(offer) for offer in OFFERS] == [1, 1, 1]


@pytest.mark.parametrize(
    ("failing", "traveller", "reason"),
    [
        (Leg(kind="flight", offer="flight-atlantis", cents=2_000), "ann", "no place is left"),
        (Leg(kind="car", offer="car-porto", cents=899), "ann", "car-porto costs 900 cents"),
        (Leg(kind="car", offer="car-atlantis", cents=1), "ann", "no offer car-atlantis"),
        (CAR, "tim", "tim has no licence"),
    ],
)
async def test_a_leg_that_fails_takes_the_booked_ones_back(
    town: Town, dsn: str, failing: Leg, traveller: str, reason: str
) -> None:
    async with office(dsn, saga) as orchestrator:
        asked = trip(HOTEL, FLIGHT, failing, traveller=traveller)
        status, why = await ended(await orchestrator.start(saga, asked))
        children = await statuses_of_children(orchestrator)
    assert status is Status.COMPENSATED
    assert reason in why
    assert children["trip-hotel"] is Status.COMPENSATED
    await nothing_is_left(town)
    assert (await town.books()).undone["booking"] == {"t1"}


async def test_a_card_that_is_refused_takes_all_legs_back(town: Town, dsn: str) -> None:
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, trip(FLIGHT, HOTEL, traveller="tim"))
        status, why = await ended(handle)
        children = await statuses_of_children(orchestrator)
    assert status is Status.COMPENSATED
    assert "account tim has 3000 cents" in why
    assert children == {"trip-flight": Status.COMPENSATED, "trip-hotel": Status.COMPENSATED}
    await nothing_is_left(town)


class MuteBank(Bank):
    """Charges, or not, and never answers."""

    charges = True

    async def charge(self, order_id: str, account: str, cents: int, *, key: str) -> str:
        if self.charges:
            await super().charge(order_id, account, cents, key=key)
        raise ConnectionResetError("the line went dead")


class DeafBank(MuteBank):
    """Hears nothing either."""

    charges = False


async def test_a_payment_that_nobody_confirmed_is_looked_up_and_the_trip_goes_on(
    town: Town, dsn: str
) -> None:
    async with office(dsn, saga, instead={Bank: MuteBank(town.pool)}) as orchestrator:
        handle = await orchestrator.start(saga, trip(FLIGHT))
        assert (await handle.result(within=30)).payment_id == "payment-1"
        assert "ProbeAnswered" in [entry.type async for entry in handle.history()]
    books = await town.books()
    assert books.problems == ()
    assert books.travelling == {"t1"}


async def test_a_payment_that_did_not_arrive_never_will_and_the_trip_goes_back(
    town: Town, dsn: str
) -> None:
    async with office(dsn, saga, instead={Bank: DeafBank(town.pool)}) as orchestrator:
        handle = await orchestrator.start(saga, trip(FLIGHT))
        status, _ = await ended(handle, within=30)
    assert status is Status.COMPENSATED
    await nothing_is_left(town)
    assert await town.value("SELECT state FROM participants.bank_payment") == "barred"


class SlowTravel(Travel):
    """Issues tickets at the third call only."""

    calls = 0

    async def issue(self, trip_id: str, booking_id: str, *, key: str) -> str:
        self.calls += 1
        if self.calls <= 2:
            raise ConnectionResetError("the printer is out of paper")
        return await super().issue(trip_id, booking_id, key=key)


class ClosedTravel(Travel):
    """Issues no tickets to anybody."""

    async def issue(self, trip_id: str, booking_id: str, *, key: str) -> str:
        raise UnknownBooking(f"no ticket for {booking_id}")


async def test_after_the_payment_tickets_are_tried_until_they_are_there(
    town: Town, dsn: str
) -> None:
    async with office(dsn, saga, instead={Travel: SlowTravel(town.pool)}) as orchestrator:
        handle = await orchestrator.start(saga, trip(FLIGHT))
        assert len((await handle.result(within=20)).tickets) == 1
    assert (await town.books()).travelling == {"t1"}


async def test_a_ticket_that_is_refused_waits_for_a_person_and_undoes_nothing(
    town: Town, dsn: str
) -> None:
    travel = ClosedTravel(town.pool)
    async with office(dsn, saga, instead={Travel: travel}) as orchestrator:
        handle = await orchestrator.start(saga, trip(FLIGHT))
        status, why = await ended(handle)
        assert status is Status.STUCK
        assert "no ticket for booking-1" in why
    books = await town.books()
    assert books.problems == ()
    assert books.paid == books.live["booking"] == {"t1"}
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.handle(handle.saga_id)
        await orchestrator.retry_step(handle.saga_id, reason="it is open again", actor="ann")
        await seen(handle, "SagaCompleted")
    assert (await town.books()).travelling == {"t1"}


@pytest.mark.crash
async def test_a_worker_that_is_killed_while_the_card_is_charged_is_taken_over(
    town: Town, dsn: str
) -> None:
    async with started(dsn, saga, trip(FLIGHT, HOTEL)) as handle:
        with process(dsn, "sagas") as first:
            async with held(town.pool, ACCOUNTS):
                await stands(town.pool, "bank_payment")
                await kill(first)
        with process(dsn, "sagas") as second:
            assert len((await handle.result(within=40)).tickets) == 2
            assert second.end(signal.SIGTERM) == 0
    books = await town.books()
    assert books.problems == ()
    assert books.travelling == {"t1"}
    assert await town.value("SELECT calls FROM participants.bank_payment") == 2
    assert await town.account("ann") == (96_500, 0, 0)


@pytest.mark.crash
async def test_a_worker_that_is_killed_while_a_leg_is_given_back_is_taken_over(
    town: Town, dsn: str
) -> None:
    async with started(dsn, saga, trip(FLIGHT, HOTEL)) as handle:
        with process(dsn, "sagas") as first:
            async with AsyncExitStack() as bank:
                await bank.enter_async_context(held(town.pool, CLOSING))
                await stands(town.pool, "bank_payment")
                async with held(town.pool, BOOKINGS):
                    await bank.aclose()
                    await stands(town.pool, "travel_booking")
                    await kill(first)
        with process(dsn, "sagas") as second:
            status, _ = await ended(handle, within=40)
            assert second.end(signal.SIGTERM) == 0
    assert status is Status.COMPENSATED
    await nothing_is_left(town)
