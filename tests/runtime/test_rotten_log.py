"""Nothing is done on the word of a log that is not what was written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any

import pytest

from orchestrator import (
    Orchestrator,
    Saga,
    Signal,
    Status,
    Worker,
    WorkerSettings,
    WorkflowContext,
    step,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import EventRow, Store

QUICK = WorkerSettings(poll_every=0.02, watch_every=0.05, park_after=0.01)
Rows = list[EventRow]


@step
async def reserve(cents: int, ctx: WorkflowContext) -> int:
    return cents


@step
async def pay(cents: int, ctx: WorkflowContext) -> int:
    ctx.use(list).append(cents)
    return cents


SAGA = Saga("approved", version=1, body=reserve >> Signal("approve", int).wait() >> pay)


class Rotten:
    """A log that is read otherwise than it was written."""

    def __init__(self, inner: Any, rot: Callable[[Rows], Rows]) -> None:
        self._inner, self._rot = inner, rot

    async def read(self, saga_id: str, after: int = 0) -> Rows:
        return self._rot(await self._inner.read(saga_id, after))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def changed(rows: Rows) -> Rows:
    return [replace(row, data=row.data.replace("500", "900")) for row in rows]


def lost(rows: Rows) -> Rows:
    return [*rows[:1], *rows[2:]]


def cut_off(rows: Rows) -> Rows:
    return rows[:-1]


@asynccontextmanager
async def working(store: Store, paid: list[int]) -> AsyncIterator[Orchestrator]:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), [SAGA])
    worker = Worker(store, JsonCodec(), SilentTelemetry(), [SAGA], {list: paid}, QUICK)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield orchestrator
    finally:
        stop.set()
        await task
        await orchestrator.close()


async def waiting(store: Store, paid: list[int]) -> str:
    """An instance that waits for its approval, with nobody at work."""
    async with working(store, paid) as orchestrator:
        handle = await orchestrator.start(SAGA, 500)
        async with asyncio.timeout(10):
            while await handle.status() is not Status.WAITING:
                await asyncio.sleep(0.01)
    return handle.saga_id


def misread(store: Store, rot: Callable[[Rows], Rows]) -> Store:
    ports = {one.name: getattr(store, one.name) for one in fields(Store)}
    return Store(**{**ports, "events": Rotten(store.events, rot)})


@pytest.mark.parametrize(
    ("rot", "why"),
    [
        (changed, r"event \d \(\w+\) does not match its hash"),
        (lost, "event 2 is missing"),
        (cut_off, "the log ends at"),
    ],
)
async def test_a_log_that_is_not_what_was_written_is_not_gone_on_with(
    rot: Callable[[Rows], Rows], why: str
) -> None:
    paid: list[int] = []
    async with open_store() as store:
        saga_id = await waiting(store, paid)
        async with working(misread(store, rot), paid) as orchestrator:
            await orchestrator.signal(saga_id, "approve", 500)
            assert await orchestrator.wait(saga_id, within=10) is Status.STUCK
        last = (await store.events.read(saga_id))[-1]
        assert last.type == "SagaStuck"
        assert re.search(why, last.data)
        assert paid == []


async def test_when_the_log_is_restored_a_person_lets_it_go_on() -> None:
    paid: list[int] = []
    async with open_store() as store:
        saga_id = await waiting(store, paid)
        async with working(misread(store, changed), paid) as orchestrator:
            await orchestrator.signal(saga_id, "approve", 500)
            assert await orchestrator.wait(saga_id, within=10) is Status.STUCK
        async with working(store, paid) as orchestrator:
            await orchestrator.resume(saga_id, "restored from the copy", actor="ann")
            assert await orchestrator.wait(saga_id, within=10) is Status.COMPLETED
    assert paid == [500]
