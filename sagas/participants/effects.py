"""Apply once, undo once: the rules that all participants share.

An effect is a row under the caller's key. It is `live`, or `undone`, or `barred`: undone before it arrived.
Every call is one statement and therefore one transaction; it locks the row of its key first, then at most one
row of each other table, always in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from sagas.participants.refusals import BY_NAME, AlreadyUndone, KeyReused, Refused

LIVE = "live"


@dataclass(frozen=True)
class Effect:
    """What the participants know about one key."""

    kind: str
    key: str
    reference: str | None
    state: str
    calls: int
    undos: int


async def apply(
    pool: asyncpg.Pool, statement: str, key: str, *, extra: Sequence[object] = (), **facts: object
) -> int:
    """As `applied`; the number of the effect is its answer."""
    row = await applied(pool, statement, key, extra=extra, **facts)
    return int(row["number"])


async def applied(
    pool: asyncpg.Pool, statement: str, key: str, *, extra: Sequence[object] = (), **facts: object
) -> asyncpg.Record:
    """Run *statement* with the key, the facts and the extra arguments; the row of the effect.

    The facts are columns too: a call under a known key must tell the same ones.
    """
    try:
        row = await _run(pool, statement, key, *facts.values(), *extra)
    except asyncpg.RaiseError as error:
        raise refusal(error) from error
    if row["state"] != LIVE:
        raise AlreadyUndone(f"{key} was taken back and cannot be applied any more")
    if other := [name for name, value in facts.items() if row[name] != value]:
        told = ", ".join(f"{name} was {row[name]!r}, now {facts[name]!r}" for name in other)
        raise KeyReused(f"{key} was used with other arguments: {told}")
    return row


async def _run(pool: asyncpg.Pool, statement: str, *arguments: object) -> asyncpg.Record:
    try:
        row = await pool.fetchrow(statement, *arguments)
    except asyncpg.UniqueViolationError:
        # ON CONFLICT guards the key alone: a twin of this call that commits in between is met at another
        # unique index. A second look finds its key; if not, the violation is real.
        row = await pool.fetchrow(statement, *arguments)
    if row is None:
        raise RuntimeError("an effect always returns its row")
    return row


async def undo(pool: asyncpg.Pool, statement: str, key: str) -> None:
    """Take back what stands under *key*, or bar the key if nothing came yet; again changes nothing."""
    await pool.execute(statement, key)


async def settle(pool: asyncpg.Pool, statement: str, key: str) -> asyncpg.Record | None:
    """The effect that stands under *key*; None if there is none, and then there will be none.

    The statement bars a key that it does not find, so that a call which is still under way comes
    too late: only so is "it did not happen" an answer that stays true.
    """
    row = await pool.fetchrow(statement, key)
    return row if row is not None and row["state"] == LIVE else None


async def effect(pool: asyncpg.Pool, key: str) -> Effect | None:
    """How often the call under *key* came, and how it stands."""
    row = await pool.fetchrow(
        "SELECT kind, key, reference, state, calls, undos FROM participants.effect WHERE key = $1",
        key,
    )
    return None if row is None else Effect(**dict(row))


def refusal(error: asyncpg.RaiseError) -> Refused:
    """The exception that the SQL named in `participants.refuse(name, detail)`."""
    name, detail = str(error.args[0]), error.detail
    return BY_NAME[name](str(detail))
