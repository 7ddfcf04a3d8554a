"""A step's SQL and its event are both there or neither is, whatever befalls them."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import (
    InvalidInputError,
    OwnershipLostError,
    UnavailableError,
    UnknownOutcomeError,
)
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection, waits_for_lock
from tests.adapters.postgres.cutting import Cut, wire
from tests.adapters.postgres.stepping import (
    KILL_STEPS,
    Entry,
    each_kind,
    head,
    insert,
    rows,
    run,
)
from tests.contract.given import Given, eventually

pytestmark = pytest.mark.usefixtures("ledger")

LOCK = "SELECT FROM saga WHERE id = $1 FOR UPDATE"
TAKE_OVER = "UPDATE saga SET epoch = epoch + 1 WHERE id = $1"


class OwnSession(AsyncSession):
    """As libraries derive one."""


@each_kind
async def test_the_sql_of_a_step_and_its_event_are_written_together(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async with store.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 1)
        assert await rows(side) == []
        assert await transaction.append(given.append(owner, claim)) == 0
        assert await rows(side) == [1]

    assert (await rows(side), await head(store, claim.saga_id)) == ([1], 1)


@pytest.mark.parametrize(
    ("wanted", "given_type"),
    [
        (AsyncSession, AsyncSession),
        (OwnSession, OwnSession),
        (AsyncConnection, AsyncConnection),
        (asyncpg.Connection, asyncpg.Connection),
        (PoolConnectionProxy, PoolConnectionProxy),
    ],
)
async def test_a_step_gets_what_its_annotation_says(
    store: Store, wanted: Any, given_type: type
) -> None:
    async with store.transactions.open(wanted) as transaction:
        assert isinstance(transaction.handle, given_type)


@pytest.mark.parametrize("wanted", [Session, AsyncEngine, str, "AsyncSession", None, Any])
async def test_another_annotation_is_refused_with_what_there_is(store: Store, wanted: Any) -> None:
    with pytest.raises(InvalidInputError, match="AsyncSession or AsyncConnection, or an asyncpg"):
        store.transactions.open(wanted)


async def test_what_a_session_holds_is_flushed_before_the_event(
    store: Store, given: Given, side: Connection
) -> None:
    [(owner, claim)] = await given.claimed()

    async with store.transactions.open(AsyncSession) as transaction:
        entry = Entry(id=7, note="kept")
        transaction.handle.add(entry)
        await transaction.append(given.append(owner, claim))

    assert (await rows(side), await head(store, claim.saga_id)) == ([7], 1)
    assert entry.note == "kept"


@each_kind
async def test_an_error_of_the_step_comes_through_and_takes_its_rows_along(
    store: Store, side: Connection, wanted: Any
) -> None:
    class OutOfStockError(Exception):
        pass

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            raise OutOfStockError

    with pytest.raises(OutOfStockError):
        await step()

    assert await rows(side) == []


@each_kind
async def test_the_rows_of_a_fenced_owner_are_gone(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            await side.execute(TAKE_OVER, claim.saga_id)
            await transaction.append(given.append(owner, claim))

    with pytest.raises(OwnershipLostError):
        await step()

    assert (await rows(side), await head(store, claim.saga_id)) == ([], 0)


@each_kind
async def test_a_takeover_under_way_fences_a_step_that_waits_for_it(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async with store.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 1)
        async with side.transaction():
            await side.execute(TAKE_OVER, claim.saga_id)
            appending = asyncio.create_task(transaction.append(given.append(owner, claim)))
            await waits_for_lock(side)
        with pytest.raises(OwnershipLostError):
            await appending

    assert (await rows(side), await head(store, claim.saga_id)) == ([], 0)


@each_kind
async def test_a_connection_that_is_cut_before_the_append_leaves_nothing(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            await side.execute(KILL_STEPS)
            await transaction.append(given.append(owner, claim))

    with pytest.raises(UnavailableError) as caught:
        await step()

    assert not isinstance(caught.value, UnknownOutcomeError)
    assert (await rows(side), await head(store, claim.saga_id)) == ([], 0)
    async with store.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 2)
        await transaction.append(given.append(owner, claim))
    assert await rows(side) == [2]


@each_kind
async def test_a_connection_that_is_cut_while_it_appends_leaves_nothing(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction, side.transaction():
            await insert(transaction.handle, 1)
            await side.fetch(LOCK, claim.saga_id)
            appending = asyncio.create_task(transaction.append(given.append(owner, claim)))
            await waits_for_lock(side)
            await side.execute(KILL_STEPS)
            await appending

    with pytest.raises(UnavailableError) as caught:
        await step()

    assert not isinstance(caught.value, UnknownOutcomeError)
    assert (await rows(side), await head(store, claim.saga_id)) == ([], 0)


@each_kind
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_without_an_answer_is_unknown_and_was_both_or_neither(
    any_dsn: str, store: Store, given: Given, side: Connection, wanted: Any, cut: Cut
) -> None:
    [(owner, claim)] = await given.claimed()

    async with wire(any_dsn, cut) as dsn, open_store(dsn) as far:

        async def step() -> None:
            async with far.transactions.open(wanted) as transaction:
                await insert(transaction.handle, 1)
                await transaction.append(given.append(owner, claim))

        with pytest.raises(UnknownOutcomeError):
            await step()

    claimed_again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)
    assert claimed_again is not None
    written = ([1], 1) if cut == "after" else ([], 0)
    assert (await rows(side), claimed_again.head) == written


@each_kind
async def test_cancelling_an_append_makes_it_unknown_and_does_not_stop_it(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async def step(ready: asyncio.Event) -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            ready.set()
            await transaction.append(given.append(owner, claim))

    async with side.transaction():
        await side.fetch(LOCK, claim.saga_id)
        ready = asyncio.Event()
        running = asyncio.create_task(step(ready))
        await ready.wait()
        await waits_for_lock(side)
        running.cancel()
        with pytest.raises(UnknownOutcomeError):
            await running

    async def written() -> bool:
        return await rows(side) == [1]

    await eventually(written, every=0.01)
    assert await head(store, claim.saga_id) == 1


@each_kind
async def test_cancelling_a_step_rolls_it_back_and_frees_its_connection(
    any_dsn: str, side: Connection, wanted: Any
) -> None:
    async with open_store(any_dsn, settings=PostgresSettings(transactions=1)) as store:

        async def step() -> None:
            async with store.transactions.open(wanted) as transaction:
                await insert(transaction.handle, 1)
                await run(transaction.handle, "SELECT pg_advisory_xact_lock(7)")

        async with side.transaction():
            await side.execute("SELECT pg_advisory_xact_lock(7)")
            running = asyncio.create_task(step())
            await waits_for_lock(side)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        async with asyncio.timeout(5), store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
        assert await rows(side) == []
