"""The post room: mail that goes out, and mail that is marked as failed."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo


class Mail:
    """The outgoing mail."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def send(self, recipient: str, subject: str, body: str, *, key: str) -> str:
        """Put a message into the outgoing mail; `MailboxRefused` where the domain takes none."""
        number = await apply(self._pool, SEND, key, recipient=recipient, subject=subject, body=body)
        return f"mail-{number}"

    async def mark_failed(self, key: str) -> None:
        """Record that the message sent under *key* no longer holds."""
        await undo(self._pool, MARK_FAILED, key)


SEND = """
WITH message AS (
    INSERT INTO participants.mail_message AS m (key, recipient, subject, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO UPDATE SET calls = m.calls + 1
    RETURNING *
)
SELECT m.*, CASE
    WHEN m.state <> 'live' OR m.calls > 1 THEN NULL
    WHEN EXISTS (
        SELECT FROM participants.mail_refusing_domain d WHERE d.domain = lower(split_part(m.recipient, '@', 2))
    ) THEN participants.refuse('MailboxRefused', format('the domain of %s takes no mail', m.recipient))
    END
FROM message m
"""

MARK_FAILED = """
INSERT INTO participants.mail_message AS m (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE m.state WHEN 'live' THEN 'undone' ELSE m.state END, undos = m.undos + 1
"""
