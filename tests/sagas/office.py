"""Ready sagas at work: a real worker on a real database, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from orchestrator import (
    Handle,
    Orchestrator,
    Saga,
    SagaFailedError,
    Status,
    WorkerSettings,
    connect,
    work,
)
from sagas.resources import resources
from tests.faces.cli.prompt import Running, worker

QUICK = WorkerSettings(
    ttl=6.0,
    renew_every=0.2,
    command_timeout=1.0,
    margin=1.0,
    watch_every=0.2,
    poll_every=0.05,
    park_after=0.1,
)
PLAIN: dict[type, object] = {}


@asynccontextmanager
async def office(
    dsn: str, *sagas: Saga[Any, Any], instead: Mapping[type, object] = PLAIN
) -> AsyncIterator[Orchestrator]:
    """A worker for *sagas* with the participants of the town, but for those given *instead*."""
    async with (
        resources(dsn, connections=4) as participants,
        work(sagas, {**participants, **instead}, database_url=dsn, settings=QUICK) as orchestrator,
    ):
        yield orchestrator


async def ended(handle: Handle[Any], within: float = 20) -> tuple[Status, str]:
    """How an instance ended, and why."""
    try:
        await handle.result(within)
    except SagaFailedError:
        return await handle.status(), await reason(handle)
    return await handle.status(), ""


async def reason(handle: Handle[Any]) -> str:
    """What turned it round or made it stuck, in the words of the history."""
    told = [getattr(entry.event, "reason", "") async for entry in handle.history()]
    return next((text for text in told if text), "")


async def until(looks: Callable[[], Awaitable[bool]], within: float = 20) -> None:
    """Look again and again."""
    async with asyncio.timeout(within):
        while not await looks():
            await asyncio.sleep(0.02)


async def seen(handle: Handle[Any], kind: str, times: int = 1, within: float = 20) -> None:
    """Wait until the history has *times* events of a kind."""

    async def found() -> bool:
        return [entry.type async for entry in handle.history()].count(kind) >= times

    await until(found, within)


@asynccontextmanager
async def started(dsn: str, saga: Saga[Any, Any], value: object) -> AsyncIterator[Handle[Any]]:
    """An instance that is begun by whatever worker there is."""
    async with connect([saga], database_url=dsn) as orchestrator:
        yield await orchestrator.start(saga, value)


@contextmanager
def process(dsn: str, module: str) -> Iterator[Running]:
    """A worker process for the sagas of *module*."""
    with worker(dsn, SAGA_SAGAS=module, SAGA_LEASE_TTL="30") as running:
        yield running


@asynccontextmanager
async def held(pool: asyncpg.Pool, rows: str) -> AsyncIterator[None]:
    """Hold the rows that a statement locks.

    What stands before them when its process is killed comes through afterwards: the effect happens, and
    nobody hears of it.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(rows)
        yield


async def stands(pool: asyncpg.Pool, statement: str) -> None:
    """Wait until a statement with these words in it stands before a row that is held."""

    async def found() -> bool:
        return bool(await pool.fetchval(WAITING, f"%{statement}%"))

    await until(found)


WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1
"""


async def kill(running: Running) -> None:
    """`kill -9`, and wait until it is dead."""
    assert await asyncio.to_thread(running.end, signal.SIGKILL) == -signal.SIGKILL
