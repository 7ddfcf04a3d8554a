"""Waiting costs nothing: ten thousand that wait hold no task, no connection, no memory to speak of."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import asyncpg

from orchestrator import Orchestrator, Order, Saga, Signal, Status, WorkflowContext, sleep, step
from orchestrator.domain.state import SagaState
from orchestrator.runtime.attempts import Attempt
from orchestrator.runtime.running import Running
from tests.crash.field_hospital import until
from tests.runtime.stage import Stage

COUNT = 10_000
FEW = 100
BATCH = 500
TRACED = 4_000
"""Of how many the memory is looked at: tracing makes everything three times as slow."""

BYTES_EACH = 100
"""What is allowed for each, which is about what its id takes. One in memory takes thousands."""

LOOKS = 3
"""Connections that a worker may have in hand at any moment to look for work, whatever waits."""

go = Signal("go", int)


@step
async def prepare(n: int, ctx: WorkflowContext) -> int:
    return n + 1


@step
async def finish(n: int, ctx: WorkflowContext) -> int:
    return n * 10


sleeper = Saga("sleeper", 1, prepare >> sleep(timedelta(days=3)) >> finish)
listener = Saga("listener", 1, prepare >> go.wait() >> finish)
hasty = Saga("hasty", 1, prepare >> go.wait(within=timedelta(days=2)) >> finish)
late = Saga("late", 1, prepare >> go.wait() >> finish, deadline=timedelta(days=5))
child = Saga("child", 1, prepare >> go.wait())
parent = Saga("parent", 1, child.child() >> finish)

SHARES: Mapping[Saga[int, int], int] = {sleeper: 4, listener: 4, hasty: 5, late: 5, parent: 20}
"""One in so many. A parent brings its child, which waits as well."""


async def test_ten_thousand_parked_sagas_hold_no_task_no_connection_and_no_memory(
    on_stage: Stage,
) -> None:
    with _set_aside():
        await _ten_thousand(on_stage)


async def _ten_thousand(on_stage: Stage) -> None:
    async with on_stage.worker(*SHARES, slots=BATCH, park_after=0.1) as orchestrator:
        await _park(on_stage, orchestrator, FEW)
        tasks, _ = await _at_rest()
        await _park(on_stage, orchestrator, COUNT - TRACED - FEW)
        with _traced():
            _, bytes_before = await _at_rest()
            await _park(on_stage, orchestrator, TRACED)
            more_tasks, bytes_after = await _at_rest()
        assert abs(more_tasks - tasks) < FEW / 10, "more tasks than it takes to look for work"
        held = bytes_after - bytes_before
        assert held / TRACED < BYTES_EACH, f"{held:,} bytes are held"

        at_rest = await _rows(on_stage)
        told = [await _one(on_stage, saga) for saga in (listener, hasty, late, child)]
        for number, saga_id in enumerate(told):
            await orchestrator.signal(saga_id, go, number)
        moved = {*told, await _parent_of(on_stage, told[-1])}
        ends = [await orchestrator.wait(saga_id, within=20) for saga_id in moved]
        assert set(ends) == {Status.COMPLETED}
        after = await _rows(on_stage)
        assert {saga_id for saga_id, row in after.items() if row != at_rest[saga_id]} == moved
        await until(_nothing_held, "nothing left of those that ended")


async def _park(on_stage: Stage, orchestrator: Orchestrator, count: int) -> None:
    """Start so many (a parent's child is one of them), and wait until all of them only wait."""
    before = await on_stage.side.fetchval("SELECT count(*) FROM saga")
    for saga, share in SHARES.items():
        for first in range(0, count // share, BATCH):
            numbers = range(first, min(first + BATCH, count // share))
            await orchestrator.start_many(saga, [Order(number) for number in numbers])

    async def all_wait() -> bool:
        rows = await on_stage.side.fetch(
            "SELECT status, owner IS NULL AS free, count(*) AS count FROM saga GROUP BY 1, 2"
        )
        return [tuple(row) for row in rows] == [(Status.WAITING, True, before + count)]

    await until(all_wait, f"{before + count:,} that wait, without an owner", within=60)


async def _nothing_held() -> bool:
    """Whether nothing of any saga is in memory, and its connections are back in their pool."""
    held: Counter[type[Any]] = Counter()
    used = 0
    for thing in gc.get_objects():
        if isinstance(thing, Running | SagaState | Attempt):
            held[type(thing)] += 1
        elif isinstance(thing, asyncpg.Pool):
            used += thing.get_size() - thing.get_idle_size()
    return not held and used <= LOOKS


async def _at_rest() -> tuple[int, int]:
    """How many tasks there are, and how many bytes, once nothing of any saga is held."""
    await until(_nothing_held, "nothing held of any saga", within=60)
    gc.collect()
    return len(asyncio.all_tasks()), tracemalloc.get_traced_memory()[0]


@contextmanager
def _set_aside() -> Iterator[None]:
    """Leave out of the search what was there before: all that pytest has imported."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _traced() -> Iterator[None]:
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()


async def _rows(on_stage: Stage) -> dict[str, tuple[int, int]]:
    """How far each has come. (A parent looks at its child from time to time, and claims for it.)"""
    rows = await on_stage.side.fetch(
        "SELECT id::text, head, CASE WHEN name = 'parent' THEN 0 ELSE epoch END AS epoch FROM saga"
    )
    return {row["id"]: (row["head"], row["epoch"]) for row in rows}


async def _one(on_stage: Stage, saga: Saga[Any, Any]) -> str:
    found = await on_stage.side.fetchval(
        "SELECT id::text FROM saga WHERE name = $1 ORDER BY id OFFSET 77 LIMIT 1", saga.name
    )
    return str(found)


async def _parent_of(on_stage: Stage, saga_id: str) -> str:
    found = await on_stage.side.fetchval("SELECT parent::text FROM saga WHERE id = $1", saga_id)
    return str(found)
