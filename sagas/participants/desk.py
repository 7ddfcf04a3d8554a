"""The desk: notes and reminders of the people whom an assistant works for."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo
from sagas.participants.refusals import SlotTaken


class Desk:
    """What people want to remember."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def write_note(self, owner: str, body: str, *, key: str) -> str:
        """Keep a note."""
        number = await apply(self._pool, WRITE, key, owner=owner, body=body)
        return f"note-{number}"

    async def tear_up(self, key: str) -> None:
        """Throw the note away that was written under *key*."""
        await undo(self._pool, TEAR_UP, key)

    async def remind(self, owner: str, due: str, body: str, *, key: str) -> str:
        """Remember something at a time of the day; `SlotTaken` if something else is due then."""
        try:
            number = await apply(self._pool, REMIND, key, owner=owner, due=due, body=body)
        except asyncpg.UniqueViolationError as error:
            raise SlotTaken(f"{owner} has a reminder at {due} already") from error
        return f"reminder-{number}"

    async def forget(self, key: str) -> None:
        """Drop the reminder that was set under *key*; its time is free again."""
        await undo(self._pool, FORGET, key)


WRITE = """
INSERT INTO participants.desk_note AS n (key, owner, body) VALUES ($1, $2, $3)
ON CONFLICT (key) DO UPDATE SET calls = n.calls + 1
RETURNING *
"""

TEAR_UP = """
INSERT INTO participants.desk_note AS n (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE n.state WHEN 'live' THEN 'undone' ELSE n.state END, undos = n.undos + 1
"""

REMIND = """
INSERT INTO participants.desk_reminder AS r (key, owner, due, body) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO UPDATE SET calls = r.calls + 1
RETURNING *
"""

FORGET = """
INSERT INTO participants.desk_reminder AS r (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE r.state WHEN 'live' THEN 'undone' ELSE r.state END, undos = r.undos + 1
"""
