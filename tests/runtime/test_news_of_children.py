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
