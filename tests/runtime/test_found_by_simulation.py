"""What the simulation found, each on its own; the seed that found it stands beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from orchestrator import Attempted, Orchestrator, Saga, Status, WorkflowContext, step
from orchestrator.adapters.clock import ManualClock
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import MemoryDatabase
from orchestrator.adapters.memory.shared_state import MemorySharedState
from orchestrator.adapters.memory.workers import MemoryWorkQueue
from orchestrator.domain.commands import Postponed, RunStep, Succeeded
from orchestrator.domain.events import Json
from orchestrator.domain.guards import CircuitBreaker, RateLimit
from orchestrator.domain.policies import Circuit, Rate
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import (
    Append,
    Claim,
    Definition,
    EventRow,
    EventStore,
    Owned,
    Store,
)
from orchestrator.runtime.engine import Engine, definitions
from orchestrator.runtime.executor import Executor
from orchestrator.runtime.guards import Gate
from orchestrator.runtime.outage import Outage
from orchestrator.runtime.recorder import Recorder
from orchestrator.runtime.worker import _Shift
from orchestrator.runtime.worker_settings import WorkerSettings
from orchestrator.testing.silence import SilentTelemetry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE = timedelta(minutes=1)


@step
async def ask_bank(question: str, ctx: WorkflowContext) -> str:
    return question


def guarded(*guards: Rate | Circuit) -> RunStep:
    """The command for a step that stands behind *guards*."""
    saga = Saga("guarded", 1, ask_bank.without_undo("it reads"))
    made = saga.steps["ask_bank"]
    return RunStep("guarded", made, 1, Json('"?"'), {}, guards=guards)


async def answer() -> Succeeded:
    return Succeeded(Json('"!"'))


async def test_a_rate_that_stands_around_a_step_twice_takes_one_place_for_each_call() -> None:
    # Seed 750: each turn took the place that had come free, was refused the second, and so for ever.
    clock = ManualClock(NOON)
    gate = Gate(MemorySharedState(clock), JsonCodec(), clock)
    rate = RateLimit(ask_bank, "bank", 1).rule
    command = guarded(rate, rate)

    assert await gate.through(command, "first", PATIENCE, answer, []) == await answer()
    held = await gate.through(command, "second", PATIENCE, answer, [])
    assert isinstance(held, Postponed)
    clock.advance(held.until - NOON)
    assert await gate.through(command, "second", PATIENCE, answer, []) == await answer()


async def test_the_stricter_of_two_rates_of_one_name_is_the_one_that_is_asked() -> None:
    clock = ManualClock(NOON)
    gate = Gate(MemorySharedState(clock), JsonCodec(), clock)
    lax, strict = RateLimit(ask_bank, "bank", 100).rule, RateLimit(ask_bank, "bank", 1).rule
    for rates in ((lax, strict), (strict, lax)):
        await gate.through(guarded(*rates), "first", PATIENCE, answer, [])
        assert isinstance(
            await gate.through(guarded(*rates), "more", PATIENCE, answer, []), Postponed
        )
        clock.advance(PATIENCE)


async def test_a_half_open_circuit_that_stands_around_a_step_twice_lets_one_probe_through() -> None:
    clock = ManualClock(NOON)
    shared = MemorySharedState(clock)
    gate = Gate(shared, JsonCodec(), clock)
    circuit = CircuitBreaker(ask_bank, "bank", failures=1, reset=1).rule
    await shared.report(circuit, succeeded=False)
    clock.advance(timedelta(seconds=2))
    outcome = await gate.through(guarded(circuit, circuit), "probe", PATIENCE, answer, [])
    assert outcome == await answer()


async def test_a_worker_whose_clock_is_ahead_does_not_ask_again_at_the_same_instant() -> None:
    # Seed 750, too: the moment it was held until was over by its own clock, thousands of times.
    clock, ahead = ManualClock(NOON), ManualClock(NOON + timedelta(seconds=5))
    gate = Gate(MemorySharedState(clock), JsonCodec(), ahead)
    command = guarded(RateLimit(ask_bank, "bank", 1).rule)
    await gate.through(command, "first", PATIENCE, answer, [])
    held = await gate.through(command, "second", PATIENCE, answer, [])
    assert isinstance(held, Postponed)
    assert held.until > ahead.now()


# ---------------------------------------------------------------------------- ownership


class Desk:
    """Where a step is done, and taken back; the first that comes waits for ever."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.undone: list[str] = []

    async def work(self) -> None:
        if not self.begun.is_set():
            self.begun.set()
            await asyncio.Event().wait()


@step
async def pay(amount: int, ctx: WorkflowContext) -> int:
    await ctx.use(Desk).work()
    return amount


@pay.compensation_on_doubt
async def pay_back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Desk).undone.append(tried.key)


