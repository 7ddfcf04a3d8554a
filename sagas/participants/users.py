"""The members: created, activated, deactivated, deleted."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo
from sagas.participants.refusals import EmailTaken


class Users:
    """Who has signed up. One e-mail address is one user."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def create(self, email: str, name: str, *, key: str) -> str:
        """Make a user that is not active yet; `EmailTaken` if the address has one."""
        try:
            number = await apply(self._pool, CREATE, key, email=email, name=name)
        except asyncpg.UniqueViolationError as error:
            raise EmailTaken(f"{email} has signed up before") from error
        return f"user-{number}"

    async def delete(self, key: str) -> None:
        """Mark the user that was created under *key* as deleted; its e-mail address is free again."""
        await undo(self._pool, DELETE, key)

    async def activate(self, user_id: str, *, key: str) -> str:
        """Let the user in."""
        number = await apply(
            self._pool, ACTIVATE, key, user_number=int(user_id.removeprefix("user-"))
        )
        return f"activation-{number}"

    async def deactivate(self, key: str) -> None:
        """Shut out the user that was activated under *key*."""
        await undo(self._pool, DEACTIVATE, key)


CREATE = """
INSERT INTO participants.users_user AS u (key, email, name) VALUES ($1, $2, $3)
ON CONFLICT (key) DO UPDATE SET calls = u.calls + 1
RETURNING *
"""

DELETE = """
INSERT INTO participants.users_user AS u (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
ON CONFLICT (key) DO UPDATE
SET state = CASE u.state WHEN 'live' THEN 'undone' ELSE u.state END, undos = u.undos + 1, active = false
"""

ACTIVATE = """
WITH activation AS (
    INSERT INTO participants.users_activation AS a (key, user_number) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET calls = a.calls + 1
    RETURNING *
), let_in AS (
    UPDATE participants.users_user u SET active = true
    FROM activation a
    WHERE u.number = a.user_number AND u.state = 'live' AND a.state = 'live' AND a.calls = 1
    RETURNING u.email
)
SELECT a.*, CASE
    WHEN a.state <> 'live' OR a.calls > 1 THEN NULL
    WHEN i.email IS NULL THEN participants.refuse('UnknownUser', format('there is no user %s', a.user_number))
    WHEN EXISTS (SELECT FROM participants.users_banned b WHERE b.email = lower(i.email))
        THEN participants.refuse('UserBanned', format('%s may not have an account', i.email))
    END
FROM activation a LEFT JOIN let_in i ON true
"""

DEACTIVATE = """
WITH activation AS (
    INSERT INTO participants.users_activation AS a (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
    ON CONFLICT (key) DO UPDATE
    SET state = CASE a.state WHEN 'live' THEN 'undone' ELSE a.state END, undos = a.undos + 1
    RETURNING *
)
UPDATE participants.users_user u SET active = false
FROM activation a
WHERE u.number = a.user_number AND u.state = 'live' AND a.state = 'undone' AND a.undos = 1
"""
