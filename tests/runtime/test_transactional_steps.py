"""`@transactional`: the effect and the event that tells of it are both there, or neither is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from orchestrator import (
    Completed,
    KeyConflictError,
    NotFoundError,
    Saga,
    SagaFailedError,
    Status,
    WorkflowContext,
    each,
    transactional,
)
from orchestrator.domain.events import StepInDoubt
from tests.crash.field_hospital import Nursery
from tests.runtime.mortal_worker import KINDS
from tests.runtime.scenes import BY_HAND, INSERT, Diary, Driver, Scene, act, by_session
from tests.runtime.stage import Stage, kinds, types

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("name", ["ledger", "ledger-undone"])
async def test_wherever_the_worker_is_killed_each_effect_is_there_once(
    name: str, nursery: Nursery, on_stage: Stage
) -> None:
    model = await on_stage.start(Scene(name, 0))
    healthy = on_stage.job(Scene(name, 0), until=[model.saga_id])
    assert await nursery.send([healthy]) == [0]
    passed = kinds(on_stage.journal)
    points = [(kind, n) for kind in KINDS for n in range(1, passed[kind] + 1)]
    commits = [point for point in points if point[0].startswith("commit")]
    rest = [point for point in points if point not in commits]
    points = commits + Random(3).sample(rest, 7)
    scenes = [Scene(name, number) for number in range(1, len(points) + 1)]
    handles = [await on_stage.start(scene) for scene in scenes]
    jobs = [
        on_stage.job(scene, until=[handle.saga_id], kind=kind, count=count)
        for scene, handle, (kind, count) in zip(scenes, handles, points, strict=True)
    ]
    died = await nursery.send(jobs)
    assert died.count(-9) >= len(points) - 3, list(zip(points, died, strict=True))
    ids = [handle.saga_id for handle in handles]
    assert await nursery.send([on_stage.job(*scenes, until=ids)]) == [0]
    undone = name == "ledger-undone"
    wanted = [*BY_HAND, *(f"-{what}" for what in BY_HAND if undone)]
    ids.append(model.saga_id)
    assert await on_stage.ledger() == {(id_, what): 1 for id_ in ids for what in wanted}
    for handle in handles:
        assert await handle.status() is (Status.COMPENSATED if undone else Status.COMPLETED)
        assert (await types(handle))["StepSucceeded"] == 3
        doubted = [e.event async for e in handle.history() if isinstance(e.event, StepInDoubt)]
        # The step that refuses is an ordinary one: its owner may have died in the middle of it.
        assert {event.step for event in doubted} <= {"no"}


async def test_many_sagas_lose_and_double_nothing_when_their_worker_is_killed_again_and_again(
    nursery: Nursery, on_stage: Stage
) -> None:
    scenes = [Scene("ledger-undone", number) for number in range(30)]
    ids = [(await on_stage.start(scene)).saga_id for scene in scenes]
    dice = Random(7)
    kills = [("commit-during", dice.randint(5, 25)) for _ in range(3)]
    kills += [("effect-after", dice.randint(5, 25)) for _ in range(1)]
    for kind, count in kills:
        job = on_stage.job(*scenes, until=ids, kind=kind, count=count)
        assert await nursery.send([job]) == [-9]
    assert await nursery.send([on_stage.job(*scenes, until=ids)]) == [0]
    wanted = [*BY_HAND, *(f"-{what}" for what in BY_HAND)]
    assert await on_stage.ledger() == {(id_, what): 1 for id_ in ids for what in wanted}


# ---------------------------------------------------------------------------- failures


@transactional
async def twice(n: int, ctx: WorkflowContext, db: AsyncSession) -> int:
    for _ in range(2):
        entry = {"saga": ctx.saga_id, "what": "twice", "alone": ctx.saga_id}
        await db.execute(text("INSERT INTO ledger VALUES (:saga, :what, :alone)"), entry)
    return n


async def test_a_constraint_violated_at_the_commit_is_a_definite_failure_and_compensates(
    on_stage: Stage,
) -> None:
    saga = Saga("violating", 1, by_session >> twice)
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 1)
        with pytest.raises(SagaFailedError, match="IntegrityError"):
            await handle.result(within=20)
    found = await types(handle)
    assert (found["StepFailed"], found["StepInDoubt"]) == (1, 0)
    id_ = handle.saga_id
    assert await on_stage.ledger() == {(id_, "by_session"): 1, (id_, "-by_session"): 1}


@transactional(timeout=0.3)
async def slow(n: int, ctx: WorkflowContext, db: AsyncConnection) -> int:
    await db.execute(text("INSERT INTO ledger VALUES (:id, 'slow')"), {"id": ctx.saga_id})
    await asyncio.Event().wait()
    return n


@slow.compensation
async def not_slow(done: Completed[int, int], ctx: WorkflowContext) -> None:
    ctx.use(Diary).write("-slow", ctx)


async def test_a_step_that_takes_too_long_is_rolled_back_and_not_in_doubt(
    on_stage: Stage,
) -> None:
    saga = Saga("slow", 1, act("begun") >> slow)
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 1)
        with pytest.raises(SagaFailedError, match="TimeoutError"):
            await handle.result(within=20)
        assert await handle.status() is Status.COMPENSATED
        assert on_stage.diary.of(handle.saga_id) == ["begun", "-begun"]
        assert (await types(handle))["StepInDoubt"] == 0
        assert await on_stage.ledger() == {}
        # Nor does it lie about with its transaction open, in the way of others.
        assert await _open_transactions(on_stage) == 0


async def _open_transactions(stage: Stage) -> int:
    return int(
        await stage.side.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%'"
        )
    )


@transactional(retries=3)
async def broken_twice(n: int, ctx: WorkflowContext, db: Driver) -> int:
    await db.execute(INSERT, ctx.saga_id, "broken_twice")
    if ctx.attempt < 3:
        raise RuntimeError("not yet")
    return n


async def test_what_a_failed_attempt_wrote_is_gone_when_it_is_tried_again(
    on_stage: Stage,
) -> None:
    saga = Saga("again", 1, broken_twice.retry(3, initial=0))
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, 1)
        await handle.result(within=20)
    assert await on_stage.ledger() == {(handle.saga_id, "broken_twice"): 1}
    assert (await types(handle))["StepFailed"] == 2


@transactional
async def branch(n: int, ctx: WorkflowContext, db: Driver) -> int:
    await db.execute(INSERT, ctx.saga_id, f"branch {n}")
    return n


async def test_branches_may_run_in_transactions_side_by_side(on_stage: Stage) -> None:
    saga = Saga("many", 1, each(branch, concurrency=8))
    async with on_stage.worker(saga):
        handle = await on_stage.start(saga, list(range(40)))
        assert await handle.result(within=20) == list(range(40))
    assert await on_stage.ledger() == {(handle.saga_id, f"branch {n}"): 1 for n in range(40)}


# ---------------------------------------------------------------------------- starting

Begin = Callable[[str], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def a_session(dsn: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@asynccontextmanager
async def a_driver(dsn: str) -> AsyncIterator[Driver]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


class Undone(Exception):  # noqa: N818 - what makes a caller's block roll back
    pass


@pytest.mark.parametrize("begin", [a_session, a_driver], ids=["session", "asyncpg"])
async def test_a_start_rides_in_the_callers_transaction(begin: Begin, on_stage: Stage) -> None:
    saga = Saga("ridden", 1, by_session)
    async with on_stage.worker(saga) as orchestrator:
        async with begin(on_stage.dsn) as caller:
            handle = await orchestrator.start(saga, 1, key="k", in_transaction=caller)
            with pytest.raises(NotFoundError):
                await orchestrator.get(handle.saga_id)
        assert await handle.result(within=20) == 2

        async with begin(on_stage.dsn) as caller:
            again = await orchestrator.start(saga, 1, key="k", in_transaction=caller)
            assert again.saga_id == handle.saga_id
            with pytest.raises(KeyConflictError):
                await orchestrator.start(saga, 2, key="k", in_transaction=caller)

        lost = None
        with contextlib.suppress(Undone):
            async with begin(on_stage.dsn) as caller:
                lost = await orchestrator.start(saga, 1, key="other", in_transaction=caller)
                raise Undone
        assert lost is not None
        with pytest.raises(NotFoundError):
            await orchestrator.get(lost.saga_id)
        # The key is free: nothing of the start that was rolled back is left.
        assert await (await orchestrator.start(saga, 5, key="other")).result(within=20) == 6
