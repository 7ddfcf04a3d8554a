"""The connections of transactional steps: few, bounded, clean, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import (
    UnavailableError,
)
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection, waits_for_lock
from tests.adapters.postgres.stepping import (
    KILL_STEPS,
    KINDS,
    each_kind,
    insert,
    rows,
    run,
)
from tests.contract.given import Given

pytestmark = pytest.mark.usefixtures("ledger")


@pytest.fixture
async def narrow(any_dsn: str) -> AsyncIterator[Store]:
    """A store with room for one transactional step at a time."""
    async with open_store(any_dsn, settings=PostgresSettings(transactions=1)) as found:
        yield found


@each_kind
async def test_a_step_waits_for_its_turn_when_all_connections_are_taken(
    narrow: Store, wanted: Any
) -> None:
    entered = asyncio.Event()

    async def second() -> None:
        async with narrow.transactions.open(asyncpg.Connection):
            entered.set()

    async with narrow.transactions.open(wanted) as first:
        waiting = asyncio.create_task(second())
        await run(first.handle, "SELECT 1")
        assert not entered.is_set()
    await asyncio.wait_for(waiting, 5)


@each_kind
async def test_a_step_leaves_neither_settings_nor_locks_to_the_next(
    narrow: Store, side: Connection, wanted: Any
) -> None:
    async with narrow.transactions.open(wanted) as transaction:
        await run(transaction.handle, "SET search_path = nowhere")
        await run(transaction.handle, "SELECT pg_advisory_lock(5)")

    async with narrow.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 1)
        assert await side.fetchval("SELECT pg_try_advisory_lock(5)")


@each_kind
async def test_every_statement_of_a_step_is_bounded(narrow: Store, wanted: Any) -> None:
    async with narrow.transactions.open(wanted) as transaction:
        handle = transaction.handle
        for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            statement = f"SELECT current_setting('{setting}')"
            if wanted is asyncpg.Connection:
                found = await handle.fetchval(statement)
            else:
                found = (await handle.execute(text(statement))).scalar_one()
            assert found not in ("0", "")


@each_kind
async def test_connections_that_were_ended_between_two_steps_are_opened_anew(
    narrow: Store, given: Given, side: Connection, wanted: Any
) -> None:
    [(owner, claim)] = await given.claimed()
    async with narrow.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 1)
    await side.execute(KILL_STEPS)

    async def goes_on() -> bool:
        try:
            async with narrow.transactions.open(wanted) as transaction:
                await insert(transaction.handle, 2)
                await transaction.append(given.append(owner, claim))
        except UnavailableError:
            return False
        return True

    assert await goes_on() or await goes_on()
    assert await rows(side) == [2]


@each_kind
async def test_a_step_that_was_abandoned_does_not_keep_its_transaction(
    narrow: Store, side: Connection, wanted: Any
) -> None:
    async with side.transaction():
        await side.execute("SELECT pg_advisory_xact_lock(7)")
        async with narrow.transactions.open(wanted) as transaction:
            await insert(transaction.handle, 1)
            abandoned = asyncio.create_task(
                run(transaction.handle, "SELECT pg_advisory_xact_lock(7)")
            )
            await waits_for_lock(side)
    results = await asyncio.gather(abandoned, return_exceptions=True)

    assert isinstance(results[0], Exception)
    async with asyncio.timeout(5), narrow.transactions.open(wanted) as transaction:
        await insert(transaction.handle, 1)
    assert await rows(side) == []


async def test_a_closed_store_opens_no_transaction(any_dsn: str) -> None:
    async with open_store(any_dsn) as store:
        transactions = store.transactions

    for wanted in KINDS:
        opening = transactions.open(wanted)
        with pytest.raises(UnavailableError, match="closed"):
            await opening.__aenter__()
