"""Why an instance does not move: a test for each reason, on the memory store with the real worker."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import (
    Completed,
    Orchestrator,
    Permanent,
    Retryable,
    Saga,
    Signal,
    Status,
    Worker,
    WorkerSettings,
    WorkflowContext,
    each,
    loop,
    pure,
    sleep,
    step,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory.store import MemoryDatabase
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import DefinitionWarning
from orchestrator.ports import Append, Cursor, EventRow
from orchestrator.runtime.seen import Cause, Reason
from orchestrator.runtime.why import Why
from tests.doomed import begin

go = Signal("go", int)
LEASE = timedelta(seconds=30)
QUICK = WorkerSettings(
    ttl=3, renew_every=0.1, command_timeout=0.5, margin=0.5, poll_every=0.02, watch_every=0.05,
    announce_after=0.05, park_after=0.05, grace=0.1,
)  # fmt: skip


@step
async def prepare(n: int, ctx: WorkflowContext) -> int:
    return n


@step
async def busy(n: int, ctx: WorkflowContext) -> int:
    raise Retryable("the bank is busy", after=600)


@step
async def refuse(n: int, ctx: WorkflowContext) -> int:
    raise Permanent("no")


@step
async def vanish(n: int, ctx: WorkflowContext) -> int:
    raise TimeoutError("no answer")


@vanish.compensation
async def found(done: Completed[int, int], ctx: WorkflowContext) -> None: ...


@step
async def book(n: int, ctx: WorkflowContext) -> int:
    return n


@book.compensation
async def unbook(done: Completed[int, int], ctx: WorkflowContext) -> None:
    raise Permanent("the till is shut") if done.output else Retryable("later", after=600)


@step
async def endless(n: int, ctx: WorkflowContext) -> int:
    await asyncio.sleep(600)
    return n


@step
async def asked(n: int, ctx: WorkflowContext) -> int:
    raise TimeoutError("no answer")


@asked.probe
async def ask(tried: Any, ctx: WorkflowContext) -> Any:
    raise Retryable("the probe is shut")


def nothing(n: int) -> int:
    return 0


def twenty(n: int) -> list[int]:
    return [n] * 20


def made(name: str, body: Any, version: int = 1, **more: Any) -> Saga[int, Any]:
    """A saga; that it may come to a person is what is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefinitionWarning)
        return Saga(name, version, body, **more)


class Clock:
    """The database's clock, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Yard:
    """One database in memory, an orchestrator that knows no saga, and workers where a test wants one."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.database = MemoryDatabase(self.clock)
        self.store = self.database.store()
        self.orchestrator = Orchestrator(self.store, JsonCodec(), SilentTelemetry())

    async def start(self, saga: Saga[int, Any], n: int = 1) -> str:
        return (await self.orchestrator.start(saga, n)).saga_id

    @asynccontextmanager
    async def worker(self, *sagas: Saga[Any, Any], label: str = "bench") -> AsyncIterator[None]:
        store = self.database.store()
        worker = Worker(store, JsonCodec(), SilentTelemetry(), sagas, {}, QUICK, label)
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(running, 10)

    async def why(self, saga_id: str) -> Why:
        return await self.orchestrator.why(saga_id)

    async def becomes(self, saga_id: str, cause: Cause) -> Why:
        """The answer, once its main reason is of that kind."""
        async with asyncio.timeout(10):
            while (told := await self.why(saga_id)).main.cause is not cause:
                await asyncio.sleep(0.02)
        return told

    async def told(self, saga: Saga[int, Any], cause: Cause, *others: Saga[Any, Any]) -> Reason:
        """The main reason of a new instance, with a worker on it, once it is of that kind."""
        async with self.worker(saga, *others):
            return (await self.becomes(await self.start(saga), cause)).main


@pytest.fixture
def yard() -> Yard:
    return Yard()


def causes(why: Why) -> list[Cause]:
    return [reason.cause for reason in why.reasons]


# ---------------------------------------------------------------------------- it waits


async def test_a_signal_is_named_with_the_command_that_sends_it(yard: Yard) -> None:
    saga = made("s", prepare >> go.wait())
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        reason = (await yard.becomes(id_, Cause.SIGNAL)).main
    assert reason.text == "it waits for the signal go"
    assert reason.do == (f"saga signal {id_} go JSON",)
    assert reason.since is not None
    assert reason.until is None


async def test_a_signal_with_a_limit_says_until_when(yard: Yard) -> None:
    reason = await yard.told(made("s", go.wait(within=600)), Cause.SIGNAL)
    assert reason.since is not None
    assert reason.until is not None
    assert timedelta(seconds=599) < reason.until - reason.since <= timedelta(seconds=601)


