"""Whoever waits may stop waiting at any point: nothing leaks, is lost, doubled, or waited for."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest

from orchestrator import Filter, Handle, Orchestrator, Order, Saga, Worker
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import UnknownOutcomeError
from tests.contract.given import eventually
from tests.faults.plant import (
    BOOK,
    QUICK,
    Participant,
    Plant,
    act,
    check_effects,
    check_log,
    go,
    plant,
    tour,
)
from tests.faults.stepping import Calm, Cut
from tests.faults.test_commit_unknown import beside
from tests.faults.writes import WRITES, StepInTransaction, Write

LATE = (0.0, 0.0004, 0.002) if os.environ.get("CHAOS_MINUTES") else (0.0, 0.001)
"""Seconds into a wait: at once, while the server works, when it may be done."""


@pytest.mark.parametrize("kinds", WRITES.values(), ids=WRITES.keys())
async def test_a_write_that_nobody_waits_for_any_more_is_made_once_or_not_at_all(
    dsn: str, kinds: tuple[type[Write], ...]
) -> None:
    calm_settings = PostgresSettings(presence=False)
    async with beside(dsn, "default") as scene, open_store(dsn, settings=calm_settings) as store:
        for kind in kinds:
            struck = 0
            await kind(scene).warm(store)
            for late in LATE:
                for at in itertools.count(1):
                    write = kind(type(scene)(scene.beside, scene.side))
                    await write.prepare()
                    await write.first(store)
                    calm = Calm(store, scene.side)
                    cut = Cut(at, late)
                    end = await cut.run(write.act(store))
                    _check_end(end, cut, may_not_know=issubclass(kind, StepInTransaction))
                    await _settled(calm, write, kind)
                    assert await write.scene.look(write) in (0, 1)
                    await write.again(store)
                    assert await write.scene.look(write) == 1, f"{kind.__name__} at {at}"
                    await _leave(write)
                    if not cut.struck:
                        break
                    struck += 1
            assert struck, f"{kind.__name__} was never cancelled"


async def _settled(calm: Calm, write: Write, kind: type[Write]) -> None:
    try:
        await calm.returns()
    except AssertionError as error:
        error.add_note(kind.__name__)
        raise


async def _leave(write: Write) -> None:
    """Nobody is left behind to whom the next would be a neighbour."""
    if write.scene.owner:
        await write.scene.beside.fleet.leave(write.scene.owner)
    await write.scene.side.execute("UPDATE saga SET due_at = NULL WHERE owner IS NULL")


def _check_end(end: BaseException | None, cut: Cut, *, may_not_know: bool = False) -> None:
    """Whoever was cancelled is told so; whoever was not gets the answer."""
    if not cut.struck:
        assert end is None, end
    elif isinstance(end, UnknownOutcomeError):
        assert may_not_know
    else:
        assert isinstance(end, asyncio.CancelledError), f"a swallowed cancellation: {end!r}"


# ---------------------------------------------------------------------------- the public ones

Public = Callable[[Orchestrator, Handle[int], Handle[int], str], Awaitable[Any]]


async def _history(handle: Handle[int]) -> list[Any]:
    return [entry async for entry in handle.history()]


plain = Saga("plain", 1, act("one") >> go.wait() >> act("two"))

PUBLIC: dict[str, Public] = {
    "start": lambda o, done, live, key: o.start(plain, 1, key=key),
    "start_many": lambda o, done, live, key: o.start_many(plain, [Order(1, key=f"{key}-m")]),
    "get": lambda o, done, live, key: o.get(live.saga_id),
    "get by prefix": lambda o, done, live, key: o.get(live.saga_id[:30]),
    "search": lambda o, done, live, key: o.search(),
    "handle": lambda o, done, live, key: o.handle(live.saga_id),
    "status": lambda o, done, live, key: live.status(),
    "state": lambda o, done, live, key: done.state(),
    "history": lambda o, done, live, key: _history(done),
    "result": lambda o, done, live, key: done.result(within=10),
    "wait": lambda o, done, live, key: o.wait(done.saga_id),
    "signal": lambda o, done, live, key: live.signal(go, 1, dedupe_key=key),
    "cancel": lambda o, done, live, key: o.cancel(live.saga_id, dedupe_key=f"{key}-c"),
    "terminate": lambda o, done, live, key: o.terminate(live.saga_id, "no", dedupe_key=f"{key}-t"),
    "verify": lambda o, done, live, key: o.verify(done.saga_id),
    "verify_all": lambda o, done, live, key: o.verify_all(),
    "replay": lambda o, done, live, key: o.replay(done.saga_id),
}


async def test_every_public_coroutine_can_be_cancelled_wherever_it_waits(dsn: str) -> None:
    async with _acquainted(dsn) as (at, side):
        service = at.orchestrator
        with_worker = await service.start(plain, 1)
        await with_worker.signal(go, 5)
        async with at.working():
            assert await with_worker.result(within=10) == 6
        live = await service.start(plain, 1)
        for (name, call), late in itertools.product(PUBLIC.items(), LATE):
            for n in itertools.count(1):
                calm = Calm(at.store, side)
                cut = Cut(n, late)
                key = f"{name}-{n}-{late}"
                _check_end(await cut.run(_awaited(call(service, with_worker, live, key))), cut)
                await calm.returns()
                await call(service, with_worker, live, key)
                if not cut.struck:
                    break
            assert n > 1 or late > 0, f"{name} was never cancelled"
        twice = await side.fetchval(
            "SELECT count(*) FROM (SELECT 1 FROM saga GROUP BY key HAVING count(*) > 1 "
            "AND key IS NOT NULL UNION ALL SELECT 1 FROM inbox GROUP BY saga_id, dedupe_key "
            "HAVING count(*) > 1) AS found"
        )
        assert twice == 0
        gaps = await side.fetchval(
            "SELECT count(*) FROM saga s WHERE inbox_seq <> "
            "(SELECT count(*) FROM inbox i WHERE i.saga_id = s.id)"
        )
        assert gaps == 0


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call


async def test_a_statement_that_was_prepared_and_cancelled_keeps_no_lock(dsn: str) -> None:
    async with _acquainted(dsn) as (at, side):
        locked = "SELECT count(*) FROM pg_locks WHERE relation = 'saga'::regclass"
        for n in range(20):
            wanted = Filter(name=f"nobody-{n}", limit=n + 1, tags={"t": "x"} if n % 2 else {})
            cut = Cut(1, 0.0)
            await cut.run(at.store.reads.search(wanted))
            assert cut.struck
            await Calm(at.store, side).returns()
            assert await side.fetchval(locked) == 0


async def test_one_that_waits_for_an_end_can_stop_and_the_others_wait_on(dsn: str) -> None:
    async with _acquainted(dsn) as (at, side):
        service = at.orchestrator
        handle = await service.start(plain, 1)
        other = asyncio.create_task(handle.result(within=20))
        for late in (0.0, 0.01, 0.05):
            cut = Cut(1, late)
            _check_end(await cut.run(handle.result()), cut)
            assert cut.struck
        assert not other.done()
        async with at.working():
            await handle.signal(go, 5)
            assert await other == 6
        await Calm(at.store, side).returns()


@pytest.mark.slow
async def test_a_worker_that_is_cancelled_at_any_moment_hands_over(dsn: str) -> None:
    async with _acquainted(dsn, tour()) as (at, side):
        await side.execute(BOOK)
        for n, late in enumerate((0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25)):
            at.participant.forget()
            calm = Calm(at.store, side)
            handle = await at.orchestrator.start(at.sagas[0], 0)
            await handle.signal(go, 10 * n)
            working = asyncio.create_task(_work(at))
            await asyncio.sleep(late)
            working.cancel()
            await asyncio.wait({working}, timeout=10)
            assert working.cancelled(), "a swallowed cancellation"
            await calm.returns()
            assert await side.fetchval("SELECT count(owner) FROM saga") == 0
            # One that was cancelled while it joined has nothing, and is found gone.
            await eventually(partial(_nobody_left, at, side))
            async with at.working():
                assert await handle.result(within=15) == 10 * n + 5
            await check_log(at.orchestrator, handle)
            check_effects(at.participant)
            assert at.participant.repeats <= 2


async def _nobody_left(at: Plant, side: asyncpg.Connection) -> bool:
    await at.store.fleet.retire_dead()
    return not await side.fetchval("SELECT count(*) FROM worker WHERE retired_at IS NULL")


async def _work(at: Plant) -> None:
    """A worker without anybody who stops it."""
    worker = Worker(
        at.store, JsonCodec(), SilentTelemetry(), at.sagas, {Participant: at.participant}, QUICK
    )
    await worker.run(asyncio.Event())


@asynccontextmanager
async def _acquainted(
    dsn: str, *sagas: Saga[Any, Any]
) -> AsyncIterator[tuple[Plant, asyncpg.Connection]]:
    """A process that knows the database, so that what it opens once is open."""
    side = await asyncpg.connect(dsn)
    try:
        async with plant(dsn, *(sagas or (plain,)), patience=5.0) as at:
            await at.orchestrator.search()
            yield at, side
    finally:
        side.terminate()
