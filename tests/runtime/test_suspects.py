"""What a dead owner may have left behind: effects without an answer, and reasons for its death."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestrator import (
    Attempted,
    Completed,
    Orchestrator,
    Permanent,
    Saga,
    Status,
    Worker,
    WorkerSettings,
    WorkflowContext,
    step,
    transactional,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import Claim, Definition, Store
from orchestrator.runtime.suspects import room_beside
from tests.doomed import begin

LEASE = timedelta(seconds=30)
SETTINGS = WorkerSettings(poll_every=0.02, watch_every=0.05)


@dataclass
class Bank:
    """Refuses what it is asked, and notes what is given back."""

    given_back: list[str] = field(default_factory=list)
    side_by_side: int = 0
    most: int = 0


@step
async def pay(cents: int, ctx: WorkflowContext) -> int:
    raise Permanent("no credit")


@pay.compensation_on_doubt
async def give_back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Bank).given_back.append(tried.key)


@transactional
async def enter(cents: int, ctx: WorkflowContext, db: object) -> int:
    raise Permanent("the books are closed")


@enter.compensation
async def strike_out(done: Completed[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Bank).given_back.append(done.key)


@step
async def crowd(cents: int, ctx: WorkflowContext) -> int:
    bank = ctx.use(Bank)
    bank.side_by_side += 1
    bank.most = max(bank.most, bank.side_by_side)
    await asyncio.sleep(0.02)
    bank.side_by_side -= 1
    return cents


paying = Saga("paying", version=1, body=pay)
entering = Saga("entering", version=1, body=enter)
crowding = Saga("crowding", version=1, body=crowd)
SAGAS = (paying, entering, crowding)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


async def _die(store: Store, saga: Saga[int, int], times: int = 1, count: int = 1) -> None:
    """Workers that claim what there is of *saga*, begin it, and are never seen again."""
    for _ in range(times):
        owner = f"doomed-{times}"
        await store.fleet.join(owner, "doomed", LEASE)
        claimed = 0
        async with asyncio.timeout(30):
            while claimed < count:
                found = await begin(store, owner, [(saga.name, saga.version)], count)
                claimed += len(found)
                await asyncio.sleep(0 if found else 0.02)
        await store.fleet.leave(owner)


async def _end(store: Store, bank: Bank, ids: list[str]) -> list[Status]:
    """Let one worker carry them to their ends."""
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    worker = Worker(store, JsonCodec(), SilentTelemetry(), SAGAS, {Bank: bank}, SETTINGS)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        return [await orchestrator.wait(saga_id, within=20) for saga_id in ids]
    finally:
        stop.set()
        await running
        await orchestrator.close()


async def _started(store: Store, saga: Saga[int, int], count: int = 1) -> list[str]:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    handles = [await orchestrator.start(saga, n) for n in range(count)]
    await orchestrator.close()
    return [handle.saga_id for handle in handles]


# ---------------------------------------------------------------------------- effects


async def test_a_refusal_after_a_takeover_does_not_settle_what_the_dead_owner_did(
    store: Store,
) -> None:
    [saga_id] = await _started(store, paying)
    await _die(store, paying)
    bank = Bank()

    assert await _end(store, bank, [saga_id]) == [Status.COMPENSATED]
    assert bank.given_back == [f"{saga_id}/paying"]
    types = [row.type for row in await store.events.read(saga_id)]
    assert "StepInDoubt" in types
    assert "StepFailed" not in types


async def test_a_refusal_without_a_takeover_needs_no_undo(store: Store) -> None:
    [saga_id] = await _started(store, paying)
    bank = Bank()

    assert await _end(store, bank, [saga_id]) == [Status.COMPENSATED]
    assert bank.given_back == []
    assert "StepFailed" in [row.type for row in await store.events.read(saga_id)]


async def test_a_transactional_step_leaves_no_doubt_whoever_dies(store: Store) -> None:
    [saga_id] = await _started(store, entering)
    await _die(store, entering)
    bank = Bank()

    assert await _end(store, bank, [saga_id]) == [Status.COMPENSATED]
    assert bank.given_back == []


# ---------------------------------------------------------------------------- reasons


def test_the_more_claims_in_vain_the_fewer_run_side_by_side() -> None:
    assert [room_beside(claims) for claims in (3, 4, 5, 6, 10)] == [64, 16, 4, 1, 1]


async def test_those_that_were_claimed_in_vain_too_often_are_carried_one_at_a_time(
    store: Store,
) -> None:
    ids = await _started(store, crowding, 6)
    await _die(store, crowding, times=5, count=6)
    bank = Bank()

    assert set(await _end(store, bank, ids)) == {Status.COMPLETED}
    assert bank.most == 1


async def test_those_that_nobody_suspects_run_side_by_side(store: Store) -> None:
    ids = await _started(store, crowding, 6)
    await _die(store, crowding, times=1, count=6)
    bank = Bank()

    assert set(await _end(store, bank, ids)) == {Status.COMPLETED}
    assert bank.most > 1


async def test_a_worker_takes_few_in_hand_before_it_has_shown_that_it_lives(store: Store) -> None:
    ids = await _started(store, crowding, 200)
    first: list[int] = []
    claim = store.queue.claim

    async def listen(owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        claims = await claim(owner, limit, definitions)
        first.append(len(claims))
        return claims

    store.queue.claim = listen  # type: ignore[method-assign]  # heard, not changed

    assert set(await _end(store, Bank(), ids)) == {Status.COMPLETED}
    assert first[0] == 64
    assert sum(first) == 200
