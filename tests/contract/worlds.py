"""Places where shared state lives, each with two processes on it and a way to let time pass."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.adapters.clock import ManualClock
from orchestrator.adapters.memory.shared_state import MemorySharedState
from orchestrator.adapters.postgres.pool import Database
from orchestrator.adapters.postgres.shared_state import PostgresSharedState
from orchestrator.adapters.redis_cache import open_redis, open_redis_cache
from orchestrator.ports import SharedState
from tests.adapters.postgres.beside import open_database

AGEING = (
    "UPDATE circuit SET opened_at = opened_at - $1::interval, "
    "probes = ARRAY(SELECT p.at - $1::interval FROM unnest(probes) AS p (at) ORDER BY p.at)",
    "UPDATE rate SET full_at = full_at - $1::interval, line_at = line_at - $1::interval",
    "UPDATE cache_entry SET kept_at = kept_at - $1::interval, "
    "held_since = held_since - $1::interval, held_until = held_until - $1::interval",
    "UPDATE budget SET since = since - $1::interval WHERE since > 'epoch'",
)
"""A row that is older by so much is what it would be so much later, and nobody has to wait."""


AGE = """
local left = redis.call('PTTL', KEYS[1]) - ARGV[1]
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) else redis.call('DEL', KEYS[1]) end
"""
"""As `AGEING`, for a key that has a time to live."""


@dataclass(frozen=True, slots=True)
class World:
    """The shared state as two processes have it, and the time that it goes by."""

    shared: SharedState
    other: SharedState
    now: Callable[[], Awaitable[datetime]]
    later: Callable[[timedelta], Awaitable[None]]

    async def at_once(
        self, count: int, ask: Callable[[SharedState, int], Awaitable[object]]
    ) -> list[object]:
        """The answers to *count* questions that both processes ask at the same time."""
        sides = (self.shared, self.other)
        return await asyncio.gather(*(ask(sides[n % 2], n) for n in range(count)))


def manual_clock() -> ManualClock:
    """A clock that stands still at noon."""
    return ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


def in_memory(clock: ManualClock) -> World:
    """The same object for both, as two stores on one database have it; *clock* is moved by hand."""
    shared = MemorySharedState(clock)

    async def now() -> datetime:
        return clock.now()

    async def later(by: timedelta) -> None:
        clock.advance(by)

    return World(shared, shared, now, later)


@asynccontextmanager
async def on_postgres(dsn: str) -> AsyncIterator[World]:
    """Two pools on one database; time passes by making the rows older."""
    async with open_database(dsn) as database, open_database(dsn) as another:

        async def now() -> datetime:
            found: datetime = (await database.fetch("SELECT clock_timestamp()"))[0][0]
            return found

        async def later(by: timedelta) -> None:
            await _age(database, by)

        yield World(PostgresSharedState(database), PostgresSharedState(another), now, later)


@asynccontextmanager
async def in_redis(url: str, clock: ManualClock) -> AsyncIterator[World]:
    """Two clients of one Redis over *clock*'s memory; time passes there, and keys' lives shorten."""
    rest, namespace = in_memory(clock), uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        caches = [
            await stack.enter_async_context(open_redis_cache(url, rest.shared, clock, namespace))
            for _ in range(2)
        ]
        redis = await stack.enter_async_context(open_redis(url))
        age = redis.register_script(AGE)

        async def later(by: timedelta) -> None:
            await rest.later(by)
            async for key in redis.scan_iter(match=f"*{namespace}*"):
                await age(keys=[key], args=[by // timedelta(milliseconds=1)])

        yield World(caches[0], caches[1], rest.now, later)


async def _age(database: Database, by: timedelta) -> None:
    for statement in AGEING:
        await database.fetch(statement, by)
