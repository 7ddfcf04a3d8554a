"""Flights, hotels and rental cars: places are booked, travellers register, tickets are issued."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo


class Travel:
    """Offers with a price and a number of places. A booking takes one place."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def book(self, trip_id: str, offer: str, traveller: str, cents: int, *, key: str) -> str:
        """Take a place at the price that was agreed; `SoldOut` if there is none."""
        number = await apply(
            self._pool, BOOK, key, trip_id=trip_id, offer=offer, traveller=traveller, cents=cents
        )
        return f"booking-{number}"

    async def cancel(self, key: str) -> None:
        """Give the place back that was booked under *key*."""
        await undo(self._pool, CANCEL, key)

    async def register(self, trip_id: str, traveller: str, paper: str, *, key: str) -> str:
        """Show a paper: a flight wants a passport, a car a licence; `PapersMissing` without it."""
        number = await apply(
            self._pool, REGISTER, key, trip_id=trip_id, traveller=traveller, paper=paper
        )
        return f"registration-{number}"

    async def strike(self, key: str) -> None:
        """Strike out the registration that was made under *key*."""
        await undo(self._pool, STRIKE, key)

    async def issue(self, trip_id: str, booking_id: str, *, key: str) -> str:
        """Issue the ticket of a booking. There is no way back."""
        booking = int(booking_id.removeprefix("booking-"))
        number = await apply(self._pool, ISSUE, key, trip_id=trip_id, booking=booking)
        return f"ticket-{number}"


BOOK = """
WITH booking AS (
    INSERT INTO participants.travel_booking AS b (key, trip_id, offer, traveller, cents) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (key) DO UPDATE SET calls = b.calls + 1
    RETURNING *
), taken AS (
    UPDATE participants.travel_offer o
    SET places = CASE
        WHEN o.cents <> b.cents THEN participants.refuse('PriceChanged', format(
            '%s costs %s cents, not %s', o.offer, o.cents, b.cents))
        WHEN o.places = 0 THEN participants.refuse('SoldOut', format('no place is left on %s', o.offer))
        ELSE o.places - 1 END
    FROM booking b
    WHERE o.offer = b.offer AND b.state = 'live' AND b.calls = 1
    RETURNING o.offer
)
SELECT b.*, CASE WHEN b.state = 'live' AND b.calls = 1 AND t.offer IS NULL
    THEN participants.refuse('UnknownOffer', format('there is no offer %s', b.offer)) END
FROM booking b LEFT JOIN taken t ON true
"""

CANCEL = """
WITH booking AS (
    INSERT INTO participants.travel_booking AS b (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
    ON CONFLICT (key) DO UPDATE
    SET state = CASE b.state WHEN 'live' THEN 'undone' ELSE b.state END, undos = b.undos + 1
    RETURNING *
)
UPDATE participants.travel_offer o SET places = o.places + 1
FROM booking b
WHERE o.offer = b.offer AND b.state = 'undone' AND b.undos = 1
"""

REGISTER = """
WITH registration AS (
    INSERT INTO participants.travel_registration AS r (key, trip_id, traveller, paper) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO UPDATE SET calls = r.calls + 1
    RETURNING *
)
SELECT r.*, CASE
    WHEN r.state <> 'live' OR r.calls > 1 THEN NULL
    WHEN NOT EXISTS (
        SELECT FROM participants.travel_traveller t WHERE t.traveller = r.traveller AND r.paper = ANY (t.papers)
    ) THEN participants.refuse('PapersMissing', format('%s has no %s', r.traveller, r.paper))
    END
FROM registration r
"""

STRIKE = """
INSERT INTO participants.travel_registration AS r (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE r.state WHEN 'live' THEN 'undone' ELSE r.state END, undos = r.undos + 1
"""

ISSUE = """
WITH ticket AS (
    INSERT INTO participants.travel_ticket AS t (key, trip_id, booking) VALUES ($1, $2, $3)
    ON CONFLICT (key) DO UPDATE SET calls = t.calls + 1
    RETURNING *
)
SELECT t.*, CASE
    WHEN t.calls > 1 THEN NULL
    WHEN NOT EXISTS (
        SELECT FROM participants.travel_booking b
        WHERE b.number = t.booking AND b.trip_id = t.trip_id AND b.state = 'live'
    ) THEN participants.refuse('UnknownBooking', format(
        'trip %s has no booking %s that a ticket could be issued for', t.trip_id, t.booking))
    END
FROM ticket t
"""
