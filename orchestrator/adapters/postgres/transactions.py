"""Transactions in which a step's own SQL and the event that says so are written together."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from orchestrator.adapters.postgres.pool import Database, Pool
from orchestrator.adapters.postgres.pooler import engine_arguments
from orchestrator.adapters.postgres.step_transaction import (
    AlchemyTransaction,
    DriverTransaction,
    StepTransaction,
)
from orchestrator.adapters.postgres.trouble import TROUBLE, reason, unwrapped
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import Transaction

_Begin = Callable[[AsyncExitStack], Awaitable[StepTransaction]]
"""Begins a transaction; what gives its connection back goes on the stack."""


class PostgresTransactions:
    """orchestrator.ports.Transactions, on connections of their own, made when first wanted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = asyncio.Semaphore(database.settings.transactions)
        self._making = asyncio.Lock()
        self._pool: Pool | None = None
        self._engine: AsyncEngine | None = None
        self._lent: set[StepTransaction] = set()
        self._closed = False

    def open(self, wanted: Any) -> AbstractAsyncContextManager[Transaction]:
        """As the port says; *wanted* is AsyncSession (or a subclass), AsyncConnection, or asyncpg's
        Connection. Waits for its turn when as many as `settings.transactions` are open.

        A commit of the session's own reaches the server only with the append; ORM events of a
        commit are not fired.
        """
        kind = typing.get_origin(wanted) or wanted
        if kind in (asyncpg.Connection, PoolConnectionProxy):
            return self._lend(self._begin_driver)
        if kind is AsyncConnection:
            return self._lend(partial(self._begin_alchemy, None))
        if isinstance(kind, type) and issubclass(kind, AsyncSession):
            return self._lend(partial(self._begin_alchemy, kind))
        raise InvalidInputError(
            "a transactional step gets an SQLAlchemy AsyncSession or AsyncConnection, or an asyncpg "
            f"Connection; there is no {getattr(wanted, '__qualname__', wanted)} to give"
        )

    async def close(self) -> None:
        """Let every connection go, within a few seconds; what commits now is waited for."""
        self._closed = True
        await self._database.settle()
        for lent in tuple(self._lent):
            lent.terminate()
        if self._pool is not None:
            await self._database.let_go(self._pool)
        if self._engine is not None:
            disposing = asyncio.ensure_future(self._engine.dispose())
            await asyncio.wait({disposing}, timeout=2.0)

    @asynccontextmanager
    async def _lend(self, begin: _Begin) -> AsyncIterator[StepTransaction]:
        stack = AsyncExitStack()
        lent: StepTransaction | None = None
        try:
            await self._turns.acquire()
            stack.callback(self._turns.release)
            with self._database.translated(), StepTransaction.unwrapping():
                lent = await begin(stack)
            self._lent.add(lent)
            yield lent
        except (SQLAlchemyError, *TROUBLE) as error:
            if lent is not None and lent.is_lost and isinstance(unwrapped(error), TROUBLE):
                raise UnavailableError(
                    f"the connection of the step was lost: {reason(error)}; nothing was written"
                ) from error
            raise
        finally:
            # A section: nobody's cancellation may leave a transaction open, or a turn taken.
            ending = self._database.section(self._take_back(lent, stack))
            if lent is None or not lent.is_deciding:
                await asyncio.shield(ending)

    async def _take_back(self, lent: StepTransaction | None, stack: AsyncExitStack) -> None:
        try:
            if lent is not None:
                await lent.end()
        finally:
            await stack.aclose()
            self._lent.discard(lent)

    # ------------------------------------------------------------------ the two kinds

    async def _begin_driver(self, stack: AsyncExitStack) -> StepTransaction:
        pool = await self._made_pool()
        connection: Any = await pool.acquire()
        limit = self._database.settings.command_timeout
        stack.push_async_callback(pool.release, connection, timeout=limit)
        return await DriverTransaction.begin(self._database, connection)

    async def _begin_alchemy(
        self, kind: type[AsyncSession] | None, stack: AsyncExitStack
    ) -> StepTransaction:
        connection = await self._made_engine().connect()
        stack.push_async_callback(connection.close)
        return await AlchemyTransaction.begin(self._database, connection, kind)

    async def _made_pool(self) -> Pool:
        async with self._making:
            self._check_open()
            if self._pool is None:
                options = self._database.options("transaction")
                if self._database.pooled:
                    options["reset"] = _leave
                pool = asyncpg.create_pool(
                    self._database.dsn,
                    min_size=0,
                    max_size=self._database.settings.transactions,
                    **options,
                )
                await pool
                self._pool = pool
            return self._pool

    def _made_engine(self) -> AsyncEngine:
        self._check_open()
        if self._engine is None:
            connect = partial(self._database.connect, "transaction")
            self._engine = create_async_engine(
                "postgresql+asyncpg://",
                connect_args=engine_arguments(connect, pooled=self._database.pooled),
                pool_size=self._database.settings.transactions,
                max_overflow=0,
            )
            event.listen(self._engine.sync_engine, "checkout", _is_there)
        return self._engine

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"the transactions with {self._database.where} are closed")


async def _leave(_: object) -> None:
    """The session behind a pooler is another one with each transaction: not ours to clean."""


def _is_there(connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool open another connection where this one was lost while it lay there."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the connection was lost")
