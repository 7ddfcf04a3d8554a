"""The log takes inserts and nothing else."""

from __future__ import annotations

import asyncpg
import pytest

from orchestrator.domain.events import Status
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection
from tests.contract.given import Given


async def partition(side: Connection) -> str:
    """The partition that holds the event of the test."""
    name: str = await side.fetchval("SELECT tableoid::regclass::text FROM event")
    return name


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET data = '{{}}'",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "UPDATE {} SET position = position + 1",
    ],
)
async def test_an_event_is_neither_changed_nor_removed(
    store: Store, given: Given, side: Connection, statement: str
) -> None:
    saga_id = await given.at_rest(Status.COMPLETED)
    for table in ("event", await partition(side)):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await side.execute(statement.format(table))

    assert len(await store.events.read(saga_id)) == 1


async def test_retention_may_delete_but_not_change(
    store: Store, given: Given, side: Connection
) -> None:
    saga_id = await given.at_rest(Status.COMPLETED)
    await side.execute("SET saga.retention = 'on'")

    with pytest.raises(asyncpg.RestrictViolationError):
        await side.execute("UPDATE event SET data = '{}'")
    await side.execute("DELETE FROM event")

    assert await store.events.read(saga_id) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE saga SET status = 'lost'",
        "UPDATE saga SET status = 'completed'",
        "UPDATE saga SET inbox_seen = inbox_seq + 1",
        "UPDATE saga SET head = -1",
        "UPDATE saga SET tags = '[]'",
    ],
)
async def test_the_database_refuses_what_the_code_should_never_do(
    given: Given, side: Connection, statement: str
) -> None:
    await given.claimed()

    with pytest.raises(asyncpg.CheckViolationError):
        await side.execute(statement)


async def test_a_hash_has_32_bytes(given: Given, side: Connection) -> None:
    [saga_id] = await given.started()

    with pytest.raises(asyncpg.CheckViolationError, match="ck_event_hash"):
        await side.execute(
            "INSERT INTO event VALUES ($1, 1, default, 'T', '', 1, 1, '{}', '{}', now(), 'short')",
            saga_id,
        )
