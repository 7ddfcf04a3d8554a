"""The carrier: books parcels to addresses that exist, in countries it serves."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo


class Parcels:
    """Parcels on their way, and the addresses they may go to."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def book(self, order_id: str, address: str, country: str, *, key: str) -> str:
        """Book a parcel and get its tracking number."""
        number = await apply(
            self._pool, BOOK, key, order_id=order_id, address=address, country=country
        )
        return f"parcel-{number}"

    async def cancel(self, key: str) -> None:
        """Call off the parcel that was booked under *key*."""
        await undo(self._pool, CANCEL, key)


BOOK = """
WITH parcel AS (
    INSERT INTO participants.parcels_parcel AS p (key, order_id, address, country) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO UPDATE SET calls = p.calls + 1
    RETURNING *
)
SELECT p.*, CASE
    WHEN p.state <> 'live' OR p.calls > 1 THEN NULL
    WHEN NOT EXISTS (SELECT FROM participants.parcels_country c WHERE c.country = p.country AND c.served)
        THEN participants.refuse('CountryNotServed', format('no carrier delivers to %s', p.country))
    WHEN NOT EXISTS (
        SELECT FROM participants.parcels_address a WHERE a.address = p.address AND a.country = p.country
    ) THEN participants.refuse('UnknownAddress', format('there is no address "%s" in %s', p.address, p.country))
    END
FROM parcel p
"""

CANCEL = """
INSERT INTO participants.parcels_parcel AS p (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE p.state WHEN 'live' THEN 'undone' ELSE p.state END, undos = p.undos + 1
"""
