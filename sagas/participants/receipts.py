"""The back office: one receipt per order, if the books allow it."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo
from sagas.participants.refusals import ReceiptExists

REVIEW_ABOVE_CENTS = 500_000


class Receipts:
    """Receipts that were written, and the tax numbers that they need."""

    def __init__(self, pool: asyncpg.Pool, review_above_cents: int = REVIEW_ABOVE_CENTS) -> None:
        self._pool = pool
        self._review_above_cents = review_above_cents

    async def write(
        self, order_id: str, customer: str, cents: int, payment: str, parcel: str, *, key: str
    ) -> str:
        """Write the receipt of an order that was paid and is on its way."""
        try:
            number = await apply(
                self._pool, WRITE, key,
                order_id=order_id, customer=customer, cents=cents, payment=payment, parcel=parcel,
                extra=(self._review_above_cents,),
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise ReceiptExists(f"order {order_id} has a receipt already") from error
        return f"receipt-{number}"

    async def withdraw(self, key: str) -> None:
        """Make the receipt that was written under *key* void."""
        await undo(self._pool, WITHDRAW, key)


WRITE = """
WITH receipt AS (
    INSERT INTO participants.receipts_receipt AS r (key, order_id, customer, cents, payment, parcel)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (key) DO UPDATE SET calls = r.calls + 1
    RETURNING *
)
SELECT r.*, CASE
    WHEN r.state <> 'live' OR r.calls > 1 THEN NULL
    WHEN r.cents > $7::bigint THEN participants.refuse('ReviewRequired', format(
        'order %s of %s cents is over %s and needs a review', r.order_id, r.cents, $7::bigint))
    WHEN NOT EXISTS (
        SELECT FROM participants.receipts_customer c WHERE c.customer = r.customer AND c.tax_id IS NOT NULL
    ) THEN participants.refuse('TaxIdMissing', format('customer %s has given no tax number', r.customer))
    END
FROM receipt r
"""

WITHDRAW = """
INSERT INTO participants.receipts_receipt AS r (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE r.state WHEN 'live' THEN 'undone' ELSE r.state END, undos = r.undos + 1
"""
