"""Every primitive through the real engine, worker and codec, over the memory store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import (
    Attempted,
    Budget,
    Completed,
    Fallback,
    Flow,
    Handle,
    Happened,
    NotHappened,
    Orchestrator,
    Permanent,
    Router,
    Saga,
    SagaFailedError,
    Signal,
    Status,
    Step,
    StepError,
    Unknown,
    Worker,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    sleep,
    step,
    when,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory.store import MemoryDatabase
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain.events import Json

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.DefinitionWarning")


@dataclass
class World:
    """What the steps of these sagas do, and how often."""

    done: list[str] = field(default_factory=list)
    fails: dict[str, list[Exception]] = field(default_factory=dict)

    def do(self, what: str) -> None:
        self.done.append(what)
        if errors := self.fails.get(what):
            raise errors.pop(0)


def act(name: str, *, undo: bool = True) -> Step[int, int]:
    """A step that adds one; its undo is recorded as `-name`."""

    async def action(n: int, ctx: WorkflowContext) -> int:
        ctx.use(World).do(name)
        return n + 1

    made = step(name=name)(action)
    if undo:

        @made.compensation
        async def back(done: Completed[int, int], ctx: WorkflowContext) -> None:
            ctx.use(World).do(f"-{name}:{done.input}")

    return made


@asynccontextmanager
async def at_work(world: World, *sagas: Saga[Any, Any]) -> AsyncIterator[Orchestrator]:
    store = MemoryDatabase().store()
    codec, telemetry = JsonCodec(), SilentTelemetry()
    worker = Worker(store, codec, telemetry, sagas, {World: world})
    service = Orchestrator(store, codec, telemetry, sagas)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield service
    finally:
        stop.set()
        await task
        await service.close()


async def run(world: World, body: Any, value: object) -> Any:
    saga = Saga("s", 1, body)
    async with at_work(world, saga) as service:
        handle = await service.start(saga, value)
        return await handle.result(within=20)


async def events(handle: Handle[Any]) -> list[str]:
    return [entry.type async for entry in handle.history()]


async def status_of(handle: Handle[Any], wanted: Status) -> None:
    async with asyncio.timeout(20):
        while await handle.status() != wanted:
            await asyncio.sleep(0.01)


async def test_a_router_takes_one_route_and_records_it() -> None:
    world = World()
    body = Router({"a": act("a"), "b": act("b")}, lambda n, ctx: "b" if n > 5 else "a")
    assert await run(world, body >> act("c"), 7) == 9
    assert world.done == ["b", "c"]


async def test_an_unknown_route_without_a_default_goes_back() -> None:
    world = World()
    body = act("first") >> Router({"a": act("a")}, lambda n, ctx: "z")
    with pytest.raises(SagaFailedError, match="no route 'z'"):
        await run(world, body, 1)
    assert world.done == ["first", "-first:1"]


async def test_when_without_otherwise_passes_its_input_on() -> None:
    world = World()
    assert await run(world, when(lambda n: n > 5, then=act("a")) >> act("b"), 1) == 2
    assert world.done == ["b"]


async def test_a_fallback_undoes_what_failed_before_the_next_begins() -> None:
    world = World(fails={"b": [Permanent("no")]})
    body = Fallback(act("a") >> act("b"), [act("c")])
    assert await run(world, body >> act("d"), 1) == 3
    assert world.done == ["a", "b", "-a:1", "c", "d"]


async def test_each_runs_every_item_and_keeps_their_order() -> None:
    world = World()
    body = each(act("x"), concurrency=3)
    assert await run(world, body, list(range(20))) == list(range(1, 21))
    assert len(world.done) == 20


async def test_a_failed_item_undoes_all_items() -> None:
    world = World(fails={"y": [Permanent("no")]})
    body = each(act("x"), concurrency=1) >> pure(_total) >> act("y")
    with pytest.raises(SagaFailedError):
        await run(world, body, [1, 2, 3])
    assert world.done == ["x", "x", "x", "y", "-x:3", "-x:2", "-x:1"]


def _total(values: Sequence[int]) -> int:
    return sum(values)


async def test_a_loop_runs_on_its_own_output_and_its_iterations_are_undone() -> None:
    world = World(fails={"end": [Permanent("no")]})
    body = loop(act("x"), until=lambda n: n >= 3, max_iterations=9) >> act("end")
    with pytest.raises(SagaFailedError):
        await run(world, body, 0)
    assert world.done == ["x", "x", "x", "end", "-x:2", "-x:1", "-x:0"]


async def test_a_loop_that_never_ends_fails() -> None:
    world = World()
    with pytest.raises(SagaFailedError, match="LoopExhausted"):
        await run(world, loop(act("x"), until=lambda n: False, max_iterations=3), 0)
    assert world.done == ["x"] * 3 + ["-x:2", "-x:1", "-x:0"]


async def test_sleep_passes_its_input_on() -> None:
    assert await run(World(), act("a") >> sleep(0.05) >> act("b"), 1) == 3


@dataclass
class Verdict:
    approved: bool


verdict = Signal("verdict", Verdict)


def _must(v: Verdict) -> int:
    if not v.approved:
        raise ValueError("not approved")
    return 10


async def test_a_signal_is_waited_for_and_counts_once() -> None:
    world = World()
    saga = Saga("s", 1, act("a") >> verdict.wait() >> pure(_must) >> act("b"))
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        await status_of(handle, Status.WAITING)
        assert await handle.signal(verdict, Verdict(approved=True), dedupe_key="k")
        assert await handle.result(within=20) == 11


async def test_a_signal_may_come_before_the_wait() -> None:
    world = World()
    saga = Saga("s", 1, act("a") >> sleep(0.3) >> verdict.wait() >> pure(_must))
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        await handle.signal(verdict, Verdict(approved=True), dedupe_key="k")
        assert not await handle.signal(verdict, Verdict(approved=True), dedupe_key="k")
        assert await handle.result(within=20) == 10


async def test_a_wait_that_takes_too_long_goes_back() -> None:
    world = World()
    with pytest.raises(SagaFailedError, match="no signal 'verdict'"):
        await run(world, act("a") >> verdict.wait(within=0.05), 1)
    assert world.done == ["a", "-a:1"]


async def test_a_child_runs_and_is_undone_with_its_parent() -> None:
    world = World(fails={"end": [Permanent("no")]})
    child = Saga("child", 1, act("c1") >> act("c2"))
    saga = Saga("s", 1, act("a") >> child.child() >> act("end"))
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        with pytest.raises(SagaFailedError):
            await handle.result(within=20)
        assert world.done == ["a", "c1", "c2", "end", "-c2:3", "-c1:2", "-a:1"]
        assert "ChildUndoRequested" in await events(handle)


async def test_each_over_children() -> None:
    world = World()
    child = Saga("child", 1, act("c"))
    assert await run(world, each(child.child(key=lambda n: f"k{n}"), concurrency=5), [1, 2, 3]) == [
        2, 3, 4,
    ]  # fmt: skip


async def test_a_failed_child_fails_its_parent() -> None:
    world = World(fails={"c2": [Permanent("no")]})
    child = Saga("child", 1, act("c1") >> act("c2"))
    with pytest.raises(SagaFailedError, match="ChildFailed"):
        await run(world, act("a") >> child.child(), 1)
    assert world.done == ["a", "c1", "c2", "-c1:2", "-a:1"]


async def test_a_flow_is_ordinary_code() -> None:
    world = World(fails={"b": [Permanent("no")]})
    one, two, three = act("a"), act("b"), act("c")

    @flow
    async def code(n: int, f: Flow) -> int:
        total = n
        for _ in range(3):
            total = await f.run(one, total)
        try:
            total = await f.run(two, total)
        except StepError as error:
            world.do(f"permanent={error.permanent}")
        await f.sleep(0.01)
        return await f.run(three, total)

    assert await run(world, act("first") >> code >> act("last"), 0) == 6
    assert world.done == ["first", "a", "a", "a", "b", "permanent=True", "c", "last"]


async def test_what_a_flow_did_is_undone() -> None:
    world = World(fails={"last": [Permanent("no")]})
    one = act("a")

    @flow
    async def code(n: int, f: Flow) -> int:
        return await f.run(one, await f.run(one, n))

    with pytest.raises(SagaFailedError):
        await run(world, code >> act("last"), 0)
    assert world.done == ["a", "a", "last", "-a:1", "-a:0"]


async def test_after_the_pivot_nothing_is_undone_and_a_cancel_is_too_late() -> None:
    world = World(fails={"b": [RuntimeError("not yet")]})
    saga = Saga(
        "s",
        1,
        act("a") >> act("p").pivot() >> act("b", undo=False).retry(3, initial=0) >> sleep(0.2),
    )
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        assert await handle.result(within=20) == 4
    assert world.done == ["a", "p", "b", "b"]


async def test_a_probe_tells_that_it_happened() -> None:
    world = World(fails={"a": [TimeoutError()]})
    pay = act("a")

    @pay.probe
    async def look(
        tried: Attempted[int, int], ctx: WorkflowContext
    ) -> Happened[int] | NotHappened | Unknown:
        return Happened(42)

    assert await run(world, pay >> act("b"), 1) == 43


async def test_an_operator_resolves_a_step_in_doubt() -> None:
    world = World(fails={"b": [TimeoutError()]})
    saga = Saga("s", 1, act("a") >> act("b"))
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        await status_of(handle, Status.STUCK)
        await service.resolve(handle.saga_id, "b", happened=False, actor="ann")
        await status_of(handle, Status.COMPENSATED)
    assert world.done == ["a", "b", "-a:1"]


@pytest.mark.parametrize("output", ["not JSON", "[1", '"\\ud83d"'])
async def test_what_no_history_can_hold_resolves_no_step_of_a_flow(output: str) -> None:
    world = World(fails={"b": [TimeoutError()]})
    a, b = act("a"), act("b")

    @flow
    async def code(n: int, f: Flow) -> int:
        return await f.run(b, await f.run(a, n))

    saga = Saga("s", 1, code)
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        await status_of(handle, Status.STUCK)
        await service.resolve(handle.saga_id, "b", happened=True, output=Json(output), actor="ann")
        async with asyncio.timeout(20):
            while "ActionRefused" not in [entry.type async for entry in handle.history()]:
                await asyncio.sleep(0.01)
        await service.resolve(handle.saga_id, "b", happened=True, output=Json("5"), actor="ann")
        assert await handle.result(within=20) == 5


async def test_an_operator_skips_or_retries_a_compensation() -> None:
    world = World(
        fails={"c": [Permanent("no")], "-b:2": [Permanent("x")], "-a:1": [Permanent("y")]}
    )
    saga = Saga("s", 1, act("a") >> act("b") >> act("c"))
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        await status_of(handle, Status.STUCK)
        await service.skip_compensation(handle.saga_id, reason="by hand", actor="ann")
        async with asyncio.timeout(20):
            while world.done[-1] != "-a:1":
                await asyncio.sleep(0.01)
        await status_of(handle, Status.STUCK)
        await service.retry_step(handle.saga_id, actor="ann")
        await status_of(handle, Status.COMPENSATED)
    assert world.done == ["a", "b", "c", "-b:2", "-a:1", "-a:1"]


async def test_terminate_ends_a_parent_and_its_children_without_undo() -> None:
    world = World()
    child = Saga("child", 1, act("c1") >> verdict.wait())
    saga = Saga("s", 1, act("a") >> child.child())
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        async with asyncio.timeout(20):
            while "c1" not in world.done:
                await asyncio.sleep(0.01)
        await handle.terminate("enough", actor="ann")
        await status_of(handle, Status.TERMINATED)
        async with asyncio.timeout(20):
            while any(i.status is not Status.TERMINATED for i in await service.search()):
                await asyncio.sleep(0.01)
    assert world.done == ["a", "c1"]


async def test_a_deadline_undoes_everything() -> None:
    world = World()
    saga = Saga("s", 1, act("a") >> verdict.wait(), deadline=timedelta(seconds=0.2))
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        with pytest.raises(SagaFailedError, match="deadline"):
            await handle.result(within=20)
    assert world.done == ["a", "-a:1"]


async def test_cancel_goes_down_to_children() -> None:
    world = World()
    child = Saga("child", 1, act("c1") >> verdict.wait())
    saga = Saga("s", 1, act("a") >> child.child())
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        async with asyncio.timeout(20):
            while "c1" not in world.done:
                await asyncio.sleep(0.01)
        await handle.cancel("changed my mind", actor="ann")
        await status_of(handle, Status.COMPENSATED)
    assert world.done == ["a", "c1", "-c1:1", "-a:1"] or world.done == ["a", "c1", "-c1:2", "-a:1"]


async def test_branches_are_cut_off_when_one_fails() -> None:
    world = World(fails={"a": [Permanent("no")]})

    @step(name="slow")
    async def slow(n: int, ctx: WorkflowContext) -> int:
        await asyncio.sleep(30)
        return n

    @slow.compensation_on_doubt
    async def back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        ctx.use(World).do(f"-slow:{tried.output}")

    body = (act("a") | slow).with_options(on_failure="cancel")
    with pytest.raises(SagaFailedError):
        await run(world, body, 1)
    assert world.done == ["a", "-slow:None"]


async def test_a_budget_stops_what_comes_after_it_is_spent() -> None:
    @step(name="costly")
    async def costly(n: int, ctx: WorkflowContext) -> int:
        ctx.cost(3)
        return n + 1

    body = Budget(loop(costly, until=lambda n: False, max_iterations=9), limit=7)
    with pytest.raises(SagaFailedError, match="BudgetExceeded"):
        await run(World(), body, 0)


async def test_a_cache_remembers_and_a_rate_and_a_circuit_let_through() -> None:
    world = World()
    body = loop(
        act("x", undo=False).cache(60, key=lambda n: "k").rate_limit("r", 5, 0.01).circuit("c"),
        until=lambda n: False,
        max_iterations=3,
    )
    with pytest.raises(SagaFailedError):
        await run(world, body, 0)
    assert world.done == ["x"]


async def test_using_reads_earlier_outputs_and_keep_gives_pairs() -> None:
    world = World()
    first = act("a")
    body = first >> act("b").keep() >> act("c").using(lambda v: v.output(first) + v.value[1])
    assert await run(world, body, 1) == 6
    assert world.done == ["a", "b", "c"]


def crunch_body(n: int, ctx: WorkflowContext) -> int:
    return n * 2


async def test_plain_functions_run_in_threads() -> None:
    @step(name="plain")
    def plain(n: int, ctx: WorkflowContext) -> int:
        import threading

        assert threading.current_thread() is not threading.main_thread()
        return n * 2

    assert await run(World(), plain, 4) == 8


@step(executor="process")
def crunch(n: int, ctx: WorkflowContext) -> int:
    import os

    return os.getpid()


async def test_plain_functions_may_run_in_a_process_of_their_own() -> None:
    import os

    assert await run(World(), crunch, 4) != os.getpid()


async def test_a_message_beside_the_end_does_not_repeat_the_last_step() -> None:
    world, go = World(), asyncio.Event()

    @step(once=True)
    async def pay(n: int, ctx: WorkflowContext) -> int:
        ctx.use(World).do("pay")
        await go.wait()
        return n

    @pay.compensation_on_doubt
    async def refund(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        ctx.use(World).do("-pay")

    saga = Saga("s", 1, pay)
    async with at_work(world, saga) as service:
        handle = await service.start(saga, 1)
        async with asyncio.timeout(20):
            while "pay" not in world.done:
                await asyncio.sleep(0.01)
        # The owner looks at its inbox every half second, and has not seen this when it ends.
        await handle.signal(verdict, Verdict(approved=True))
        go.set()
        assert await handle.result(within=20) == 1
    assert world.done == ["pay"]


async def test_a_function_that_exits_is_a_failure_and_not_the_end_of_the_worker() -> None:
    def leave(n: int) -> int:
        raise SystemExit(3)

    world = World()
    with pytest.raises(SagaFailedError, match="SystemExit"):
        await run(world, act("a") >> pure(leave), 1)
    assert world.done == ["a", "-a:1"]
