"""Stores over Postgres alone, and connections of a test's own beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from orchestrator.adapters.postgres.pool import Connection
from orchestrator.adapters.postgres.store import open_store
from orchestrator.ports import Store
from tests.adapters.postgres.stepping import LEDGER
from tests.contract.given import Given


@pytest.fixture
async def store(any_dsn: str) -> AsyncIterator[Store]:
    """A store as one process has it."""
    async with open_store(any_dsn) as found:
        yield found


@pytest.fixture
def given(store: Store) -> Given:
    """What tests need first: a worker, requests, claims."""
    return Given(store)


@pytest.fixture
async def ledger(side: Connection) -> None:
    """A table that belongs to the user."""
    await side.execute(LEDGER)


@pytest.fixture
async def side(any_dsn: str) -> AsyncIterator[Connection]:
    """A connection beside the store's own, without any time-out."""
    connection = await asyncpg.connect(any_dsn)
    yield connection
    await connection.close()
