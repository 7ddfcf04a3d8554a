"""Connections beside a store's own, and what tests do with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings
from tests.contract.given import eventually

__all__ = ["Connection", "open_database", "waits_for_lock"]


@asynccontextmanager
async def open_database(dsn: str) -> AsyncIterator[Database]:
    """Connections with the settings of the store's own."""
    database = Database(dsn, PostgresSettings())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def waits_for_lock(connection: Connection) -> None:
    """Until some other session of this database waits for a lock."""

    async def look() -> bool:
        # Within one transaction the server would tell again what it told the first time.
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    await eventually(look, every=0.01)
