"""Steps that raise or swallow what nobody expects, workers of one name, events of another version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator import (
    Completed,
    Orchestrator,
    Saga,
    SagaFailedError,
    Signal,
    Status,
    Worker,
    WorkflowContext,
    step,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import Append, EventRow, Store
from tests.runtime.test_review import stands, until, working
from tests.runtime.test_worker import QUICK, Diary, visit


class Odd(BaseException):
    """An error that is no Exception, and leads back to itself."""

    def __init__(self) -> None:
        super().__init__(self, b"\x00" * 100_000, object())


RAISED: tuple[BaseException, ...] = (
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(7),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    BaseExceptionGroup("worse", [SystemExit(1), ValueError("one")]),
    Odd(),
)

plain = Saga("plain", 1, visit)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
def diary() -> Diary:
    return Diary()


@step
async def prepare(n: int, ctx: WorkflowContext) -> int:
    return n


@prepare.compensation
async def unprepare(done: Completed[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Diary).did.append("undone")


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_step_raises_is_its_failure_and_the_worker_lives(
    store: Store, diary: Diary, error: BaseException
) -> None:
    @step
    async def burst(n: int, ctx: WorkflowContext) -> int:
        raise error

    bursting = Saga("bursting", 1, prepare >> burst)
    async with working(store, diary, bursting, plain) as orchestrator:
        handle = await orchestrator.start(bursting, 1)
        with pytest.raises(SagaFailedError, match=type(error).__name__) as caught:
            await handle.result(within=5)
        assert caught.value.status is Status.COMPENSATED
        sizes = [len(entry.row.data) async for entry in handle.history()]
        assert max(sizes) < 10_000
        after = await orchestrator.start(plain, "Rome")
        assert await after.result(within=5) == "Rome"
    assert diary.did == ["undone", "came to Rome"]


async def test_a_step_that_swallows_its_cancellation_is_left_behind(
    store: Store, diary: Diary
) -> None:
    @step(timeout=0.1)
    async def deaf(n: int, ctx: WorkflowContext) -> int:
        while not diary.gate("over").is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await diary.gate("over").wait()
        diary.did.append("heard at last")
        return n

    deafening = Saga("deafening", 1, deaf)
    try:
        async with working(store, diary, deafening, plain) as orchestrator:
            handle = await orchestrator.start(deafening, 1)
            with pytest.raises(SagaFailedError, match="TimeoutError"):
                await handle.result(within=5)
            after = await orchestrator.start(plain, "Rome")
            assert await after.result(within=5) == "Rome"
        assert diary.did == ["came to Rome"]
    finally:
        diary.gate("over").set()
    await until(lambda: "heard at last" in diary.did)


async def test_two_workers_of_one_name_are_two_owners(store: Store, diary: Diary) -> None:
    @step
    async def meet(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("meets")
        await diary.gate("go").wait()
        return n

    meeting = Saga("meeting", 1, meet)
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), (meeting,))
    stop = asyncio.Event()
    one_slot = replace(QUICK, slots=1)
    workers = [
        Worker(store, JsonCodec(), SilentTelemetry(), (meeting,), {}, one_slot, "the same")
        for _ in range(2)
    ]
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(stop))
        handles = [await orchestrator.start(meeting, n) for n in range(2)]
        await until(lambda: len(diary.did) == 2)
        owners = {(await orchestrator.get(handle.saga_id)).owner for handle in handles}
        diary.gate("go").set()
        assert [await handle.result(within=5) for handle in handles] == [0, 1]
        stop.set()
    await orchestrator.close()
    assert len(owners) == 2
    assert diary.did == ["meets", "meets"]


async def test_an_event_that_this_version_does_not_know_parks_its_instance_alone(
    store: Store, diary: Diary
) -> None:
    go = Signal("go", bool)
    waiting = Saga("waiting", 1, prepare >> go.wait())
    async with working(store, diary, waiting) as orchestrator:
        handle = await orchestrator.start(waiting, 1)
        await stands(handle, Status.WAITING)
    await handle.signal(go, True)
    await _append_from_the_future(store, handle.saga_id)
    async with working(store, diary, waiting, plain) as orchestrator:
        await stands(handle, Status.STUCK)
        after = await orchestrator.start(plain, "Rome")
        assert await after.result(within=5) == "Rome"
    assert (await orchestrator.get(handle.saga_id)).epoch < 6, "a loop of claims"
    assert diary.did == ["came to Rome"]


async def _append_from_the_future(store: Store, saga_id: str) -> None:
    """A newer version of the package was at work, and has been taken back."""
    await store.fleet.join("newer", "newer", timedelta(seconds=30))
    [claim] = await store.queue.claim("newer", 1, [("waiting", 1)])
    row = EventRow(
        saga_id, claim.head + 1, "StepDreamt", "waiting/1", 1, claim.epoch, "{}", "{}",
        store.clock.now(), b"\x01" * 32,
    )  # fmt: skip
    append = Append(
        saga_id, "newer", claim.epoch, claim.head, (row,), Status.RUNNING,
        store.clock.now(), None, 0, False,
    )  # fmt: skip
    assert saga_id in await store.events.append([append])
