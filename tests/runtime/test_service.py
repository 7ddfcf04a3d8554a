"""The whole way of an instance, on the memory store with the real engine and worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator import (
    Attempted,
    Completed,
    ConflictError,
    Filter,
    InvalidInputError,
    KeyConflictError,
    NotFoundError,
    Orchestrator,
    Permanent,
    Retryable,
    Saga,
    SagaFailedError,
    Status,
    TooLateError,
    Worker,
    WorkerSettings,
    WorkflowContext,
    pure,
    step,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import TamperedHistoryError
from orchestrator.ports import Store


@dataclass
class Journal:
    """What the steps did, in order, and what lets them wait."""

    did: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


@step
async def hold(amount: int, ctx: WorkflowContext) -> int:
    ctx.use(Journal).did.append("hold")
    return amount


@hold.compensation
async def release(done: Completed[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Journal).did.append(f"release {done.input}->{done.output}")


@step
async def wait_for_go(amount: int, ctx: WorkflowContext) -> int:
    journal = ctx.use(Journal)
    journal.did.append("wait")
    journal.reached.set()
    await journal.go.wait()
    return amount


@wait_for_go.compensation_on_doubt
async def unwait(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Journal).did.append(f"unwait {tried.output}")


@step
async def refuse(amount: int, ctx: WorkflowContext) -> int:
    raise Permanent("no such luck")


@step
async def odd_result(kind: str, ctx: WorkflowContext) -> Any:
    ctx.use(Journal).did.append("effect")
    return {"nan": float("nan"), "object": object(), "huge": "x" * 2_000_000, "lone": "\ud800"}[
        kind
    ]


@odd_result.compensation_on_doubt
async def undo_odd_result(tried: Attempted[str, Any], ctx: WorkflowContext) -> None:
    ctx.use(Journal).did.append(f"undone {tried.output}")


@step
async def odd_without_undo(kind: str, ctx: WorkflowContext) -> Any:
    ctx.use(Journal).did.append("effect")
    return float("nan")


@odd_without_undo.compensation
async def undo_completed_only(done: Completed[str, Any], ctx: WorkflowContext) -> None:
    ctx.use(Journal).did.append("never")


@step(retries=2)
async def flaky(amount: int, ctx: WorkflowContext) -> int:
    journal = ctx.use(Journal)
    journal.keys.append(ctx.idempotency_key)
    if len(journal.keys) < 3:
        raise Retryable("again", after=0.01)
    return amount


plain = Saga("plain", version=1, body=hold)
failing = Saga("failing", version=1, body=hold.named("hold_first") >> refuse)
slow = Saga("slow", version=1, body=hold.named("hold_slow") >> wait_for_go)
odd = Saga("odd", version=1, body=odd_result)
odder = Saga("odder", version=1, body=odd_without_undo)
retried = Saga("retried", version=1, body=flaky.retry(2, initial=0.01))
SAGAS = (plain, failing, slow, odd, odder, retried)
QUICK = WorkerSettings(
    ttl=3, renew_every=0.1, command_timeout=0.5, margin=0.5, poll_every=0.02, watch_every=0.05,
    announce_after=0.05, grace=2,
)  # fmt: skip


@asynccontextmanager
async def working(
    store: Store, journal: Journal, sagas: tuple[Saga[Any, Any], ...] = SAGAS
) -> AsyncIterator[Orchestrator]:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), sagas)
    worker = Worker(store, JsonCodec(), SilentTelemetry(), sagas, {Journal: journal}, QUICK)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield orchestrator
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)
        await orchestrator.close()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


async def test_the_same_key_and_input_give_the_same_instance(store: Store) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        one = await orchestrator.start(plain, 5, key="k")
        two = await orchestrator.start(plain, 5, key="k")
        assert one.saga_id == two.saga_id
        assert await two.result(within=5) == 5
        assert journal.did == ["hold"]
        with pytest.raises(KeyConflictError, match="another input"):
            await orchestrator.start(plain, 6, key="k")


async def test_an_invalid_input_stores_nothing(store: Store) -> None:
    async with working(store, Journal()) as orchestrator:
        with pytest.raises(InvalidInputError, match="input of saga 'plain'"):
            await orchestrator.start(plain, "five")  # type: ignore[arg-type]  # the mistake
        assert await orchestrator.search(Filter()) == []


async def test_a_failure_is_undone_and_said(store: Store) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(failing, 5)
        with pytest.raises(SagaFailedError, match="no such luck") as caught:
            await handle.result(within=5)
        assert caught.value.status == Status.COMPENSATED
        assert journal.did == ["hold", "release 5->5"]


@pytest.mark.parametrize("kind", ["nan", "object", "huge", "lone"])
async def test_an_effect_whose_result_cannot_be_recorded_is_undone_and_never_repeated(
    store: Store, kind: str
) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(odd, kind)
        assert await orchestrator.wait(handle.saga_id, within=5) is Status.COMPENSATED
        assert journal.did == ["effect", "undone None"]


async def test_an_unknown_outcome_without_an_answer_is_stuck_with_its_reason(store: Store) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(odder, "x")
        assert await orchestrator.wait(handle.saga_id, within=5) is Status.STUCK
        state = await handle.state()
        assert state.stuck is not None
        assert "nobody knows whether odd_without_undo happened" in state.stuck.reason
        assert journal.did == ["effect"]
        with pytest.raises(ConflictError, match="stuck"):
            await handle.cancel("too bad")


async def test_all_attempts_of_a_step_share_one_key(store: Store) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(retried, 1)
        assert await handle.result(within=5) == 1
        assert len(journal.keys) == 3
        assert len(set(journal.keys)) == 1


async def test_a_cancel_lets_the_running_step_settle_and_then_undoes_all(store: Store) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(slow, 1)
        await asyncio.wait_for(journal.reached.wait(), 5)
        await handle.cancel("changed my mind", actor="ann")
        async for entry in _until(orchestrator, handle.saga_id, "CancelRequested"):
            assert entry == "CancelRequested"
        assert journal.did == ["hold", "wait"], "nothing is undone beside work in flight"
        journal.go.set()
        assert await orchestrator.wait(handle.saga_id, within=5) is Status.COMPENSATED
        assert journal.did == ["hold", "wait", "unwait 1", "release 1->1"]
        with pytest.raises(TooLateError):
            await handle.cancel()


async def test_a_long_step_is_announced_while_it_runs(store: Store) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(slow, 1)
        async for entry in _until(orchestrator, handle.saga_id, "StepStarted"):
            assert entry == "StepStarted"
        journal.go.set()
        assert await handle.result(within=5) == 1


async def test_a_saga_that_this_worker_lacks_is_left_alone(store: Store) -> None:
    async with working(store, Journal(), (plain,)) as orchestrator:
        stranger = await orchestrator.start(failing, 1)
        ours = await orchestrator.start(plain, 1)
        assert await ours.result(within=5) == 1
        instance = await orchestrator.get(stranger.saga_id)
        assert (instance.status, instance.epoch, instance.head) == (Status.PENDING, 0, 0)


async def test_a_changed_flow_under_the_same_version_is_stuck_before_any_effect(
    store: Store,
) -> None:
    changed = Saga("slow", version=1, body=wait_for_go.named("another"))
    journal = Journal()
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), (slow,))
    handle = await orchestrator.start(slow, 1)
    async with working(store, journal, (changed,)) as other:
        assert await other.wait(handle.saga_id, within=5) is Status.STUCK
        assert journal.did == []


async def test_a_result_that_takes_too_long_is_a_timeout_and_the_saga_goes_on(
    store: Store,
) -> None:
    journal = Journal()
    async with working(store, journal) as orchestrator:
        handle = await orchestrator.start(slow, 1)
        with pytest.raises(TimeoutError, match="goes on"):
            await handle.result(within=0.05)
        journal.go.set()
        assert await handle.result(within=5) == 1


async def test_a_history_verifies_until_somebody_changes_it(store: Store) -> None:
    async with working(store, Journal()) as orchestrator:
        handle = await orchestrator.start(plain, 1)
        await handle.result(within=5)
        assert await orchestrator.verify(handle.saga_id) == 3
        replayed = await orchestrator.replay(handle.saga_id)
        assert replayed.agrees
        rows = await store.events.read(handle.saga_id)
        forged = [
            replace(rows[1], data=rows[1].data.replace("1", "2")) if r is rows[1] else r
            for r in rows
        ]
        liar = Orchestrator(
            replace(store, events=_Forged(forged)), JsonCodec(), SilentTelemetry(), SAGAS
        )
        with pytest.raises(TamperedHistoryError, match="event 2"):
            await liar.verify(handle.saga_id)


async def test_an_unknown_id_names_the_nearest(store: Store) -> None:
    async with working(store, Journal()) as orchestrator:
        handle = await orchestrator.start(plain, 1)
        assert (await orchestrator.get(handle.saga_id[:20])).saga_id == handle.saga_id
        with pytest.raises(NotFoundError) as caught:
            await orchestrator.get(
                handle.saga_id[:-1] + ("0" if handle.saga_id[-1] != "0" else "1")
            )
        assert caught.value.nearest == (handle.saga_id,)
        with pytest.raises(NotFoundError) as missing:
            orchestrator.find_saga("plane")
        assert missing.value.nearest[0] == "plain"


async def test_a_pure_function_that_raises_compensates(store: Store) -> None:
    def explode(amount: int) -> int:
        raise ValueError("boom")

    flow = Saga("exploding", version=1, body=hold.named("hold_it") >> pure(explode))
    journal = Journal()
    async with working(store, journal, (flow,)) as orchestrator:
        handle = await orchestrator.start(flow, 1)
        with pytest.raises(SagaFailedError, match="boom"):
            await handle.result(within=5)
        assert journal.did == ["hold", "release 1->1"]


@dataclass
class _Forged:
    rows: list[Any]

    async def append(self, batch: Any) -> Any:
        raise AssertionError("nothing is written")

    async def read(self, saga_id: str, after: int = 0) -> list[Any]:
        return self.rows


async def _until(orchestrator: Orchestrator, saga_id: str, type_: str) -> AsyncIterator[str]:
    """The event of that type, once it is there; at most five seconds."""
    async with asyncio.timeout(5):
        while True:
            types = [entry.type async for entry in orchestrator.history(saga_id)]
            if type_ in types:
                yield type_
                return
            await asyncio.sleep(0.01)