async def test_a_sleep_says_until_when(yard: Yard) -> None:
    reason = await yard.told(made("s", prepare >> sleep(600)), Cause.TIMER)
    assert reason.text == "it sleeps at s/1"
    assert reason.until is not None


async def test_a_retry_says_what_failed_and_which_attempt_comes(yard: Yard) -> None:
    reason = await yard.told(made("s", busy.retry(3)), Cause.RETRY)
    assert reason.text == (
        "busy failed and is tried again (attempt 2): Retryable: the bank is busy"
    )
    assert reason.until is not None


async def test_a_hold_names_the_guard(yard: Yard) -> None:
    saga = made("s", prepare.rate_limit("desk", 1, per=600) >> go.wait())
    async with yard.worker(saga):
        first = await yard.start(saga)
        await yard.becomes(first, Cause.SIGNAL)
        told = await yard.becomes(await yard.start(saga), Cause.HOLD)
    assert told.main.text == "prepare has to wait for the rate desk"
    assert told.main.until is not None


async def test_an_undo_that_is_tried_again_says_what_failed(yard: Yard) -> None:
    saga = made("s", pure(nothing) >> book >> refuse)
    reason = await yard.told(saga, Cause.UNDO_RETRY)
    assert reason.text.startswith("the undo of book failed and is tried again (attempt 2): Retry")
    assert reason.until is not None


async def test_a_probe_that_failed_says_when_it_is_asked_again(yard: Yard) -> None:
    reason = await yard.told(made("s", asked), Cause.PROBE)
    assert reason.text.startswith("the probe of asked failed and is asked again")


async def test_a_loop_says_that_it_pauses(yard: Yard) -> None:
    body = loop(prepare, until=lambda n: False, max_iterations=3, pause=600)
    reason = await yard.told(made("s", body), Cause.PAUSE)
    assert reason.text == "the loop at s pauses before its next iteration"


async def test_a_time_out_and_a_deadline_are_said_beside_what_they_end(yard: Yard) -> None:
    saga = made("s", (prepare >> go.wait()).timeout(60), deadline=600)
    async with yard.worker(saga):
        told = await yard.becomes(await yard.start(saga), Cause.SIGNAL)
    assert causes(told) == [Cause.SIGNAL, Cause.TIMEOUT, Cause.DEADLINE]
    assert all(reason.until is not None for reason in told.reasons[1:])


# ---------------------------------------------------------------------------- children


async def test_a_child_is_named_with_its_own_reason(yard: Yard) -> None:
    kid = made("kid", prepare.named("p") >> go.wait())
    saga = made("s", kid.child())
    async with yard.worker(saga, kid):
        id_ = await yard.start(saga)
        await yard.becomes(id_, Cause.CHILD)
        [child] = (await yard.orchestrator.state(id_)).children
        await yard.becomes(child, Cause.SIGNAL)
        reason = (await yard.why(id_)).main
    assert reason.text == (
        f"it waits for its child {child} (kid, waiting): it waits for the signal go"
    )
    assert reason.do == (f"saga signal {child} go JSON",)


async def test_a_child_that_is_stuck_comes_first_with_the_repairs_of_the_child(yard: Yard) -> None:
    kid = made("kid", vanish)
    saga = made("s", go.wait() | kid.child())
    async with yard.worker(saga, kid):
        id_ = await yard.start(saga)
        told = await yard.becomes(id_, Cause.CHILD_STUCK)
        [child] = (await yard.orchestrator.state(id_)).children
    assert f"its child {child} (kid, stuck): it is stuck at vanish" in told.main.text
    assert told.main.do[0] == f"saga resolve {child} vanish --happened"
    assert causes(told) == [Cause.CHILD_STUCK, Cause.SIGNAL]


async def test_a_parent_whose_childs_undo_is_stuck_names_the_child(yard: Yard) -> None:
    kid = made("kid", book)
    saga = made("s", kid.child() >> refuse)
    async with yard.worker(saga, kid):
        id_ = await yard.start(saga)
        told = await yard.becomes(id_, Cause.CHILD_STUCK)
        [child] = (await yard.orchestrator.state(id_)).children
    assert told.instance.status is Status.COMPENSATING
    assert told.main.text.startswith(f"it waits for that this child is undone: {child} (kid, stuck")
    assert f"saga retry {child} book" in told.main.do


