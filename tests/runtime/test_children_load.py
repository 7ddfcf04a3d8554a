"""A parent of many children does not read its whole history again for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator import Orchestrator, Saga, Worker, WorkerSettings, WorkflowContext, each, step
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import EventRow, Store
from orchestrator.runtime import engine
from tests.crash.field_hospital import QUICK
from tests.runtime.stage import Stage

COUNT = 300


@step
async def pick(n: int, ctx: WorkflowContext) -> int:
    await asyncio.sleep(n % 7 / 100)
    return n + 1


@step
async def dawdle(n: int, ctx: WorkflowContext) -> int:
    await asyncio.sleep(0.05)
    return n + 1


parent = Saga("parent", 1, each(Saga("child", 1, pick).child()))
patient = Saga("patient", 1, each(Saga("slow-child", 1, dawdle).child(), concurrency=1))


@dataclass
class Counted:
    """The log, with a note of each history that was read from its beginning."""

    inner: Any
    loads: list[tuple[str, int]] = field(default_factory=list)

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        found: list[EventRow] = await self.inner.read(saga_id, after)
        if after == 0:
            self.loads.append((saga_id, len(found)))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@asynccontextmanager
async def _working(
    dsn: str, saga: Saga[Any, Any], loads: list[tuple[str, int]], **settings: Any
) -> AsyncIterator[Orchestrator]:
    """A worker whose reading is noted down."""
    codec, telemetry = JsonCodec(), SilentTelemetry()
    async with open_store(dsn) as opened:
        store: Store = replace(opened, events=Counted(opened.events, loads))
        options = WorkerSettings(**{**QUICK, **settings})
        worker = Worker(store, codec, telemetry, [saga], {}, options)
        service = Orchestrator(store, codec, telemetry, [saga])
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield service
        finally:
            stop.set()
            await task
            await service.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_parent_of_hundreds_of_children_is_loaded_a_few_times_only(
    on_stage: Stage, workers: int
) -> None:
    loads: list[tuple[str, int]] = []
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(_working(on_stage.dsn, parent, loads))
            for _ in range(workers)
        ]
        handle = await services[0].start(parent, list(range(COUNT)))
        assert await handle.result(within=60) == [n + 1 for n in range(COUNT)]
        head = (await services[0].get(handle.saga_id)).head
    own = _of(loads, handle.saga_id)
    assert len(own) <= 5
    assert sum(own) <= 3 * head
    # And the children's, one by one: none of them was begun by an earlier owner.
    assert sum(rows for _, rows in loads) - sum(own) <= COUNT


async def test_one_that_would_have_much_to_load_waits_for_longer_before_it_leaves_memory(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children that come one after the other, each after the time that a short history is kept."""
    park_after, long, count = 0.02, 4, 60
    monkeypatch.setattr(engine, "_LONG", long)
    loads: list[tuple[str, int]] = []
    async with _working(on_stage.dsn, patient, loads, park_after=park_after) as orchestrator:
        handle = await orchestrator.start(patient, list(range(count)))
        assert await handle.result(within=60) == [n + 1 for n in range(count)]
        head = (await orchestrator.get(handle.saga_id)).head
    own = _of(loads, handle.saga_id)
    assert 0 < len(own) < count / 2
    assert sum(own) <= 3 * head


def _of(loads: Sequence[tuple[str, int]], saga_id: str) -> list[int]:
    """How many events each load of one instance had to read."""
    return [rows for loaded, rows in loads if loaded == saga_id]
