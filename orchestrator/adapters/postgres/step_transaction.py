"""One open transaction: a handle for the step's own SQL, and the append that ends it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator.adapters.postgres.callers import driver_of
from orchestrator.adapters.postgres.event_store import columns
from orchestrator.adapters.postgres.pool import Connection, Database
from orchestrator.adapters.postgres.statements import sql
from orchestrator.adapters.postgres.trouble import TROUBLE, is_away, reason, unwrapped
from orchestrator.errors import (
    InvalidInputError,
    OwnershipLostError,
    UnavailableError,
    UnknownOutcomeError,
)
from orchestrator.ports import Append

log = logging.getLogger(__name__)

# Checked while it is still the step's own turn, and not under the locks of the append.
_CHECK_NOW = "SET CONSTRAINTS ALL IMMEDIATE"

_ENDED = (
    "the step ended its own transaction; that is left to the orchestrator, and nothing more was "
    "written (to take a part of it back use a savepoint: `begin_nested()`, asyncpg's `transaction()`)"
)
_FAILED = (
    "a statement of the step failed and the step went on, which Postgres does not allow; nothing "
    "was written (guard the statement by a savepoint: `begin_nested()`, asyncpg's `transaction()`)"
)


class StepTransaction(ABC):
    """orchestrator.ports.Transaction."""

    def __init__(self, database: Database, handle: Any, driver: Connection, mark: str) -> None:
        self.handle = handle
        self.driver = driver
        self._database = database
        self._mark = mark
        self._deciding: asyncio.Task[int] | None = None

    async def append(self, append: Append) -> int:
        """As the port says. Cancelling the caller does not cancel it: that is an UnknownOutcomeError.

        Raises InvalidInputError when the step ended the transaction itself, or let a failed
        statement pass. What the step left to be done (a flush, deferred constraints) is done
        first; its errors are the step's own and come out as they are.
        """
        if self.is_lost:
            raise UnavailableError("the connection of the step was lost; nothing was written")
        if self._deciding is not None or not self._is_intact():
            raise InvalidInputError(_ENDED)
        await self._finish_step()
        self._deciding = self._database.section(self._append(append))
        try:
            return await asyncio.shield(self._deciding)
        except asyncio.CancelledError as error:
            raise UnknownOutcomeError(
                f"nobody waited for the commit of saga {append.saga_id}"
            ) from error

    @property
    def is_deciding(self) -> bool:
        """Whether an append is under way that nobody waits for."""
        return self._deciding is not None and not self._deciding.done()

    async def end(self) -> None:
        """Roll back what was not committed; a connection in doubt is thrown away."""
        decided = self._deciding
        if decided is not None:
            await asyncio.wait({decided})
        committed = decided is not None and decided.exception() is None
        try:
            if decided is not None and isinstance(decided.exception(), UnavailableError):
                await self._discard()
            else:
                await self._leave(committed=committed)
        except (SQLAlchemyError, *TROUBLE) as error:
            log.warning("leaving a transaction of %s: %s", self._database.where, reason(error))
            await self._discard()

    def terminate(self) -> None:
        """Cut the connection at once."""
        if not self.is_lost:
            self.driver.terminate()

    async def _finish_step(self) -> None:
        try:
            await self._settle()
        except (SQLAlchemyError, *TROUBLE) as error:
            cause = unwrapped(error)
            if isinstance(cause, asyncpg.InFailedSQLTransactionError):
                raise InvalidInputError(_FAILED) from error
            if self.is_lost or is_away(cause):
                raise UnavailableError(
                    f"the connection of the step was lost: {reason(cause)}; nothing was written"
                ) from error
            raise

    async def _append(self, append: Append) -> int:
        """Until COMMIT is sent every error is a sure no; from then on it may be a yes."""
        with self._database.translated():
            [found] = await self.driver.fetch(sql("enter_append"))
        if found["mark"] != self._mark:
            raise InvalidInputError(_ENDED)
        try:
            with self._database.translated():
                rows = await self.driver.fetch(sql("append_events"), *columns([append]))
        except InvalidInputError as error:
            raise UnavailableError(str(error)) from error
        if not rows:
            raise OwnershipLostError(f"saga {append.saga_id} was refused at epoch {append.epoch}")
        with self._database.translated(), self._database.deciding(), self.unwrapping():
            await self._commit()
        sequence: int = rows[0]["inbox_seq"]
        return sequence

    @staticmethod
    @contextmanager
    def unwrapping() -> Iterator[None]:
        """Let the driver's errors out where SQLAlchemy wrapped them."""
        try:
            yield
        except DBAPIError as error:
            raise unwrapped(error) from error

    @property
    def is_lost(self) -> bool:
        """Whether its connection is gone, and with it all that was not committed."""
        try:
            return self.driver.is_closed()
        except asyncpg.InterfaceError:  # its pool has noticed, and taken it back
            return True

    def _is_intact(self) -> bool:
        """Whether the client's side still knows this transaction; the server's mark decides."""
        return self.driver.is_in_transaction()

    @abstractmethod
    async def _settle(self) -> None:
        """Do what the step left to be done at the commit."""

    @abstractmethod
    async def _commit(self) -> None: ...

    @abstractmethod
    async def _leave(self, *, committed: bool) -> None:
        """Roll back unless committed, and take the handle out of the step's hands."""

    @abstractmethod
    async def _discard(self) -> None:
        """Throw the connection away."""