async def test_of_many_children_a_few_are_named_those_first_that_are_stuck(yard: Yard) -> None:
    kid = made("kid", prepare.named("p") >> go.wait() >> vanish)
    saga = made("s", pure(twenty) >> each(kid.child(), concurrency=20))
    async with yard.worker(saga, kid):
        id_ = await yard.start(saga)
        async with asyncio.timeout(10):
            while len((await yard.orchestrator.state(id_)).children) < 20:
                await asyncio.sleep(0.02)
        last = max((await yard.orchestrator.state(id_)).children)
        await yard.becomes(last, Cause.SIGNAL)
        await yard.orchestrator.signal(last, "go", 1)
        told = await yard.becomes(id_, Cause.CHILD_STUCK)
    assert last in told.main.text
    assert causes(told) == [Cause.CHILD_STUCK, *4 * [Cause.CHILD]]


# ---------------------------------------------------------------------------- a person is needed


async def test_a_doubt_is_to_be_resolved(yard: Yard) -> None:
    saga = made("s", vanish)
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        reason = (await yard.becomes(id_, Cause.STUCK)).main
    assert reason.text.startswith("it is stuck at vanish, a person is needed: nobody knows whether")
    assert reason.since is not None
    assert reason.do == (
        f"saga resolve {id_} vanish --happened",
        f"saga resolve {id_} vanish --not-happened",
        f"saga terminate {id_} --reason TEXT",
    )


async def test_a_compensation_that_failed_for_good_is_to_be_retried_or_skipped(yard: Yard) -> None:
    saga = made("s", book >> refuse)
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        reason = (await yard.becomes(id_, Cause.STUCK)).main
    assert "the till is shut" in reason.text
    assert reason.do[:2] == (
        f"saga retry {id_} book", f"saga skip {id_} book --reason TEXT",
    )  # fmt: skip


async def test_what_failed_after_the_pivot_is_to_be_retried(yard: Yard) -> None:
    saga = made("s", prepare.pivot() >> refuse)
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        reason = (await yard.becomes(id_, Cause.STUCK)).main
    assert "it failed after the point of no return, Permanent: no" in reason.text
    assert reason.do[0] == f"saga retry {id_} refuse"


async def test_what_is_stuck_as_a_whole_is_to_be_resumed(yard: Yard) -> None:
    saga, changed = made("s", go.wait()), made("s", prepare >> go.wait())
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        await yard.becomes(id_, Cause.SIGNAL)
    async with yard.worker(changed):
        await yard.orchestrator.signal(id_, "go", 1)
        reason = (await yard.becomes(id_, Cause.STUCK)).main
    assert reason.do[0] == f"saga resume {id_} --reason TEXT"


# ---------------------------------------------------------------------------- workers


async def test_without_a_worker_it_says_so(yard: Yard) -> None:
    told = await yard.why(await yard.start(made("s", prepare)))
    assert told.main.cause is Cause.NO_WORKER
    assert told.main.text == "no worker is alive that could go on with s version 1"
    assert told.main.since is not None
    assert told.main.do == ("saga worker --sagas MODULE  # one that holds s version 1",)


async def test_a_definition_that_no_live_worker_has_is_said_with_what_they_have(
    yard: Yard,
) -> None:
    async with yard.worker(made("s", prepare, version=2), made("t", prepare)):
        id_ = await yard.start(made("s", prepare, version=3))
        told = await yard.becomes(id_, Cause.NOT_SERVED)
    assert told.main.text == (
        "no live worker serves s version 3; these live workers serve other sagas: "
        "bench (s version 2, t version 1)"
    )


async def test_a_worker_that_does_not_say_what_it_serves_may_serve_it(yard: Yard) -> None:
    await yard.store.fleet.join("w", "old", LEASE)
    told = await yard.why(await yard.start(made("s", prepare)))
    assert told.main.cause is Cause.DUE
    assert told.main.text == "it is due, and waits to be claimed by old"


async def test_what_is_due_for_long_says_that_its_workers_may_be_full(yard: Yard) -> None:
    await yard.store.fleet.join("w", "full", timedelta(hours=1), [("s", 1)])
    id_ = await yard.start(made("s", prepare))
    yard.clock.ahead = timedelta(minutes=1)
    told = await yard.why(id_)
    assert told.main.cause is Cause.DUE
    assert "full, which may be full (SAGA_SLOTS)" in told.main.text


async def test_what_waits_says_beside_it_that_nobody_could_go_on_with_it(yard: Yard) -> None:
    saga = made("s", prepare >> go.wait())
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        await yard.becomes(id_, Cause.SIGNAL)
        await asyncio.sleep(0.1)
    assert causes(await yard.why(id_)) == [Cause.SIGNAL, Cause.NO_WORKER]


async def test_a_step_that_runs_names_the_worker_and_its_lease(yard: Yard) -> None:
    saga = made("s", endless)
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        async with asyncio.timeout(10):
            while "endless runs" not in (told := await yard.why(id_)).main.text:
                await asyncio.sleep(0.02)
    owner = told.instance.owner
    assert told.main.cause is Cause.WORKING
    assert told.main.text == f"worker bench ({owner}) is at work on it: endless runs (attempt 1)"
    assert told.main.until is not None
    assert told.main.until > told.at