payment = Saga("payment", 1, pay)


def engine_of(store: Store, desk: Desk, owner: str) -> Engine:
    codec, telemetry = JsonCodec(), SilentTelemetry()
    executor = Executor(codec, store, {Desk: desk}, telemetry, timedelta(minutes=1))
    recorder = Recorder(store.events, telemetry)
    return Engine(
        store, codec, recorder, executor, telemetry, definitions([payment]),
        owner=owner, may_act=lambda: True,
    )  # fmt: skip


async def claimed(store: Store, owner: str) -> Claim:
    await store.fleet.join(owner, owner, PATIENCE)
    [claim] = await store.queue.claim(owner, 1, [("payment", 1)])
    return claim


async def test_a_worker_that_drains_does_not_hide_what_an_earlier_owner_may_have_begun() -> None:
    # Seed 2878: a step was under way when its owner died; the next one was told to end at once and
    # gave the instance back as one that waits; the third took it for clean, and undid nothing.
    store, desk = MemoryDatabase().store(), Desk()
    service = Orchestrator(store, JsonCodec(), SilentTelemetry())
    handle = await service.start(payment, 5)

    first = asyncio.create_task(
        engine_of(store, desk, "first").advance(await claimed(store, "first"))
    )
    await desk.begun.wait()
    first.cancel()
    await asyncio.wait({first})
    await store.fleet.leave("first")

    draining = engine_of(store, desk, "second")
    draining.draining = True
    await draining.advance(await claimed(store, "second"))

    await handle.cancel("not wanted any more")
    await engine_of(store, desk, "third").advance(await claimed(store, "third"))
    assert (await service.get(handle.saga_id)).status is Status.COMPENSATED
    assert desk.undone == [f"{handle.saga_id}/payment"]


class SlowAnswers(MemoryWorkQueue):
    """A claim is sent while a look is under way; the look is answered first."""

    def __init__(self, queue: MemoryWorkQueue) -> None:
        super().__init__(queue._tables)
        self.looking = asyncio.Event()
        self.taken = asyncio.Event()
        self.looked = asyncio.Event()

    async def owned(self, owner: str) -> list[Owned]:
        self.looking.set()
        await self.taken.wait()
        return await super().owned(owner)

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        claims = await super().claim(owner, limit, definitions)
        self.taken.set()
        await self.looked.wait()
        return claims


async def test_a_claim_that_was_sent_while_a_look_was_under_way_is_not_given_back() -> None:
    # Seed 2076: the look saw the instance, the answer to the claim was still on its way.
    plain = MemoryDatabase().store()
    queue = SlowAnswers(plain.queue)
    store = replace(plain, queue=queue)
    service = Orchestrator(store, JsonCodec(), SilentTelemetry())
    handle = await service.start(payment, 5)
    shift = _Shift(
        store, JsonCodec(), SilentTelemetry(), definitions([payment]), {}, WorkerSettings(), "one",
        Outage(),
    )  # fmt: skip
    await store.fleet.join(shift.id, "one", PATIENCE)

    look = asyncio.create_task(shift._follow())
    await queue.looking.wait()
    claim = asyncio.create_task(shift._try_claim(1))
    await look
    queue.looked.set()
    assert [found.saga_id for found in await claim] == [handle.saga_id]
    assert (await service.get(handle.saga_id)).owner == shift.id


class LastWord:
    """A log beside which a message arrives at the very moment of the end."""

    def __init__(self, inner: EventStore, say: Callable[[], Awaitable[None]]) -> None:
        self._inner, self._say, self._said = inner, say, False

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        if not self._said and any(one.status is Status.TERMINATED for one in batch):
            self._said = True
            await self._say()
        return await self._inner.append(batch)

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        return await self._inner.read(saga_id, after)


async def test_a_terminate_that_meets_news_at_the_end_is_heard_again() -> None:
    # Seed 52663: the end was refused, because a message had come; what stood before the end was kept,
    # and the terminate counted as heard.
    plain, desk = MemoryDatabase().store(), Desk()
    service = Orchestrator(plain, JsonCodec(), SilentTelemetry())
    handle = await service.start(payment, 5)
    await handle.cancel("not wanted any more")
    await handle.terminate("we settle this by hand")
    store = replace(plain, events=LastWord(plain.events, partial(handle.cancel, "at last")))

    engine, claim = engine_of(store, desk, "first"), await claimed(store, "first")
    with pytest.raises(OwnershipLostError):
        await engine.advance(claim)
    again = await store.queue.reclaim("first", handle.saga_id, claim.epoch)
    assert again is not None
    await engine.advance(again)

    assert await handle.status() is Status.TERMINATED
    assert "CancelRequested" in [entry.type async for entry in handle.history()]
