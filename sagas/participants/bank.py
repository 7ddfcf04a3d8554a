"""The bank: card payments for orders, and transfers between accounts in four legs."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

import asyncpg

from sagas.participants.effects import apply, settle, undo

TILLS = 16


class Leg(NamedTuple):
    """What a leg adds to the three sums of its account, and the leg that must stand before it."""

    cents: int
    reserved: int
    pending: int
    after: str


LEGS = {
    "reserve": Leg(cents=0, reserved=+1, pending=0, after=""),
    "debit": Leg(cents=-1, reserved=-1, pending=0, after="reserve"),
    "credit": Leg(cents=0, reserved=0, pending=+1, after="debit"),
    "confirm": Leg(cents=+1, reserved=0, pending=-1, after="credit"),
}
"""Credited money is pending until it is confirmed: it cannot be spent, so it can be taken back."""


class Bank:
    """Accounts in cents. A key belongs to one payment or one leg."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def charge(self, order_id: str, account: str, cents: int, *, key: str) -> str:
        """Pay the shop by card, within the card's limit for one payment."""
        till = crc32(key.encode()) % TILLS
        number = await apply(
            self._pool, CHARGE, key, order_id=order_id, account=account, cents=cents, extra=(till,)
        )
        return f"payment-{number}"

    async def refund(self, key: str) -> None:
        """Give back what was charged under *key*."""
        await undo(self._pool, REFUND, key)

    async def charged(self, key: str) -> str | None:
        """The payment that stands under *key*; if there is none, a late charge is not let in."""
        row = await settle(self._pool, CHARGED, key)
        return None if row is None else f"payment-{row['number']}"

    async def reserve(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        """Set money aside, so that nobody else can spend it."""
        return await self._move("reserve", transfer_id, account, cents, key)

    async def debit(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        """Send the reserved money on its way."""
        return await self._move("debit", transfer_id, account, cents, key)

    async def credit(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        """Let the money arrive, pending."""
        return await self._move("credit", transfer_id, account, cents, key)

    async def confirm(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        """Hand the pending money to its new owner."""
        return await self._move("confirm", transfer_id, account, cents, key)

    async def release(self, key: str) -> None:
        """Take back the leg that was made under *key*: whichever of the four it was."""
        await undo(self._pool, RELEASE, key)

    async def _move(self, kind: str, transfer_id: str, account: str, cents: int, key: str) -> str:
        number = await apply(
            self._pool, MOVE, key,
            kind=kind, transfer_id=transfer_id, account=account, cents=cents, extra=LEGS[kind],
        )  # fmt: skip
        return f"{kind}-{number}"


CHARGE = """
WITH payment AS (
    INSERT INTO participants.bank_payment AS p (key, order_id, account, cents, till) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (key) DO UPDATE SET calls = p.calls + 1
    RETURNING *
), paid AS (
    UPDATE participants.bank_account a
    SET cents = CASE
        WHEN a.closed THEN participants.refuse('AccountClosed', format('account %s is closed', a.account))
        WHEN p.cents > a.card_limit THEN participants.refuse('CardLimitExceeded', format(
            'a payment of %s cents is over the limit of %s cents on the card of %s', p.cents, a.card_limit, a.account))
        WHEN p.cents > a.cents - a.reserved THEN participants.refuse('InsufficientFunds', format(
            'account %s has %s cents to spend, not %s', a.account, a.cents - a.reserved, p.cents))
        ELSE a.cents - p.cents END
    FROM payment p
    WHERE a.account = p.account AND p.state = 'live' AND p.calls = 1
    RETURNING a.account, p.cents AS amount, p.till
), banked AS (
    UPDATE participants.bank_till t SET cents = t.cents + paid.amount FROM paid WHERE t.till = paid.till
)
SELECT p.*, CASE WHEN p.state = 'live' AND p.calls = 1 AND paid.account IS NULL
    THEN participants.refuse('UnknownAccount', format('there is no account %s', p.account)) END
FROM payment p LEFT JOIN paid ON true
"""

REFUND = """
WITH payment AS (
    INSERT INTO participants.bank_payment AS p (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
    ON CONFLICT (key) DO UPDATE
    SET state = CASE p.state WHEN 'live' THEN 'undone' ELSE p.state END, undos = p.undos + 1
    RETURNING *
), repaid AS (
    UPDATE participants.bank_account a SET cents = a.cents + p.cents
    FROM payment p
    WHERE a.account = p.account AND p.state = 'undone' AND p.undos = 1
    RETURNING p.cents AS amount, p.till
)
UPDATE participants.bank_till t SET cents = t.cents - repaid.amount FROM repaid WHERE t.till = repaid.till
"""

CHARGED = """
INSERT INTO participants.bank_payment AS p (key, state, calls) VALUES ($1, 'barred', 0)
ON CONFLICT (key) DO UPDATE SET calls = p.calls
RETURNING *
"""

MOVE = """
WITH leg AS (
    INSERT INTO participants.bank_leg AS l
        (key, kind, transfer_id, account, cents, cents_sign, reserved_sign, pending_sign)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (key) DO UPDATE SET calls = l.calls + 1
    RETURNING *
), moved AS (
    UPDATE participants.bank_account a
    SET cents = CASE
        WHEN a.closed THEN participants.refuse('AccountClosed', format('account %s is closed', a.account))
        WHEN l.kind = 'reserve' AND l.cents > a.cents - a.reserved THEN participants.refuse('InsufficientFunds', format(
            'account %s has %s cents to spend, not %s', a.account, a.cents - a.reserved, l.cents))
        WHEN $9 <> '' AND NOT EXISTS (
            SELECT FROM participants.bank_leg b
            WHERE b.transfer_id = l.transfer_id AND b.kind = $9 AND b.cents = l.cents AND b.state = 'live'
        ) THEN participants.refuse('OutOfTurn', format(
            'the %s of transfer %s finds no %s of %s cents', l.kind, l.transfer_id, $9, l.cents))
        ELSE a.cents + l.cents_sign * l.cents END,
        reserved = a.reserved + l.reserved_sign * l.cents,
        pending = a.pending + l.pending_sign * l.cents
    FROM leg l
    WHERE a.account = l.account AND l.state = 'live' AND l.calls = 1
    RETURNING a.account
)
SELECT l.*, CASE WHEN l.state = 'live' AND l.calls = 1 AND m.account IS NULL
    THEN participants.refuse('UnknownAccount', format('there is no account %s', l.account)) END
FROM leg l LEFT JOIN moved m ON true
"""

RELEASE = """
WITH leg AS (
    INSERT INTO participants.bank_leg AS l (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
    ON CONFLICT (key) DO UPDATE
    SET state = CASE l.state WHEN 'live' THEN 'undone' ELSE l.state END, undos = l.undos + 1
    RETURNING *
)
UPDATE participants.bank_account a
SET cents = a.cents - l.cents_sign * l.cents,
    reserved = a.reserved - l.reserved_sign * l.cents,
    pending = a.pending - l.pending_sign * l.cents
FROM leg l
WHERE a.account = l.account AND l.state = 'undone' AND l.undos = 1
"""
