"""The books see every sum that does not agree."""

from __future__ import annotations

import pytest

from sagas.participants.lender import pay_out
from tests.sagas.town import Town


async def fulfil(town: Town, order: str) -> None:
    await town.stock.hold(order, "chair", 2, key=f"{order}/hold")
    payment = await town.bank.charge(order, "ann", 10_000, key=f"{order}/pay")
    parcel = await town.parcels.book(order, "Mill Lane 1, Ghent", "BE", key=f"{order}/ship")
    await town.receipts.write(order, "ann", 10_000, payment, parcel, key=f"{order}/receipt")


async def test_fulfilled_orders_balance(town: Town) -> None:
    await fulfil(town, "o1")
    await fulfil(town, "o2")
    books = await town.books()
    assert books.problems == ()
    assert books.fulfilled == {"o1", "o2"}
    assert books.half_done == frozenset()


async def travel(town: Town, trip: str) -> None:
    booking = await town.travel.book(trip, "car-porto", "ann", 900, key=f"{trip}/car")
    await town.bank.charge(trip, "ann", 900, key=f"{trip}/pay")
    await town.travel.issue(trip, booking, key=f"{trip}/ticket")


async def lend(town: Town, loan: str) -> None:
    await town.lender.reserve(loan, "retail", 700, key=f"{loan}/reserve")
    async with town.pool.acquire() as db:
        await pay_out(db, loan, "ann", 700)


async def test_trips_and_loans_balance(town: Town) -> None:
    await travel(town, "t1")
    await lend(town, "l1")
    await town.travel.book("t2", "car-porto", "ann", 900, key="t2/car")
    await town.lender.reserve("l2", "retail", 1, key="l2/reserve")
    books = await town.books()
    assert books.problems == ()
    assert books.travelling == {"t1"}
    assert books.half_booked == {"t2"}
    assert books.half_lent == {"l2"}
    assert books.half_done == frozenset()


async def test_an_order_that_was_taken_back_halfway_is_seen(town: Town) -> None:
    await fulfil(town, "o1")
    await town.receipts.withdraw("o1/receipt")
    await town.parcels.cancel("o1/ship")
    books = await town.books()
    assert books.balanced
    assert books.half_done == {"o1"}
    assert books.holding == books.paid == {"o1"}
    assert not books.shipped | books.receipted
    assert books.undone["parcel"] == {"o1"}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            "UPDATE participants.stock_article SET on_hand = on_hand + 1 WHERE article = 'lamp'",
            "article lamp: 10 at first, 0 held, but 11 on hand",
        ),
        (
            "DELETE FROM participants.stock_hold",
            "article chair: 1000 at first, 0 held, but 998 on hand",
        ),
        (
            "UPDATE participants.bank_account SET cents = cents - 1 WHERE account = 'ann'",
            "account ann: cents 89799, reserved 0, pending 0; its payments and transfers make 89800, 0, 0",
        ),
        (
            "UPDATE participants.bank_account SET cents = cents - 1 WHERE account = 'ann'",
            "103700 cents came into the bank; it accounts for 103699",
        ),
        (
            "UPDATE participants.bank_account SET reserved = 5 WHERE account = 'tim'",
            "account tim: cents 3000, reserved 5, pending 0; its payments and transfers make 3000, 0, 0",
        ),
        (
            "UPDATE participants.bank_till SET cents = cents + 7 WHERE till = 3",
            "103700 cents came into the bank; it accounts for 103707",
        ),
        (
            "UPDATE participants.bank_payment SET state = 'undone'",
            "the receipt of order o1 says 10000 cents, its payment does not stand",
        ),
        (
            "UPDATE participants.receipts_receipt SET cents = 1",
            "the receipt of order o1 says 1 cents, its payment 10000",
        ),
        (
            "INSERT INTO participants.parcels_parcel (key, order_id, address, country) VALUES ('x', 'o1', 'a', 'BE')",
            "order o1 has 2 live effects of kind parcel",
        ),
        (
            "UPDATE participants.travel_offer SET places = 2",
            "offer car-porto: 2 places at first, 1 booked, but 2 left",
        ),
        (
            "INSERT INTO participants.travel_ticket (key, trip_id, booking) SELECT 'x', trip_id, booking "
            "FROM participants.travel_ticket",
            "booking 1 of trip t1 has 2 tickets",
        ),
        (
            "UPDATE participants.travel_booking SET state = 'undone'",
            "trip t1 has tickets for 0 cents of bookings, its payment is 900",
        ),
        (
            "UPDATE participants.lender_fund SET cents = 5000000",
            "fund retail: 5000000 cents at first, 700 promised, but 5000000 left",
        ),
        (
            "INSERT INTO participants.lender_ledger (loan_id, account, cents) VALUES ('l1', 'ann', 700)",
            "loan l1: the ledger has 2 entries of 1400 cents together, reserved are 700",
        ),
        (
            "INSERT INTO participants.lender_ledger (loan_id, account, cents) VALUES ('l1', 'ann', 700)",
            "account ann: cents 89800, reserved 0, pending 0; its payments and transfers make 90500, 0, 0",
        ),
    ],
)
async def test_a_planted_imbalance_is_found(town: Town, damage: str, problem: str) -> None:
    await fulfil(town, "o1")
    await travel(town, "t1")
    await lend(town, "l1")
    assert (await town.books()).balanced
    await town.pool.execute(damage)
    books = await town.books()
    assert not books.balanced
    assert problem in books.problems
