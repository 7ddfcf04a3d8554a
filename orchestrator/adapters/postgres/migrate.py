"""Bring a schema up or down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from orchestrator.adapters.postgres.callers import driver_of
from orchestrator.adapters.postgres.partitions import ensure_partitions
from orchestrator.adapters.postgres.pooler import engine_arguments, is_between
from orchestrator.adapters.postgres.schema import VERSION_TABLE, scripts
from orchestrator.adapters.postgres.tables import metadata
from orchestrator.adapters.postgres.trouble import TROUBLE, reason, unwrapped, where
from orchestrator.errors import SchemaError, UnavailableError

_ALONE = text("SELECT pg_advisory_lock(hashtext('saga'), hashtext('migrate'))")
_ALONE_THERE = text("SELECT pg_advisory_xact_lock(hashtext('saga'), hashtext('migrate'))")
_PATIENT = text("SET LOCAL idle_in_transaction_session_timeout = 0")


def upgrade(dsn: str, revision: str = "head") -> None:
    """Migrate up to *revision* and make the coming months' partitions.

    Of several that migrate at once one does the work and the others wait for it. Raises
    UnavailableError, or SchemaError when the database is newer than this code.
    """

    async def work(connection: AsyncConnection) -> None:
        await connection.run_sync(_alembic, partial(command.upgrade, revision=revision))
        await connection.commit()
        await ensure_partitions(await driver_of(connection))

    _on(dsn, work)


def downgrade(dsn: str, revision: str) -> None:
    """Migrate down to *revision*; `base` removes everything."""

    async def work(connection: AsyncConnection) -> None:
        await connection.run_sync(_alembic, partial(command.downgrade, revision=revision))
        await connection.commit()

    _on(dsn, work)


def current(dsn: str) -> str | None:
    """The revision that the database is at; None when it was never migrated."""
    found: list[str | None] = []
    on_database(dsn, lambda connection: found.append(_revision_of(connection)), alone=False)
    return found[0]


def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Whether Alembic should look at a table: not at partitions, nor at other people's tables."""
    return kind != "table" or name in metadata.tables


def same_default(
    _context: Any,
    _inspected: Any,
    _column: Any,
    stored: str | None,
    _default: Any,
    rendered: str | None,
) -> bool | None:
    """Whether a default differs, for Alembic: left to itself it would draw positions to see."""
    return False if stored == rendered else None


def on_database(dsn: str, work: Callable[[SyncConnection], None], *, alone: bool = True) -> None:
    """Run *work* over a connection to *dsn*, from any thread, whether or not a loop runs in it."""

    async def run(connection: AsyncConnection) -> None:
        await connection.run_sync(work)
        await connection.commit()

    _on(dsn, run, alone=alone)


def _on(dsn: str, work: Callable[[AsyncConnection], Any], *, alone: bool = True) -> None:
    async def run() -> None:
        connect = partial(asyncpg.connect, _plain(dsn), timeout=5.0, statement_cache_size=0)
        pooled = await is_between(_plain(dsn), {"timeout": 5.0})
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args=engine_arguments(connect, pooled=pooled),
            poolclass=NullPool,
        )
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(engine.connect())
            if alone and pooled:
                # A lock of a session would stay with whoever gets that session next.
                guard = await stack.enter_async_context(engine.connect())
                await guard.execute(_PATIENT)
                await guard.execute(_ALONE_THERE)
            elif alone:
                await connection.execute(_ALONE)
                await connection.commit()
            await work(connection)

    try:
        with ThreadPoolExecutor(1, "migrate") as thread:
            thread.submit(asyncio.run, run()).result()
    except CommandError as error:
        raise SchemaError(
            f"{where(dsn)}: {error}; is the database newer than this package? Then upgrade it"
        ) from error
    except (DBAPIError, *TROUBLE) as error:
        cause = unwrapped(error)
        if not isinstance(cause, TROUBLE):
            raise
        raise UnavailableError(
            f"cannot migrate {where(dsn)}: {reason(cause)}; is the server up, and "
            "is SAGA_DATABASE_URL right?"
        ) from error


def _alembic(connection: SyncConnection, act: Callable[[Config], None]) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    act(config)


def _revision_of(connection: SyncConnection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _plain(dsn: str) -> str:
    scheme, colon, rest = dsn.partition("://")
    return f"{scheme.split('+')[0]}{colon}{rest}"
