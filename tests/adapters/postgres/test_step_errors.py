"""What a step does wrong in its transaction: its errors are its own, and it may not end it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator.errors import (
    InvalidInputError,
)
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection
from tests.adapters.postgres.stepping import (
    Entry,
    each_kind,
    head,
    insert,
    rows,
    run,
)
from tests.contract.given import Given

pytestmark = pytest.mark.usefixtures("ledger")


@each_kind
async def test_a_constraint_that_a_step_violates_is_the_steps_own_error(
    store: Store, side: Connection, wanted: Any
) -> None:
    expected = asyncpg.UniqueViolationError if wanted is asyncpg.Connection else IntegrityError

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            await insert(transaction.handle, 1)

    with pytest.raises(expected):
        await step()

    assert await rows(side) == []


@each_kind
async def test_a_deferred_constraint_is_the_steps_own_error_too_and_stops_the_event(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()
    expected = asyncpg.ForeignKeyViolationError if wanted is asyncpg.Connection else IntegrityError

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1, above="99")
            await transaction.append(given.append(owner, claim))

    with pytest.raises(expected):
        await step()

    assert (await rows(side), await head(store, claim.saga_id)) == ([], 0)


async def test_an_error_of_the_last_flush_is_the_steps_own(
    store: Store, given: Given, side: Connection
) -> None:
    await side.execute("INSERT INTO ledger VALUES (1)")
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(AsyncSession) as transaction:
            transaction.handle.add(Entry(id=1))
            await transaction.append(given.append(owner, claim))

    with pytest.raises(IntegrityError):
        await step()

    assert await head(store, claim.saga_id) == 0


@each_kind
async def test_a_step_that_goes_on_after_a_failed_statement_is_told_of_savepoints(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            with pytest.raises((IntegrityError, asyncpg.UniqueViolationError)):
                await insert(transaction.handle, 1)
            await transaction.append(given.append(owner, claim))

    with pytest.raises(InvalidInputError, match="savepoint"):
        await step()

    assert (await rows(side), await head(store, claim.saga_id)) == ([], 0)


@each_kind
async def test_a_savepoint_guards_a_statement_that_may_fail(
    store: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()

    async with store.transactions.open(wanted) as transaction:
        handle = transaction.handle
        await insert(handle, 1)
        savepoint = handle.transaction if wanted is asyncpg.Connection else handle.begin_nested
        with pytest.raises((IntegrityError, asyncpg.UniqueViolationError)):
            async with savepoint():
                await insert(handle, 1)
        await insert(handle, 2)
        await transaction.append(given.append(owner, claim))

    assert (await rows(side), await head(store, claim.saga_id)) == ([1, 2], 1)


# ---------------------------------------------------------------------------- ends of its own


async def commit(handle: Any) -> None:
    await handle.commit()


async def rollback(handle: Any) -> None:
    await handle.rollback()


async def commit_beneath(handle: Any) -> None:
    await (await handle.connection()).commit()


async def raw_commit(handle: Any) -> None:
    await run(handle, "COMMIT")


async def raw_rollback(handle: Any) -> None:
    await run(handle, "ROLLBACK")


async def commit_and_begin(handle: Any) -> None:
    await run(handle, "COMMIT")
    await run(handle, "BEGIN")


async def commit_and_begin_at_once(handle: Any) -> None:
    await handle.execute("COMMIT; BEGIN")


ENDS = [
    (AsyncSession, commit, []),
    (AsyncSession, rollback, []),
    (AsyncSession, commit_beneath, [1]),
    (AsyncSession, raw_commit, [1]),
    (AsyncSession, commit_and_begin, [1]),
    (AsyncConnection, commit, [1]),
    (AsyncConnection, rollback, []),
    (AsyncConnection, raw_rollback, []),
    (asyncpg.Connection, raw_commit, [1]),
    (asyncpg.Connection, raw_rollback, []),
    (asyncpg.Connection, commit_and_begin_at_once, [1]),
]


@pytest.mark.parametrize("goes_on", [False, True], ids=["and stops", "and goes on"])
@pytest.mark.parametrize(("wanted", "end", "left"), ENDS)
async def test_a_step_that_ends_its_transaction_is_found_out_and_writes_no_event(
    store: Store,
    given: Given,
    side: Connection,
    wanted: Any,
    end: Callable[[Any], Awaitable[None]],
    left: list[int],
    goes_on: bool,
) -> None:
    """What is left is what the server had committed before anybody could know."""
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            await end(transaction.handle)
            if goes_on and end not in (raw_commit, raw_rollback):
                await insert(transaction.handle, 2)
            await transaction.append(given.append(owner, claim))

    with pytest.raises(InvalidInputError, match="ended its own transaction"):
        await step()

    assert (await rows(side), await head(store, claim.saga_id)) == (left, 0)
    async with store.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 3)
        await transaction.append(given.append(owner, claim))
    assert await rows(side) == [*left, 3]


async def test_what_a_session_still_held_when_it_ended_its_transaction_is_not_written(
    store: Store, given: Given, side: Connection
) -> None:
    [(owner, claim)] = await given.claimed()

    async def step() -> None:
        async with store.transactions.open(AsyncSession) as transaction:
            await run(transaction.handle, "COMMIT")
            transaction.handle.add(Entry(id=1))
            await transaction.append(given.append(owner, claim))

    with pytest.raises(InvalidInputError, match="ended its own transaction"):
        await step()

    assert await rows(side) == []


async def test_a_transaction_takes_one_append(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    async with store.transactions.open(asyncpg.Connection) as transaction:
        await transaction.append(given.append(owner, claim))
        with pytest.raises(InvalidInputError):
            await transaction.append(given.append(owner, claim, head=1))

    assert await head(store, claim.saga_id) == 1
