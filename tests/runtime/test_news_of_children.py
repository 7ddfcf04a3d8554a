"""A parent hears of the end of its child, also when the news was lost on its way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from orchestrator import Saga, Signal, Status, WorkerSettings, WorkflowContext, step
from orchestrator.bootstrap import work
from orchestrator.runtime import engine
from tests.crash.field_hospital import QUICK, until
from tests.faults.wire_proxy import WireProxy
from tests.runtime.stage import Stage

go = Signal("go", int)
QUIET = 4.5
_WAITING_CHILD = "SELECT id::text FROM saga WHERE name = 'child' AND status = 'waiting'"
_OWNED = "SELECT owner FROM saga WHERE id = $1"
_LEFT = """
SELECT due_at <= clock_timestamp() AS due, owner, inbox_seen < inbox_seq AS unread
FROM saga WHERE id = $1
"""
_DUE = "UPDATE saga SET due_at = clock_timestamp() WHERE id = $1"
SOON = 2.0


@step
async def finish(n: int, ctx: WorkflowContext) -> int:
    return n * 10


child = Saga("child", 1, go.wait())
parent = Saga("parent", 1, child.child() >> finish)


async def test_news_that_was_lost_on_its_way_is_sent_again_once_the_end_is_recorded(
    on_stage: Stage,
) -> None:
    settings: dict[str, Any] = {**QUICK, "park_after": 0.1}
    async with (
        WireProxy(on_stage.dsn) as wire,
        work(
            [parent], {}, database_url=wire.dsn, settings=WorkerSettings(**settings)
        ) as orchestrator,
    ):
        handle = await orchestrator.start(parent, 1)
        await asyncio.sleep(QUIET)
        # Without news the parent looks again after as long as nothing has happened.
        lost = wire.cut_before_commit("INSERT INTO inbox")
        child_id = await on_stage.side.fetchval("SELECT id::text FROM saga WHERE name = 'child'")
        await on_stage.orchestrator.signal(child_id, go, 7)
        assert await on_stage.orchestrator.wait(child_id, within=10) is Status.COMPLETED
        began = time.monotonic()
        assert await handle.result(within=10) == 70
    assert lost.fired == 1
    assert time.monotonic() - began < SOON


async def test_the_end_of_a_child_that_nobody_can_go_on_with_is_told_again_too(
    on_stage: Stage,
) -> None:
    changed = Saga("child", 1, finish.without_undo("a test") >> go.wait())
    as_changed = Saga("parent", 1, changed.child() >> finish)
    settings: dict[str, Any] = {**QUICK, "park_after": 0.1}
    async with on_stage.worker(parent, park_after=0.1):
        handle = await on_stage.start(parent, 1)
        async with asyncio.timeout(10):
            while not (child_id := await on_stage.side.fetchval(_WAITING_CHILD)):
                await asyncio.sleep(0.05)
    await on_stage.side.execute(_DUE, child_id)
    async with (
        WireProxy(on_stage.dsn) as wire,
        work([as_changed], {}, database_url=wire.dsn, settings=WorkerSettings(**settings)),
    ):
        await on_stage.stands(await on_stage.orchestrator.handle(child_id), Status.STUCK)
        await asyncio.sleep(QUIET)
        lost = wire.cut_before_commit("INSERT INTO inbox")
        await on_stage.orchestrator.terminate(child_id, reason="nobody needs it")
        await on_stage.orchestrator.wait(child_id, within=10)
        began = time.monotonic()
        assert await on_stage.orchestrator.wait(handle.saga_id, within=10) is Status.COMPENSATED
    assert lost.fired == 1
    assert time.monotonic() - began < SOON


async def test_an_end_that_was_recorded_without_an_answer_is_told_again(on_stage: Stage) -> None:
    settings: dict[str, Any] = {**QUICK, "park_after": 0.1}
    async with (
        WireProxy(on_stage.dsn) as wire,
        work([parent], {}, database_url=wire.dsn, settings=WorkerSettings(**settings)),
    ):
        handle = await on_stage.start(parent, 1)
        await asyncio.sleep(QUIET)
        child_id = await on_stage.side.fetchval(_WAITING_CHILD)
        lost = wire.cut_before_commit("INSERT INTO inbox")
        unknown = wire.cut_after_commit("INSERT INTO event")
        await on_stage.orchestrator.signal(child_id, go, 7)
        assert await on_stage.orchestrator.wait(child_id, within=10) is Status.COMPLETED
        began = time.monotonic()
        assert await on_stage.orchestrator.wait(handle.saga_id, within=10) is Status.COMPLETED
    assert (lost.fired, unknown.fired) == (1, 1)
    assert time.monotonic() - began < SOON


async def test_news_of_an_end_that_is_not_there_yet_is_left_to_the_next_owner(
    on_stage: Stage,
) -> None:
    async with on_stage.worker(parent, park_after=0.1):
        handle = await on_stage.start(parent, 1)
        async with asyncio.timeout(10):
            while not (child_id := await on_stage.side.fetchval(_WAITING_CHILD)):
                await asyncio.sleep(0.05)
        # It says that it is about to end, and its append takes its time.
        news = {"child": child_id, "status": "completed"}
        sent = {"actor": f"saga {child_id}", "dedupe_key": "child"}
        await on_stage.app.store.inbox.send(handle.saga_id, "child", news, **sent)

        async def at_work() -> bool:
            return bool(await on_stage.side.fetchval(_OWNED, handle.saga_id))

        await until(at_work, "a parent that looks at its child")
    row = await on_stage.side.fetchrow(_LEFT, handle.saga_id)
    assert row is not None
    assert tuple(row) == (True, None, True)


async def test_a_parent_that_nothing_happened_to_for_long_is_looked_at_seldom(
    on_stage: Stage,
) -> None:
    async with on_stage.worker(parent, park_after=0.1) as orchestrator:
        await orchestrator.start(parent, 1)

        async def waits() -> bool:
            due = await on_stage.side.fetchval(
                "SELECT due_at - clock_timestamp() FROM saga "
                "WHERE name = 'parent' AND owner IS NULL AND head > 0"
            )
            return due is not None and due.total_seconds() > 1.5

        await until(waits, "a look that is as far away as nothing has happened")
    # A hundred thousand that wait are looked at five times a second.
    assert 100_000 / engine._LATEST < 5
