"""The lender: money is reserved in a fund, and paid out by an entry in the ledger."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, refusal, undo


class Lender:
    """Funds, and what of them is promised to whom."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def reserve(self, loan_id: str, fund: str, cents: int, *, key: str) -> str:
        """Promise money of a fund to a loan; `FundExhausted` if there is less."""
        number = await apply(self._pool, RESERVE, key, loan_id=loan_id, fund=fund, cents=cents)
        return f"reservation-{number}"

    async def release(self, key: str) -> None:
        """Put back what was reserved under *key*."""
        await undo(self._pool, RELEASE, key)


async def pay_out(db: asyncpg.Connection, loan_id: str, account: str, cents: int) -> int:
    """Write the ledger and put the money on the account, in the caller's transaction; the entry's number.

    It does not ask whether it was called before: that is the caller's promise.
    """
    try:
        entry = await db.fetchval(PAY_OUT, loan_id, account, cents)
    except asyncpg.RaiseError as error:
        raise refusal(error) from error
    return int(entry)


RESERVE = """
WITH reservation AS (
    INSERT INTO participants.lender_reservation AS r (key, loan_id, fund, cents) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO UPDATE SET calls = r.calls + 1
    RETURNING *
), promised AS (
    UPDATE participants.lender_fund f
    SET cents = CASE
        WHEN f.cents < r.cents THEN participants.refuse('FundExhausted', format(
            'fund %s has %s cents left, not %s', f.fund, f.cents, r.cents))
        ELSE f.cents - r.cents END
    FROM reservation r
    WHERE f.fund = r.fund AND r.state = 'live' AND r.calls = 1
    RETURNING f.fund
)
SELECT r.*, CASE WHEN r.state = 'live' AND r.calls = 1 AND p.fund IS NULL
    THEN participants.refuse('UnknownFund', format('there is no fund %s', r.fund)) END
FROM reservation r LEFT JOIN promised p ON true
"""

RELEASE = """
WITH reservation AS (
    INSERT INTO participants.lender_reservation AS r (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
    ON CONFLICT (key) DO UPDATE
    SET state = CASE r.state WHEN 'live' THEN 'undone' ELSE r.state END, undos = r.undos + 1
    RETURNING *
)
UPDATE participants.lender_fund f SET cents = f.cents + r.cents
FROM reservation r
WHERE f.fund = r.fund AND r.state = 'undone' AND r.undos = 1
"""

PAY_OUT = """
WITH entry AS (
    INSERT INTO participants.lender_ledger (loan_id, account, cents) VALUES ($1, $2, $3) RETURNING *
), paid AS (
    UPDATE participants.bank_account a
    SET cents = CASE
        WHEN a.closed THEN participants.refuse('AccountClosed', format('account %s is closed', a.account))
        ELSE a.cents + e.cents END
    FROM entry e WHERE a.account = e.account
    RETURNING a.account
)
SELECT e.entry, CASE WHEN p.account IS NULL
    THEN participants.refuse('UnknownAccount', format('there is no account %s', e.account)) END
FROM entry e LEFT JOIN paid p ON true
"""
