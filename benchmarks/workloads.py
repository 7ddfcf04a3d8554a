"""W1 throughput, W2 latency, W3 compensation: one worker in this process, default durability."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from orchestrator import Orchestrator, Order, Saga, Status
from orchestrator.bootstrap import work
from orchestrator.runtime.worker_settings import WorkerSettings

BATCH = 500


@asynccontextmanager
async def working(
    dsn: str, sagas: Sequence[Saga[Any, Any]], slots: int
) -> AsyncIterator[Orchestrator]:
    """A worker in this process, and its orchestrator."""
    async with work(sagas, database_url=dsn, settings=WorkerSettings(slots=slots)) as orchestrator:
        yield orchestrator


async def throughput(dsn: str, saga: Saga[int, int], count: int, ends: Status, slots: int) -> float:
    """Sagas a second, from the first start to the last end; starts and steps share one process."""
    async with working(dsn, [saga], slots) as orchestrator:
        began = time.perf_counter()
        before = (await orchestrator.store.reads.counts()).get((saga.name, ends), 0)
        for first in range(0, count, BATCH):
            orders = [Order(n) for n in range(first, min(first + BATCH, count))]
            await orchestrator.start_many(saga, orders)
        while True:
            done = (await orchestrator.store.reads.counts()).get((saga.name, ends), 0) - before
            if done >= count:
                return count / (time.perf_counter() - began)
            await asyncio.sleep(0.05)


async def latency(dsn: str, saga: Saga[int, int], count: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds from start to result, one saga at a time."""
    async with working(dsn, [saga], 100) as orchestrator:
        times: list[float] = []
        for n in range(count + 20):
            began = time.perf_counter()
            handle = await orchestrator.start(saga, n)
            await handle.result(within=30)
            times.append((time.perf_counter() - began) * 1000)
        cuts = statistics.quantiles(times[20:], n=100)
        return cuts[49], cuts[98]
