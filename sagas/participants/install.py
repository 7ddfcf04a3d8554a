"""Put the participants' schema into the database."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import asyncpg

DDL = files("sagas.participants").joinpath("schema.sql").read_text("utf-8")
STAMP = "participants " + hashlib.sha256(DDL.encode()).hexdigest()
INSTALLED = "SELECT obj_description(to_regnamespace('participants'), 'pg_namespace')"
LOCK = 7_275_011_964_120


async def install(pool: asyncpg.Pool) -> None:
    """Create what is missing. Processes that do it at once wait for the first one."""
    async with pool.acquire() as connection, connection.transaction():
        await lock(connection)
        await create(connection)


async def create(connection: asyncpg.pool.PoolConnectionProxy) -> bool:
    """Create what is missing, under the lock; whether anything was."""
    # DDL locks tables even where it has nothing to do: sagas should not feel that one more worker starts.
    if await connection.fetchval(INSTALLED) == STAMP:
        return False
    await connection.execute(DDL)
    await connection.execute(f"COMMENT ON SCHEMA participants IS '{STAMP}'")
    return True


async def lock(connection: asyncpg.pool.PoolConnectionProxy) -> None:
    """Be the only one who installs or seeds, until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
