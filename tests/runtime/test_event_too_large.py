"""No event that could not be published is ever in the log: only its own instance is parked."""

from __future__ import annotations

import pytest

from orchestrator import Handle, Saga, Signal, Status, WorkflowContext, each, step, transactional
from orchestrator.domain.events import Json
from orchestrator.domain.outcomes import failure_of
from orchestrator.errors import InvalidInputError, PayloadTooLargeError
from orchestrator.ports import EVENT_DATA_LIMIT, MessageKind
from tests.runtime.scenes import INSERT, Driver
from tests.runtime.stage import Stage, types

LARGE = 900_000


@step
async def small(value: int, ctx: WorkflowContext) -> str:
    return "done"


@step
async def large(value: int, ctx: WorkflowContext) -> str:
    return "x" * LARGE


@transactional
async def write(value: str, ctx: WorkflowContext, db: Driver) -> int:
    await db.execute(INSERT, ctx.saga_id, "written")
    return len(value)


go_on = Signal("go_on", int)

parts = large.named("a") | large.named("b")
narrow = Saga("narrow", version=1, body=small)
wide = Saga("wide", version=1, body=large.named("a") | large.named("b") | large.named("c"))
listed = Saga(
    "listed", version=1, body=(parts | large.named("c")) >> each(write)
)  # fmt: skip
waiting = Saga("waiting", version=1, body=go_on.wait())


async def largest(on_stage: Stage) -> int:
    found: int = await on_stage.side.fetchval("SELECT max(octet_length(data::text)) FROM event")
    return found


async def why(handle: Handle[object]) -> str:
    stuck = (await handle.state()).stuck
    assert stuck is not None
    return stuck.reason


async def test_a_result_that_is_put_together_too_large_parks_its_saga_only(
    on_stage: Stage,
) -> None:
    handle = await on_stage.start(wide)
    async with on_stage.worker(wide, narrow):
        await on_stage.stands(handle, Status.STUCK)
        beside = await on_stage.start(narrow)
        await on_stage.stands(beside, Status.COMPLETED)

    told = await why(handle)
    assert told.startswith("a SagaCompleted of 2,700,0")
    assert f"over the limit of {EVENT_DATA_LIMIT:,}" in told
    assert (await types(handle))["StepSucceeded"] == 3, "what was done is recorded"
    assert await largest(on_stage) <= EVENT_DATA_LIMIT
    assert await on_stage.orchestrator.verify(handle.saga_id) == 5


async def test_gone_on_with_it_is_parked_again_and_can_be_ended(on_stage: Stage) -> None:
    handle = await on_stage.start(wide)
    async with on_stage.worker(wide) as orchestrator:
        await on_stage.stands(handle, Status.STUCK)
        await orchestrator.resume(handle.saga_id)
        await on_stage.has(handle, "SagaStuck", 2)
        await handle.terminate("it is of no use")
        await on_stage.stands(handle, Status.TERMINATED)

    counts = await types(handle)
    assert (counts["StepSucceeded"], counts["SagaResumed"]) == (3, 1)


async def test_what_is_too_large_beside_a_transaction_rolls_it_back(on_stage: Stage) -> None:
    handle = await on_stage.start(listed)
    async with on_stage.worker(listed):
        await on_stage.stands(handle, Status.STUCK)

    assert (await why(handle)).startswith("a EachStarted at listed/1 of 2,700,0")
    assert await on_stage.ledger() == {}
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert await on_stage.side.fetchval(open_ones) == 0


async def test_an_operator_cannot_send_what_is_too_large(on_stage: Stage) -> None:
    handle = await on_stage.start(waiting)
    orchestrator = on_stage.orchestrator
    text = Json(f'"{"x" * 1_000_000}"')
    with pytest.raises(PayloadTooLargeError, match="more than an event can hold"):
        await orchestrator.retry_step(handle.saga_id, input=text, output=text)
    with pytest.raises(InvalidInputError, match="the reason has 10,001 characters"):
        await orchestrator.resume(handle.saga_id, "x" * 10_001)
    with pytest.raises(InvalidInputError, match="the actor has 501 characters"):
        await handle.cancel(actor="x" * 501)
    assert await on_stage.app.store.inbox.read(handle.saga_id, 0) == []


async def test_a_message_too_large_to_be_recorded_is_refused_and_the_next_one_is_heard(
    on_stage: Stage,
) -> None:
    handle = await on_stage.start(waiting)
    inbox = on_stage.app.store.inbox
    payload = {"reason": "x" * (EVENT_DATA_LIMIT + 1)}
    async with on_stage.worker(waiting):
        await on_stage.stands(handle, Status.WAITING)
        await inbox.send(handle.saga_id, MessageKind.CANCEL, payload, actor="ann", dedupe_key="1")
        await handle.signal(go_on, 7)
        await on_stage.stands(handle, Status.COMPLETED)

    assert (await types(handle))["ActionRefused"] == 1
    assert await largest(on_stage) < 10_000


def test_an_exception_of_many_groups_has_a_bounded_number_of_causes() -> None:
    error: Exception = ValueError("\x01" * 10_000)
    for _ in range(4):
        error = ExceptionGroup("all of it", [error] * 10)

    failure, found = failure_of(error), 0
    waiting_ = [failure]
    while waiting_:
        one = waiting_.pop()
        waiting_ += one.causes
        found += 1
    assert found == 21
