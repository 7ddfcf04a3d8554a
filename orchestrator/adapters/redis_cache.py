"""Caches in Redis: each question is one script, so that it is answered in one round trip.

Circuits, rates and budgets stay where they were. All keys of one cache carry the same hash tag.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from orchestrator.domain.events import Json
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate, look_again
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import Clock, Held, Hit, SharedState

_PATIENCE = 5.0
_POOL_SIZE = 8

# KEYS: output, turn. ARGV: holder, patience.
_LOOK_UP = """
local output = redis.call('GET', KEYS[1])
if output then return {'hit', output} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'turn', ''} end
if redis.call('GET', KEYS[2]) == ARGV[1] then
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
    return {'turn', ''}
end
return {'held', redis.call('PTTL', KEYS[2])}
"""

# KEYS: output, turn, all outputs by age. ARGV: holder, output, ttl, how many, what all begin with.
_KEEP = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], time[1] * 1000000 + time[2], KEYS[1])
redis.call('PEXPIRE', KEYS[3], math.max(redis.call('PTTL', KEYS[3]), tonumber(ARGV[3])))
local over = redis.call('ZRANGE', KEYS[3], 0, -(math.max(tonumber(ARGV[4]), 1) + 1))
for _, output in ipairs(over) do
    redis.call('DEL', output)
    redis.call('ZREM', KEYS[3], output)
end
"""

# KEYS: turn. ARGV: holder.
_LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisCache:
    """orchestrator.ports.SharedState with its caches in Redis. A `ttl` is that of who kept it."""

    def __init__(
        self, redis: Redis, shared: SharedState, clock: Clock, namespace: str = "default"
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._namespace = namespace
        self._look_up = redis.register_script(_LOOK_UP)
        self._keep = redis.register_script(_KEEP)
        self._let_go = redis.register_script(_LET_GO)

    # ------------------------------------------------------------------ caches

    async def look_up(
        self, cache: CacheRule, key: str, holder: str, patience: timedelta
    ) -> Hit | Held | None:
        output, turn, _ = self._keys(cache, key)
        said, value = await _run(self._look_up, [output, turn], [holder, _milliseconds(patience)])
        if said == "hit":
            return Hit(Json(value))
        if said == "turn":
            return None
        now = self._clock.now()
        over = now + timedelta(milliseconds=max(int(value), 1))
        return Held(look_again(over - patience, now, over))

    async def keep(self, cache: CacheRule, key: str, holder: str, output: Json) -> None:
        """As the port says; who has lost its turn stores nothing."""
        args = [holder, output, _milliseconds(cache.ttl), cache.max_size]
        await _run(self._keep, list(self._keys(cache, key)), args)

    async def let_go(self, cache: CacheRule, key: str, holder: str) -> None:
        _, turn, _ = self._keys(cache, key)
        await _run(self._let_go, [turn], [holder])

    def _keys(self, cache: CacheRule, key: str) -> tuple[str, str, str]:
        tag = f"saga:{{{self._namespace}:{cache.name}}}"
        named = f"{self._namespace}\0{cache.name}\0{key}"
        digest = hashlib.sha256(named.encode()).hexdigest()
        return f"{tag}:output:{digest}", f"{tag}:turn:{digest}", f"{tag}:outputs"

    # ------------------------------------------------------------------ the rest

    async def admit(self, circuit: Circuit) -> Held | None:
        return await self._shared.admit(circuit)

    async def report(self, circuit: Circuit, *, succeeded: bool) -> None:
        await self._shared.report(circuit, succeeded=succeeded)

    async def reserve(self, rate: Rate, turn: datetime | None = None) -> Held | None:
        return await self._shared.reserve(rate, turn)

    async def spent(self, budget: BudgetRule) -> float:
        return await self._shared.spent(budget)

    async def spend(self, budget: BudgetRule, amount: float, receipt: str) -> None:
        await self._shared.spend(budget, amount, receipt)


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client of the server at *url*, which is spoken to when it is first needed.

    Raises InvalidInputError for what is no address of a Redis.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_POOL_SIZE,
            timeout=_PATIENCE,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            decode_responses=True,
        )
    except ValueError as error:
        # Not a word of what was found there: a password may be in it.
        raise InvalidInputError(
            "SAGA_REDIS_URL must look like redis://user:password@host:6379/0"
        ) from error
    async with Redis.from_pool(pool) as redis:
        yield redis


@asynccontextmanager
async def open_redis_cache(
    url: str, shared: SharedState, clock: Clock, namespace: str = "default"
) -> AsyncIterator[RedisCache]:
    """Shared state with its caches at *url*; all the rest is *shared*, and the time *clock*'s."""
    async with open_redis(url) as redis:
        yield RedisCache(redis, shared, clock, namespace)


async def check(url: str) -> str:
    """What answers at *url*. Raises UnavailableError when nothing does."""
    async with open_redis(url) as redis:
        try:
            told = await redis.info("server")
        except (RedisError, OSError) as error:
            raise _unavailable(error, urlsplit(url).netloc.rpartition("@")[2]) from error
    return f"Redis {told.get('redis_version', 'of unknown version')}"


async def _run(script: Any, keys: list[str], args: list[Any]) -> Any:
    try:
        return await script(keys=keys, args=args)
    except (RedisError, OSError) as error:
        raise _unavailable(error, "Redis") from error


def _unavailable(error: Exception, place: str) -> UnavailableError:
    said = str(error) or type(error).__name__
    return UnavailableError(f"cannot use the cache at {place}: {said}; check SAGA_REDIS_URL")


def _milliseconds(duration: timedelta) -> int:
    """At least one: Redis knows no shorter life."""
    return max(duration // timedelta(milliseconds=1), 1)