class DriverTransaction(StepTransaction):
    """With an asyncpg connection of the pool for a handle, which cleans it when it comes back."""

    @classmethod
    async def begin(cls, database: Database, connection: Connection) -> DriverTransaction:
        try:
            made = cls(database, connection, connection, uuid.uuid4().hex)
            await made._transaction.start()
            if (bounds := database.bounds()) is not None:
                await connection.execute(bounds)
            await connection.fetch(sql("mark_transaction"), made._mark)
        except BaseException:
            connection.terminate()
            raise
        return made

    def __init__(self, database: Database, handle: Any, driver: Connection, mark: str) -> None:
        super().__init__(database, handle, driver, mark)
        self._transaction = driver.transaction()

    async def _settle(self) -> None:
        await self.driver.execute(_CHECK_NOW)

    async def _commit(self) -> None:
        await self._transaction.commit()

    async def _leave(self, *, committed: bool) -> None:
        if not committed and not self.is_lost:
            await self._transaction.rollback()

    async def _discard(self) -> None:
        self.terminate()


class AlchemyTransaction(StepTransaction):
    """With an AsyncConnection for a handle, or a session on one."""

    @classmethod
    async def begin(
        cls, database: Database, connection: AsyncConnection, kind: type[AsyncSession] | None
    ) -> AlchemyTransaction:
        mark = uuid.uuid4().hex
        await connection.begin()
        await connection.exec_driver_sql(sql("mark_transaction"), (mark,))
        if (bounds := database.bounds()) is not None:
            # After the first statement, with which SQLAlchemy sends the BEGIN.
            await (await driver_of(connection)).execute(bounds)
        session = None
        if kind is not None:
            # A commit of the session's own stays a matter between the session and the user.
            session = kind(
                bind=connection, join_transaction_mode="rollback_only", expire_on_commit=False
            )
            await session.begin()
        return cls(database, connection, session, await driver_of(connection), mark)

    def __init__(
        self,
        database: Database,
        connection: AsyncConnection,
        session: AsyncSession | None,
        driver: Connection,
        mark: str,
    ) -> None:
        super().__init__(database, connection if session is None else session, driver, mark)
        self._connection = connection
        self._session = session
        self._begun = None if session is None else session.sync_session.get_transaction()

    def _is_intact(self) -> bool:
        session = self._session
        if session is not None and session.sync_session.get_transaction() is not self._begun:
            return False
        return super()._is_intact()

    async def _settle(self) -> None:
        if self._session is not None:
            await self._session.flush()
        await self._connection.exec_driver_sql(_CHECK_NOW)

    async def _commit(self) -> None:
        await self._connection.commit()

    async def _leave(self, *, committed: bool) -> None:
        if self._session is not None:
            await self._session.close()
        if not committed:
            await self._connection.rollback()
        if not self._database.pooled:
            # The pool would leave the settings and the locks of this step to the next.
            await self.driver.reset(timeout=self._database.settings.command_timeout)

    async def _discard(self) -> None:
        self.terminate()
        await self._connection.invalidate()