async def claimed(yard: Yard, ttl: timedelta = LEASE) -> str:
    """An instance that the worker `w`, called *gone*, holds and does nothing with."""
    await yard.store.fleet.join("w", "gone", ttl, [("s", 1)])
    id_ = await yard.start(made("s", prepare))
    assert len(await yard.store.queue.claim("w", 1, [("s", 1)])) == 1
    return id_


async def test_an_owner_whose_lease_ran_out_is_named_with_the_time(yard: Yard) -> None:
    id_ = await claimed(yard)
    yard.clock.ahead = timedelta(minutes=1)
    reason = (await yard.why(id_)).main
    assert reason.cause is Cause.OWNER_LOST
    assert reason.text == (
        "it is held by worker gone (w), whose lease ran out; "
        "no worker is alive that could take it over"
    )
    assert reason.since is not None


async def test_an_owner_whose_connection_is_gone_is_said_to_be_freed_soon(yard: Yard) -> None:
    id_ = await claimed(yard)
    await yard.store.fleet.join("v", "other", LEASE, [("s", 1)])
    yard.database.vanish("w")
    reason = (await yard.why(id_)).main
    assert reason.text == (
        "it is held by worker gone (w), whose connection is gone; "
        "the other workers free it within seconds"
    )


async def test_what_was_claimed_in_vain_says_how_often_and_when_it_is_parked(yard: Yard) -> None:
    await yard.store.fleet.join("w", "doomed", LEASE, [("s", 1)])
    id_ = await yard.start(made("s", prepare))
    for _ in range(7):
        assert len(await begin(yard.store, "w", [("s", 1)])) == 1
        await yard.store.queue.release("w", [id_])
    await begin(yard.store, "w", [("s", 1)])
    await yard.store.queue.release("w", [id_], LEASE)
    told = await yard.why(id_)
    assert told.main.cause is Cause.IN_VAIN
    assert told.main.text == (
        "it was claimed 8 times in vain, without one new event; at 11 it is parked as stuck"
    )
    assert told.main.until == told.instance.due_at


# ---------------------------------------------------------------------------- beside


async def test_messages_that_nobody_read_yet_are_named(yard: Yard) -> None:
    id_ = await yard.start(made("s", go.wait()))
    await yard.orchestrator.signal(id_, "go", 1, actor="ann")
    await yard.orchestrator.cancel(id_, "enough", actor="bob")
    told = await yard.why(id_)
    assert causes(told) == [Cause.NO_WORKER, Cause.UNREAD]
    assert told.reasons[1].text == (
        "2 messages are not read yet: signal go from ann, cancel from bob"
    )


async def test_events_that_the_relay_has_not_published_are_counted(yard: Yard) -> None:
    saga = made("s", prepare)
    feed = yard.store.feed
    cursor = await feed.acquire("events", "me", LEASE)
    assert cursor is not None
    async with yard.worker(saga):
        id_ = await yard.start(saga)
        told = await yard.becomes(id_, Cause.ENDED)
    behind = told.reasons[1]
    assert behind.text.endswith(" not published yet by relay events; its broker may be away")
    assert behind.do == ("saga doctor",)
    await feed.give_up("events", "me")
    assert (await yard.why(id_)).reasons[1].text.endswith("by relay events; no relay runs")
    end = Cursor((await feed.read(0, 100)).position, cursor.epoch)
    assert await feed.acquire("events", "me", LEASE)
    assert await feed.checkpoint("events", "me", Cursor(end.position, cursor.epoch + 1), LEASE)
    assert causes(await yard.why(id_)) == [Cause.ENDED]


async def test_what_has_ended_says_how_and_why(yard: Yard) -> None:
    reason = await yard.told(made("s", refuse), Cause.ENDED)
    assert reason.text == "it has ended, compensated: Permanent: no"


async def test_a_history_that_cannot_be_read_is_said_to_be_so(yard: Yard) -> None:
    id_ = await claimed(yard)
    row = EventRow(id_, 1, "FromTheFuture", "", 0, 1, "{}", "{}", yard.clock.now(), b"0" * 32)
    parked = Append(id_, "w", 1, 0, (row,), Status.STUCK, None, None, 0, if_inbox=False)
    assert id_ in await yard.store.events.append([parked])
    told = await yard.why(id_)
    assert causes(told) == [Cause.STUCK, Cause.UNREADABLE]
    assert "FromTheFuture" in told.reasons[1].text
    assert told.main.do == (f"saga history {id_}",)
