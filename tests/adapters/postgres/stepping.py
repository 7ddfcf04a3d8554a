"""What tests of transactional steps share: the kinds of handles, and a table of a user's own."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from sqlalchemy import Text, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection

KINDS = [AsyncSession, AsyncConnection, asyncpg.Connection]
each_kind = pytest.mark.parametrize("wanted", KINDS, ids=["session", "connection", "asyncpg"])

LEDGER = """
CREATE TABLE ledger (
    id int PRIMARY KEY,
    note text,
    above int REFERENCES ledger (id) DEFERRABLE INITIALLY DEFERRED
)
"""
KILL_STEPS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'saga transaction'"
)


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "ledger"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None] = mapped_column(Text)
    above: Mapped[int | None]


async def run(handle: Any, statement: str) -> None:
    """A statement, by whatever a step was given."""
    if isinstance(handle, AsyncSession | AsyncConnection):
        await handle.execute(text(statement))
    else:
        await handle.execute(statement)


async def insert(handle: Any, id_: int, above: str = "NULL") -> None:
    """A row of the ledger."""
    await run(handle, f"INSERT INTO ledger VALUES ({id_}, 'step', {above})")


async def rows(side: Connection) -> list[int]:
    """The ledger, as others see it."""
    return [row["id"] for row in await side.fetch("SELECT id FROM ledger ORDER BY id")]


async def head(store: Store, saga_id: str) -> int:
    """How many events there are."""
    return len(await store.events.read(saga_id))
