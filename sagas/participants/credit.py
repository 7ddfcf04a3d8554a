"""The credit bureau: it tells a score, and every enquiry leaves a mark in the person's file."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import applied, settle, undo


class CreditBureau:
    """Scores of people, and who asked for them."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def enquire(self, loan_id: str, applicant: str, *, key: str) -> int:
        """The score as it was when this key came first."""
        row = await applied(self._pool, ENQUIRE, key, loan_id=loan_id, applicant=applicant)
        return int(row["score"])

    async def enquired(self, key: str) -> int | None:
        """What the enquiry under *key* was told; if there is none, a late one is not let in."""
        row = await settle(self._pool, ENQUIRED, key)
        return None if row is None else int(row["score"])

    async def withdraw(self, key: str) -> None:
        """Take the mark of the enquiry under *key* out of the file."""
        await undo(self._pool, WITHDRAW, key)


ENQUIRE = """
WITH enquiry AS (
    INSERT INTO participants.credit_enquiry AS e (key, loan_id, applicant, score)
    VALUES ($1, $2, $3, (SELECT f.score FROM participants.credit_file f WHERE f.applicant = $3))
    ON CONFLICT (key) DO UPDATE SET calls = e.calls + 1
    RETURNING *
)
SELECT e.*, CASE WHEN e.state = 'live' AND e.calls = 1 AND e.score IS NULL
    THEN participants.refuse('UnknownApplicant', format('there is no file on %s', e.applicant)) END
FROM enquiry e
"""

ENQUIRED = """
INSERT INTO participants.credit_enquiry AS e (key, state, calls) VALUES ($1, 'barred', 0)
ON CONFLICT (key) DO UPDATE SET calls = e.calls
RETURNING *
"""

WITHDRAW = """
INSERT INTO participants.credit_enquiry AS e (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE e.state WHEN 'live' THEN 'undone' ELSE e.state END, undos = e.undos + 1
"""
