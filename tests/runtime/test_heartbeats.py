"""Steps that say that they are alive, and what happens when they fall silent."""

from __future__ import annotations

import asyncio
import threading

import pytest

from orchestrator import Saga, Status, WorkflowContext, step
from orchestrator.domain.events import StepInDoubt
from orchestrator.errors import DefinitionError
from orchestrator.runtime import executor
from tests.runtime.stage import Stage

SILENCE = 1.0


@step(heartbeat=SILENCE)
async def copy(parts: int, ctx: WorkflowContext) -> int:
    for _ in range(parts):
        await asyncio.sleep(SILENCE / 5)
        ctx.heartbeat()
    return parts


@step(heartbeat=SILENCE)
def copy_in_thread(parts: int, ctx: WorkflowContext) -> int:
    for _ in range(parts):
        threading.Event().wait(SILENCE / 5)
        ctx.heartbeat()
    return parts


@step(heartbeat=SILENCE, timeout=60)
async def fall_silent(parts: int, ctx: WorkflowContext) -> int:
    done = await copy.action(parts, ctx)
    await asyncio.Event().wait()
    return int(done)


@step(heartbeat=SILENCE, timeout=2 * SILENCE)
async def never_end(parts: int, ctx: WorkflowContext) -> int:
    while True:
        await copy.action(parts, ctx)


def _saga(made: object) -> Saga[int, int]:
    return Saga(str(made).replace("_", "-"), 1, made.without_undo("a test"))  # type: ignore[attr-defined]  # any step


@pytest.mark.parametrize("made", [copy, copy_in_thread], ids=str)
async def test_a_step_that_beats_may_take_longer_than_one_may_be_silent(
    on_stage: Stage, made: object
) -> None:
    saga = _saga(made)
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 10)
        async with asyncio.timeout(30):
            assert await handle.result() == 10


@pytest.mark.parametrize(
    ("made", "why"),
    [(fall_silent, "no heartbeat for 1 s"), (never_end, "no answer within 2 s")],
    ids=str,
)
async def test_one_that_falls_silent_or_never_ends_is_in_doubt(
    on_stage: Stage, made: object, why: str
) -> None:
    saga = _saga(made)
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 3)
        async with asyncio.timeout(30):
            while (await handle.state()).status not in (Status.STUCK, Status.COMPENSATED):
                await asyncio.sleep(0.05)
    [doubt] = [entry.event async for entry in handle.history() if entry.type == "StepInDoubt"]
    assert isinstance(doubt, StepInDoubt)
    assert why in doubt.failure.message


async def test_one_that_waits_for_a_thread_has_not_begun_and_is_not_silent(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_THREADS", 1)
    saga = _saga(copy_in_thread)
    async with on_stage.worker(saga):
        handles = [await on_stage.start(saga, 8) for _ in range(3)]
        async with asyncio.timeout(30):
            assert [await handle.result() for handle in handles] == [8, 8, 8]


async def test_one_that_has_ended_is_not_silent_while_its_circuit_hears_of_it(
    on_stage: Stage,
) -> None:
    called, answered = asyncio.Event(), asyncio.Event()

    @step(heartbeat=SILENCE)
    async def ask(n: int, ctx: WorkflowContext) -> int:
        called.set()
        await answered.wait()
        return n

    saga = Saga("asking", 1, ask.without_undo("a test").circuit("bank"))
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 7)
        await called.wait()
        async with on_stage.side.transaction():
            await on_stage.side.execute("LOCK TABLE circuit IN EXCLUSIVE MODE")
            answered.set()
            async with asyncio.timeout(30):
                assert await handle.result() == 7


def test_nobody_hears_a_heartbeat_from_another_process() -> None:
    with pytest.raises(DefinitionError, match="nobody hears a heartbeat from another process"):
        step(executor="process", heartbeat=3)(_plain)


def _plain(parts: int, ctx: WorkflowContext) -> int:
    return parts
