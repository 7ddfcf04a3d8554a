"""Circuits, rates, caches and budgets by name: two workers, each with a saga that the other lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from orchestrator import Budget, Handle, Primitive, Saga, SagaFailedError, Status, WorkflowContext
from orchestrator import step as make_step
from tests.crash.field_hospital import until
from tests.runtime.scenes import Diary
from tests.runtime.stage import Stage, types


def called(name: str, *, fails: bool = False, cost: float = 0) -> Primitive[int, int]:
    """A step without an undo that fails, or costs something."""

    @make_step(name=name)
    async def action(n: int, ctx: WorkflowContext) -> int:
        ctx.use(Diary).write(name, ctx)
        if cost:
            ctx.cost(cost)
        if fails:
            raise RuntimeError("no answer")
        return n + 1

    return action.without_undo("it changes nothing")


@asynccontextmanager
async def two_workers(
    stage: Stage, left: Primitive[int, Any], right: Primitive[int, Any]
) -> AsyncIterator[tuple[Saga[int, Any], Saga[int, Any]]]:
    """Two workers on connections of their own: what one of them knows, it was not told."""
    here, there = Saga("left", 1, left), Saga("right", 1, right)
    async with stage.worker(here), stage.worker(there):
        yield here, there


async def reason_of(handle: Handle[int]) -> str:
    try:
        await handle.result(within=20)
    except SagaFailedError as error:
        return str(error)
    return "it did not fail"


async def test_a_circuit_that_one_worker_opened_holds_the_calls_of_the_other(
    on_stage: Stage,
) -> None:
    broken = called("broken", fails=True).circuit("bank", failures=3, reset=0.5)
    fine = called("fine").circuit("bank", failures=3, reset=0.5)
    async with two_workers(on_stage, broken, fine) as (left, right):
        for _ in range(3):
            assert "no answer" in await reason_of(await on_stage.start(left))
        held = await on_stage.start(right)
        await on_stage.has(held, "StepHeld")
        assert on_stage.diary.of(held.saga_id) == []
        # When it is half open a probe goes through, and closes it for both.
        assert await held.result(within=20) == 2
    found = await types(held)
    assert found["StepFailed"] == 0
    assert found["RetryScheduled"] == 0


async def test_a_rate_is_one_allowance_for_all_workers(on_stage: Stage) -> None:
    sides = [called("call").rate_limit("r", 4, per=3600) for _ in range(2)]
    async with two_workers(on_stage, *sides) as sagas:
        handles = [await on_stage.start(saga) for saga in sagas for _ in range(5)]
        for handle in handles:
            await on_stage.has(handle, "SagaStarted")
        ended = [asyncio.create_task(handle.result(within=60)) for handle in handles]

        async def all_told() -> bool:
            held = [(await types(handle))["StepHeld"] for handle in handles]
            return held.count(0) == 4 and sum(task.done() for task in ended) == 4

        await until(all_told, "four calls, and six that are held")
        for task in ended:
            task.cancel()
        await asyncio.wait(ended)
    assert len(on_stage.diary.lines()) == 4


async def test_a_cache_that_one_worker_filled_answers_the_other(on_stage: Stage) -> None:
    sides = [called("look_up").cache(60, name="answers") for _ in range(2)]
    async with two_workers(on_stage, *sides) as (left, right):
        assert await (await on_stage.start(left, 5)).result(within=20) == 6
        hit = await on_stage.start(right, 5)
        assert await hit.result(within=20) == 6
        assert await (await on_stage.start(right, 7)).result(within=20) == 8
    assert (await types(hit))["CacheHit"] == 1
    assert [line["what"] for line in on_stage.diary.lines()] == ["look_up", "look_up"]


async def test_what_many_instances_of_two_workers_want_to_know_is_computed_once(
    on_stage: Stage,
) -> None:
    sides = [called("look_up").cache(60, name="answers") for _ in range(2)]
    async with two_workers(on_stage, *sides) as sagas:
        handles = [await on_stage.start(saga, 5) for saga in sagas for _ in range(10)]
        assert {await handle.result(within=30) for handle in handles} == {6}
    assert len(on_stage.diary.lines()) == 1


async def test_a_budget_that_one_worker_spent_stops_the_other(on_stage: Stage) -> None:
    sides = [Budget(called("ask", cost=4), limit=10, per=3600, name="tokens") for _ in range(2)]
    async with two_workers(on_stage, *sides) as (left, right):
        for saga in (left, right, left):
            assert await (await on_stage.start(saga)).result(within=20) == 2
        stopped = await on_stage.start(right)
        assert "BudgetExceeded" in await reason_of(stopped)
        assert await stopped.status() is Status.COMPENSATED
    assert on_stage.diary.of(stopped.saga_id) == []
    assert len(on_stage.diary.lines()) == 3


async def test_a_step_is_not_in_doubt_because_the_database_is_slow_to_let_it_through(
    on_stage: Stage,
) -> None:
    quick = called("call").rate_limit("r", 10).timeout(0.5)
    saga = Saga("in-time", 1, quick)
    async with on_stage.worker(saga):
        async with on_stage.side.transaction():
            await on_stage.side.execute("LOCK TABLE rate IN EXCLUSIVE MODE")
            handle = await on_stage.start(saga, 7)
            await asyncio.sleep(1.0)
        async with asyncio.timeout(20):
            assert await handle.result() == 8
    assert (await types(handle))["StepInDoubt"] == 0


async def test_what_a_step_came_to_is_known_however_long_its_circuit_takes_to_hear_it(
    on_stage: Stage,
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    @make_step
    async def ask(n: int, ctx: WorkflowContext) -> int:
        asked.set()
        await answered.wait()
        return n

    saga = Saga("slow-circuit", 1, ask.without_undo("a test").circuit("bank").timeout(1.0))
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 7)
        await asked.wait()
        async with on_stage.side.transaction():
            await on_stage.side.execute("LOCK TABLE circuit IN EXCLUSIVE MODE")
            answered.set()
            async with asyncio.timeout(20):
                assert await handle.result() == 7
    assert (await types(handle))["StepInDoubt"] == 0
