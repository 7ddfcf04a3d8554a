"""A participant's book: what became of each command, in one transaction with its effect."""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from orchestrator.adapters.postgres.callers import driver_of
from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings
from orchestrator.adapters.postgres.pooler import engine_arguments
from orchestrator.adapters.postgres.statements import sql
from orchestrator.adapters.postgres.trouble import TROUBLE, in_our_words, unwrapped
from orchestrator.errors import InvalidInputError

_SPARE = 5.0

_BUSY = ("40", "53")
"""Deadlocks and conflicts of transactions, and a server that is short of something."""

_CREATING = 5_417_000
"""The advisory lock under which the table is made: two at once would trip over each other."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a command. `answer` is JSON text: its output, or its failure.

    `done` and `void` hold for good, the others for what was sent up to `number`; `in_doubt` says
    that its handler does not know what it did elsewhere, on that attempt or an earlier one.
    """

    standing: str
    number: int
    answer: str | None = None


class Page:
    """One open transaction, with the turn of a command in hand."""

    def __init__(self, connection: AsyncConnection, driver: Connection) -> None:
        self._connection = connection
        self._driver = driver

    async def read(self, command_id: str) -> Entry | None:
        rows = await self._driver.fetch(sql("read_command"), command_id)
        return Entry(rows[0]["standing"], rows[0]["number"], rows[0]["answer"]) if rows else None

    async def write(self, command_id: str, command: str, entry: Entry) -> None:
        await self._driver.execute(
            sql("write_command"), command_id, command, entry.standing, entry.number, entry.answer
        )

    @property
    def was_ended(self) -> bool:
        """Whether a handler ended the transaction: what it wrote may be committed."""
        return not self._driver.is_closed() and not self._driver.is_in_transaction()

    @staticmethod
    def is_busy(error: Exception) -> bool:
        """Whether the database, and not the handler, is at fault: do it again."""
        cause = unwrapped(error)
        return isinstance(cause, asyncpg.PostgresError) and (cause.sqlstate or "")[:2] in _BUSY

    async def drop(self) -> None:
        """Throw the connection away: nothing of this transaction is ever committed."""
        await self._connection.invalidate()

    @asynccontextmanager
    async def effect(self, wanted: Any) -> AsyncIterator[tuple[Any, ...]]:
        """The handle for a handler's own SQL, if it wants one; undone alone when it raises."""
        async with self._connection.begin_nested():
            if wanted is None:
                yield ()
            elif (kind := typing.get_origin(wanted) or wanted) is AsyncConnection:
                yield (self._connection,)
            elif isinstance(kind, type) and issubclass(kind, AsyncSession):
                async with kind(
                    bind=self._connection, join_transaction_mode="create_savepoint"
                ) as session:
                    yield (session,)
                    await session.commit()
            else:
                yield (self._driver,)
            # What is checked at the end is checked while it is still the handler's own fault.
            await self._connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


class CommandBook:
    """The book in one database; its table is made when it is missing."""

    def __init__(self, dsn: str, *, size: int = 10, timeout: float = 30.0) -> None:
        # The server must not end the transaction of a handler that still has time.
        settings = PostgresSettings(
            application_name="participant",
            command_timeout=timeout + _SPARE,
            lock_timeout=timeout + _SPARE,
            idle_in_transaction_timeout=timeout + _SPARE,
        )
        self._database = Database(dsn, settings)
        self._size = size
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Make sure of the table. UnavailableError when the database cannot be reached."""
        await self._database.look_for_pooler(aloud=False)
        connect = partial(self._database.connect, "commands")
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args=engine_arguments(connect, pooled=self._database.pooled),
            pool_size=self._size,
            max_overflow=0,
            pool_pre_ping=True,
        )
        async with self._begun() as (_, driver):
            if await driver.fetchval("SELECT to_regclass('participant_command')") is not None:
                return  # to make it "if not exists" takes the right to make tables
            await driver.execute("SELECT pg_advisory_xact_lock($1)", _CREATING)
            await driver.execute(sql("create_commands"))

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    @asynccontextmanager
    async def page(self, *command_ids: str) -> AsyncIterator[Page]:
        """A transaction in the turns of *command_ids*, which are waited for; committed at the end."""
        async with self._begun() as (connection, driver):
            for command_id in command_ids:
                await driver.execute(sql("take_turn"), command_id)
            yield Page(connection, driver)

    @asynccontextmanager
    async def page_if_free(self, command_id: str) -> AsyncIterator[Page | None]:
        """As `page`; None while somebody else has the turn."""
        async with self._begun() as (connection, driver):
            [found] = await driver.fetch(sql("try_turn"), command_id)
            yield Page(connection, driver) if found["had"] else None

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[tuple[AsyncConnection, Connection]]:
        """One transaction; the world's errors come out in our words."""
        if self._engine is None:
            raise RuntimeError("the book is not open")
        try:
            async with self._engine.begin() as connection:
                # SQLAlchemy puts the BEGIN off until the first statement of its own.
                await connection.exec_driver_sql("SELECT 1")
                driver = await driver_of(connection)
                if (bounds := self._database.bounds()) is not None:
                    await driver.execute(bounds)
                yield connection, driver
        except (SQLAlchemyError, *TROUBLE) as error:
            raise in_our_words(unwrapped(error), self._database.where) from error


def is_handle(wanted: Any) -> bool:
    """Whether a handler can be given what its third parameter is annotated as."""
    kind = typing.get_origin(wanted) or wanted
    if not isinstance(kind, type):
        raise InvalidInputError(f"{wanted!r} is no type of a database handle")
    return issubclass(kind, AsyncSession | AsyncConnection | asyncpg.Connection)
