"""One store after the other: what holds for one of them must hold for all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orchestrator.adapters import memory
from orchestrator.adapters.postgres.store import open_store
from orchestrator.ports import Store
from tests.contract.given import Given


@pytest.fixture(
    params=["memory", "dsn", "pg15_dsn", "pooled_dsn"],
    ids=["memory", "postgres18", "postgres15", "pgbouncer"],
)
def place(request: pytest.FixtureRequest) -> memory.MemoryDatabase | str:
    """A database: an object in memory, or a DSN."""
    if request.param == "memory":
        return memory.MemoryDatabase()
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def store(place: memory.MemoryDatabase | str) -> AsyncIterator[Store]:
    """A store as one process has it."""
    if isinstance(place, str):
        async with open_store(place) as found:
            yield found
    else:
        async with memory.open_store(database=place) as found:
            yield found


@pytest.fixture
async def other(place: memory.MemoryDatabase | str) -> AsyncIterator[Store]:
    """A store of another process over the same database."""
    if isinstance(place, str):
        async with open_store(place) as found:
            yield found
    else:
        async with memory.open_store(database=place) as found:
            yield found


@pytest.fixture
async def given(store: Store) -> Given:
    """What tests need first: a worker, requests, claims."""
    return Given(store)
