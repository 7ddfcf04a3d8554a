"""What meets at one moment: messages beside commits, time-outs beside guards, owners beside owners."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import (
    Attempted,
    Flow,
    Handle,
    Orchestrator,
    Permanent,
    Retryable,
    Saga,
    Signal,
    Status,
    Worker,
    WorkflowContext,
    flow,
    step,
    transactional,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain import events as ev
from orchestrator.ports import Message, Store, Telemetry
from tests.runtime.stage import types
from tests.runtime.test_worker import QUICK, Diary, Part, changed


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
def diary() -> Diary:
    return Diary()


@asynccontextmanager
async def working(
    store: Store,
    diary: Diary,
    *sagas: Saga[Any, Any],
    telemetry: Telemetry | None = None,
    announce_after: float = 0.05,
) -> AsyncIterator[Orchestrator]:
    """A worker that is cut off at the end, as one that dies: what runs is not waited for."""
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), sagas)
    settings = replace(QUICK, announce_after=announce_after)
    heard = telemetry or SilentTelemetry()
    worker = Worker(store, JsonCodec(), heard, sagas, {Diary: diary}, settings)
    task = asyncio.create_task(worker.run(asyncio.Event()))
    try:
        yield orchestrator
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        await orchestrator.close()


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(8):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.005)


async def stands(handle: Handle[Any], wanted: Status) -> None:
    async def holds() -> bool:
        return await handle.status() is wanted

    await until(holds)


async def has(handle: Handle[Any], type_: str) -> None:
    async def holds() -> bool:
        return (await types(handle))[type_] > 0

    await until(holds)


# ---------------------------------------------------------------------------- terminate


@transactional
async def post(n: int, ctx: WorkflowContext, db: Any) -> int:
    diary = ctx.use(Diary)
    diary.did.append("posts")
    await diary.gate("post").wait()
    return n


class SlowInbox(Part):
    """Something happens while the messages of an instance are being read."""

    def __init__(self, inner: Any, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner)
        self._meanwhile = meanwhile

    async def read(self, saga_id: str, after: int) -> list[Message]:
        found: list[Message] = await self._inner.read(saga_id, after)
        await self._meanwhile()
        return found


async def test_nothing_is_recorded_after_the_end_when_a_transaction_is_ready_beside_a_terminate(
    store: Store, diary: Diary
) -> None:
    posting = Saga("posting", 1, post.without_undo("a test"))

    async def let_it_finish() -> None:
        diary.gate("post").set()
        await asyncio.sleep(0.05)

    slow = changed(store, inbox=SlowInbox(store.inbox, let_it_finish))
    async with working(slow, diary, posting) as orchestrator:
        handle = await orchestrator.start(posting, 1)
        await until(lambda: "posts" in diary.did)
        await handle.terminate("enough")
        await stands(handle, Status.TERMINATED)
        await asyncio.sleep(0.1)
        assert [entry.type async for entry in handle.history()][-1] == "SagaTerminated"
        assert (await handle.state()).status is Status.TERMINATED


# ---------------------------------------------------------------------------- guards


@step
async def look(n: int, ctx: WorkflowContext) -> int:
    """The first one that looks finds no end of it."""
    diary = ctx.use(Diary)
    diary.did.append("looks")
    if len(diary.did) == 1:
        await asyncio.sleep(60)
    return n


async def test_a_time_out_opens_the_circuit_round_the_step(store: Store, diary: Diary) -> None:
    @step
    async def hang(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("called")
        await asyncio.sleep(60)
        return n

    calling = Saga("calling", 1, hang.timeout(0.05).circuit("bank", failures=1, reset=60))
    async with working(store, diary, calling) as orchestrator:
        first = await orchestrator.start(calling, 1)
        await stands(first, Status.COMPENSATED)
        second = await orchestrator.start(calling, 2)
        await has(second, "StepHeld")
    assert diary.did == ["called"]


async def test_what_an_attempt_cost_until_it_timed_out_counts(store: Store, diary: Diary) -> None:
    @step
    async def think(n: int, ctx: WorkflowContext) -> int:
        ctx.cost(7)
        await asyncio.sleep(60)
        return n

    thinking = Saga("thinking", 1, think.timeout(0.05).retry(1, initial=0).budget(5))
    async with working(store, diary, thinking) as orchestrator:
        handle = await orchestrator.start(thinking, 1)
        await stands(handle, Status.COMPENSATED)
        state = await handle.state()
    assert state.root.cost == 7
    assert "BudgetExceeded" in state.reason


async def test_who_fills_a_cache_and_times_out_lets_the_next_one_fill_it(
    store: Store, diary: Diary
) -> None:
    looking = Saga("looking", 1, look.timeout(0.05).cache(60))
    async with working(store, diary, looking) as orchestrator:
        first = await orchestrator.start(looking, 1)
        await stands(first, Status.COMPENSATED)
        second = await orchestrator.start(looking, 1)
        assert await second.result(within=5) == 1
    assert diary.did == ["looks", "looks"]


async def test_what_may_have_happened_is_undone_although_a_guard_held_the_next_owner(
    store: Store, diary: Diary
) -> None:
    """One owner dies in the call; the rate does not let the next one call again; then a cancel."""

    @step
    async def pay(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("paid")
        await diary.gate("pay").wait()
        return n

    @pay.compensation_on_doubt
    async def give_back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        diary.did.append("gave back")

    paying = Saga("paying", 1, pay.rate_limit("payments", 1, per=60))
    async with working(store, diary, paying) as orchestrator:
        handle = await orchestrator.start(paying, 1)
        await until(lambda: "paid" in diary.did)
    async with working(store, diary, paying) as orchestrator:
        handle = await orchestrator.handle(handle.saga_id)
        await has(handle, "StepHeld")
        await orchestrator.cancel(handle.saga_id, "changed my mind")
        await stands(handle, Status.COMPENSATED)
    assert diary.did == ["paid", "gave back"]


# ---------------------------------------------------------------------------- transactions


async def test_a_transaction_that_is_cut_off_has_not_happened(store: Store, diary: Diary) -> None:
    @step
    async def fail(n: int, ctx: WorkflowContext) -> int:
        await until(lambda: "posts" in diary.did)
        raise Permanent("no")

    @transactional
    async def book(n: int, ctx: WorkflowContext, db: Any) -> int:
        diary.did.append("posts")
        await asyncio.sleep(60)
        return n

    @book.compensation
    async def unbook(done: Any, ctx: WorkflowContext) -> None:
        diary.did.append("unbooked")

    body: Any = (book | fail.without_undo("a test")).with_options(on_failure="cancel")
    cutting = Saga("cutting", 1, body)
    async with working(store, diary, cutting) as orchestrator:
        handle = await orchestrator.start(cutting, 1)
        await stands(handle, Status.COMPENSATED)
    assert diary.did == ["posts"]
    assert not (await types(handle))["StepInDoubt"]


async def test_a_transaction_that_outlives_its_time_gives_its_turn_back(
    store: Store, diary: Diary
) -> None:
    """It swallows its cancellation and returns all the same, when nobody waits any more."""
    ended = asyncio.Event()

    @transactional
    async def stubborn(n: int, ctx: WorkflowContext, db: Any) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            diary.did.append("goes on")
        return n

    class Transactions(Part):
        @asynccontextmanager
        async def open(self, wanted: Any) -> AsyncIterator[Any]:
            async with self._inner.open(wanted) as opened:
                try:
                    yield opened
                finally:
                    ended.set()

    own = changed(store, transactions=Transactions(store.transactions))
    saga = Saga("stubborn", 1, stubborn.timeout(0.05))
    async with working(own, diary, saga) as orchestrator:
        handle = await orchestrator.start(saga, 1)
        await stands(handle, Status.COMPENSATED)
        async with asyncio.timeout(3):
            await ended.wait()
    assert diary.did == ["goes on"]


async def test_what_is_cut_off_is_not_called_again_by_the_next_owner(
    store: Store, diary: Diary
) -> None:
    """A branch failed, and the other one was to be cut off, when its owner died."""

    @step
    async def linger(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("lingers")
        await asyncio.sleep(60)
        return n

    @linger.compensation_on_doubt
    async def forget(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        diary.did.append("forgotten")

    @step
    async def fail(n: int, ctx: WorkflowContext) -> int:
        await until(lambda: "lingers" in diary.did)
        raise Permanent("no")

    body: Any = (linger | fail.without_undo("a test")).with_options(on_failure="cancel")
    cutting = Saga("cutting", 1, body)
    dying = asyncio.Event()

    class Log(Part):
        """What it wrote last is that the branches are cut off: then it dies."""

        async def append(self, batch: Any) -> Any:
            written = await self._inner.append(batch)
            if any(event.type == "BranchesHalted" for a in batch for event in a.events):
                dying.set()
                await asyncio.sleep(60)
            return written

    async with working(changed(store, events=Log(store.events)), diary, cutting) as orchestrator:
        handle = await orchestrator.start(cutting, 1)
        await dying.wait()
    async with working(store, diary, cutting) as orchestrator:
        await stands(await orchestrator.handle(handle.saga_id), Status.COMPENSATED)
    assert diary.did == ["lingers", "forgotten"]


# ---------------------------------------------------------------------------- children


@step
async def work(n: int, ctx: WorkflowContext) -> int:
    diary = ctx.use(Diary)
    diary.did.append("works")
    await diary.gate("work").wait()
    return n


async def test_a_child_whose_start_was_under_way_is_terminated_with_its_parent(
    store: Store, diary: Diary
) -> None:
    child = Saga("child", 1, work.without_undo("a test"))
    parent = Saga("parent", 1, child.child())
    asked, stored = asyncio.Event(), asyncio.Event()

    class Requests(Part):
        async def start(self, batch: Any, within: object = None) -> Any:
            """A commit that takes its time, and that nobody can call back."""
            if batch[0].name != "child":
                return await self._inner.start(batch, within)

            async def commit() -> Any:
                asked.set()
                await asyncio.sleep(0.3)
                answers = await self._inner.start(batch, within)
                stored.set()
                return answers

            return await asyncio.shield(asyncio.create_task(commit()))

    slow = changed(store, requests=Requests(store.requests))
    async with working(slow, diary, parent, child) as orchestrator:
        handle = await orchestrator.start(parent, 1)
        await asked.wait()
        await handle.terminate("enough")
        await stands(handle, Status.TERMINATED)
        await stored.wait()
        history = [entry.event async for entry in handle.history()]
        [requested] = [event for event in history if isinstance(event, ev.ChildRequested)]
        await stands(await orchestrator.handle(requested.child_id), Status.TERMINATED)


# ---------------------------------------------------------------------------- operators


async def test_a_step_that_a_person_has_tried_again_is_not_in_doubt_when_it_refuses(
    store: Store, diary: Diary
) -> None:
    @step
    async def pay(n: int, ctx: WorkflowContext) -> int:
        return n

    @step
    async def refuse(n: int, ctx: WorkflowContext) -> int:
        raise Permanent("never")

    refusing = Saga("refusing", 1, pay.pivot() >> refuse)
    async with working(store, diary, refusing) as orchestrator:
        handle = await orchestrator.start(refusing, 1)
        await stands(handle, Status.STUCK)
        await orchestrator.retry_step(handle.saga_id, "refuse", reason="it may work now", actor="a")

        async def tried_again() -> bool:
            return (await types(handle))["SagaStuck"] == 2

        await until(tried_again)
        found = await types(handle)
    assert (found["StepFailed"], found["StepInDoubt"]) == (2, 0)


async def test_what_cannot_be_gone_on_with_can_be_terminated(store: Store, diary: Diary) -> None:
    begun = Saga("changing", 1, work.without_undo("a test"))
    other = Saga("changing", 1, work.without_undo("a test").named("other"))
    async with working(store, diary, begun) as orchestrator:
        handle = await orchestrator.start(begun, 1)
        await until(lambda: "works" in diary.did)
        await has(handle, "StepStarted")
    async with working(store, diary, other) as orchestrator:
        handle = await orchestrator.handle(handle.saga_id)
        await stands(handle, Status.STUCK)
        await orchestrator.terminate(handle.saga_id, "nobody needs it", actor="ann")
        await stands(handle, Status.TERMINATED)
        assert (await handle.state()).reason == "terminated: nobody needs it"


# ---------------------------------------------------------------------------- code of people


async def test_a_flow_that_awaits_on_its_way_out_is_left_in_peace(
    store: Store, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    go = Signal("go", int)
    tidy = work.named("tidy").without_undo("a test")

    @flow
    async def careful(n: int, f: Flow) -> int:
        try:
            return await f.receive(go)
        finally:
            await f.run(tidy, n)

    saga = Saga("careful", 1, careful)
    diary.gate("work").set()
    async with working(store, diary, saga) as orchestrator:
        handle = await orchestrator.start(saga, 1)
        await stands(handle, Status.WAITING)
        await handle.signal(go, 7)
        assert await handle.result(within=5) == 7
    assert diary.did == ["works"]
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == []


async def test_threads_that_nobody_waits_for_any_more_are_counted_and_do_not_stop_the_others(
    store: Store, diary: Diary
) -> None:
    release = threading.Event()

    @step
    def block(n: int, ctx: WorkflowContext) -> int:
        release.wait(20)
        return n

    @step
    def quick(n: int, ctx: WorkflowContext) -> int:
        return n

    blocking = Saga("blocking", 1, block.without_undo("a test").timeout(0.1))
    fine = Saga("fine", 1, quick.without_undo("a test").timeout(2))
    try:
        async with working(store, diary, blocking, fine) as orchestrator:
            handles = [await orchestrator.start(blocking, n) for n in range(40)]
            for handle in handles:
                await stands(handle, Status.COMPENSATED)
            assert await (await orchestrator.start(fine, 1)).result(within=5) == 1
            # What the loop itself needs a thread for, such as finding an address, goes on too.
            async with asyncio.timeout(2):
                await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    finally:
        release.set()


@pytest.mark.parametrize("cost", [float("inf"), float("nan"), -1.0])
async def test_a_cost_that_cannot_be_written_is_refused_where_it_is_said(
    cost: float, store: Store, diary: Diary
) -> None:
    @step
    async def think(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("thinks")
        ctx.cost(cost)
        return n

    thinking = Saga("thinking", 1, think)
    async with working(store, diary, thinking) as orchestrator:
        handle = await orchestrator.start(thinking, 1)
        await stands(handle, Status.COMPENSATED)
    assert diary.did == ["thinks"]


@pytest.mark.parametrize("after", [timedelta.max, 1e9])
async def test_a_wait_beyond_all_times_is_no_end_of_the_instance(
    after: Any, store: Store, diary: Diary
) -> None:
    @step
    async def later(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("called")
        raise Retryable("busy", after=after)

    waiting = Saga("waiting", 1, later.retry(3))
    async with working(store, diary, waiting) as orchestrator:
        handle = await orchestrator.start(waiting, 1)
        await has(handle, "RetryScheduled")
        await stands(handle, Status.WAITING)
    assert diary.did == ["called"]


class Deaf(SilentTelemetry):
    def attempted(self, saga: str, step: str, outcome: str, seconds: float) -> None:
        raise RuntimeError("the exporter is broken")


async def test_broken_telemetry_makes_no_failure_of_what_was_done(
    store: Store, diary: Diary
) -> None:
    @step
    async def pay(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("paid")
        return n

    paying = Saga("paying", 1, pay)
    async with working(store, diary, paying, telemetry=Deaf()) as orchestrator:
        handle = await orchestrator.start(paying, 1)
        assert await handle.result(within=5) == 1
    assert diary.did == ["paid"]


async def test_what_may_have_begun_unrecorded_counts_as_reached_by_changed_code(
    store: Store, diary: Diary
) -> None:
    """The owner died in the second part before anything was recorded of it."""

    @step
    async def first(n: int, ctx: WorkflowContext) -> int:
        return n

    @step
    async def other(n: int, ctx: WorkflowContext) -> int:
        diary.did.append("does something else")
        return n

    start, end = first.without_undo("a test"), work.without_undo("a test")
    begun = Saga("changing", 1, start >> end)
    after = Saga("changing", 1, start >> other.without_undo("a test"))
    longer = Saga("changing", 1, start >> end >> other.without_undo("a test"))
    async with working(store, diary, begun, announce_after=60) as orchestrator:
        handle = await orchestrator.start(begun, 1)
        await until(lambda: "works" in diary.did)
    async with working(store, diary, after) as orchestrator:
        await stands(await orchestrator.handle(handle.saga_id), Status.STUCK)
    assert diary.did == ["works"]
    async with working(store, diary, longer) as orchestrator:
        diary.gate("work").set()
        await orchestrator.resume(handle.saga_id, "the old part is back", actor="ann")
        await stands(await orchestrator.handle(handle.saga_id), Status.COMPLETED)
    assert diary.did == ["works", "works", "does something else"]


async def test_who_fills_a_cache_and_is_terminated_lets_the_next_one_fill_it(
    store: Store, diary: Diary
) -> None:
    looking = Saga("looking", 1, look.cache(60))
    async with working(store, diary, looking) as orchestrator:
        first = await orchestrator.start(looking, 1)
        await until(lambda: diary.did == ["looks"])
        await first.terminate("enough")
        await stands(first, Status.TERMINATED)
        second = await orchestrator.start(looking, 1)
        assert await second.result(within=5) == 1
    assert diary.did == ["looks", "looks"]
