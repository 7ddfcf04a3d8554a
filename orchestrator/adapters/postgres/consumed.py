"""Events taken in with their effects: the position of each saga in the handler's own transaction."""

from __future__ import annotations

import asyncio
import json
import logging
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)

from orchestrator.adapters.postgres.callers import driver_of
from orchestrator.adapters.postgres.passed_events import Passed, PassedEvents
from orchestrator.adapters.postgres.statements import sql
from orchestrator.adapters.postgres.trouble import TROUBLE, in_our_words, is_away, unwrapped, where
from orchestrator.errors import GapError, InvalidInputError, UnavailableError
from orchestrator.ports import Record

log = logging.getLogger(__name__)

_CHECK_NOW = "SET CONSTRAINTS ALL IMMEDIATE"
"""Also fails where a statement failed before and the handler went on: its commit would be none."""

_DROP_AFTER = 2.0
"""Seconds that a handler gets to end when it is called away; then it loses its connection."""

_REASON_LIMIT = 2_000
"""Characters of the reason that are kept."""

ConsumerDatabase = str | AsyncEngine
"""A URL, or an engine of the caller's."""

Run = Callable[["Effects"], Awaitable[None]]
"""Runs the handlers of an event, with what they may write to."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that was set aside, with the reason."""

    saga_id: str
    version: int
    reason: str
    parked_at: datetime
    place: str


class HandlerError(Exception):
    """A handler failed; `error` is what it raised. Nothing was written."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Effects:
    """One open transaction, as each handler wants it: a session, or a connection."""

    def __init__(self, connection: AsyncConnection, driver: Any) -> None:
        self.connection = connection
        self.driver = driver
        self._sessions: dict[type[AsyncSession], AsyncSession] = {}

    def of(self, kind: Any) -> Any:
        """The transaction as *kind*; None for a handler that wants none."""
        if kind is None:
            return None
        if kind is AsyncConnection:
            return self.connection
        if not issubclass(kind, AsyncSession):
            return self.driver
        if kind not in self._sessions:
            # A commit or rollback of the session's own does not reach the server.
            self._sessions[kind] = kind(
                bind=self.connection, join_transaction_mode="rollback_only", expire_on_commit=False
            )
        return self._sessions[kind]

    async def settle(self) -> None:
        """Write what is still in the sessions, and have everything checked that can be."""
        for session in self._sessions.values():
            await session.flush()
        if not self.driver.is_in_transaction():
            raise InvalidInputError("the handler ended the transaction; that is left to us")
        await self.connection.exec_driver_sql(_CHECK_NOW)

    async def close(self) -> None:
        """Let the sessions go."""
        for session in self._sessions.values():
            await session.close()

    async def roll_back(self) -> None:
        """Take everything back; a connection that does not answer is thrown away."""
        try:
            if not self.driver.is_closed():
                await self.connection.rollback()
                return
        except (SQLAlchemyError, *TROUBLE) as error:
            log.warning("a handler's transaction was not rolled back in order: %r", error)
        await self.connection.invalidate()


def handle_kind(annotation: Any) -> Any:
    """What a handler's second parameter asks for. InvalidInputError when we have no such thing."""
    if annotation is None or annotation is Any:
        return AsyncSession
    kind = typing.get_origin(annotation) or annotation
    if kind in (asyncpg.Connection, PoolConnectionProxy, AsyncConnection):
        return kind
    if isinstance(kind, type) and issubclass(kind, AsyncSession):
        return kind
    raise InvalidInputError(
        "a handler's second parameter is an SQLAlchemy AsyncSession or AsyncConnection, or an "
        f"asyncpg Connection; there is no {getattr(kind, '__qualname__', kind)} to give"
    )


class ConsumedEvents:
    """What one group has taken in. `close` lets go of an engine of our own only."""

    def __init__(
        self, database: ConsumerDatabase, group: str, *, connections: int, timeout: float
    ) -> None:
        self.group = group
        self._timeout = timeout
        self._own = isinstance(database, str)
        self._engine = _engine(database, connections, timeout) if isinstance(database, str) else database  # fmt: skip
        self._passed = {
            from_middle: PassedEvents(partial(self._write_passed, from_middle=from_middle))
            for from_middle in (False, True)
        }
        self._where = where(str(self._engine.url.render_as_string(hide_password=True)))

    async def take(
        self, saga_id: str, version: int, record: Record, run: Run, *, from_middle: bool
    ) -> bool:
        """Run the handlers and commit, together with the position; False for a repeat.

        An event behind one that is parked is parked too. Raises GapError, UnavailableError, or
        HandlerError; then nothing was written.
        """
        async with self._transaction() as effects:
            arrived = (saga_id, version, record)
            found = await self._enter(effects.connection, *arrived, from_middle=from_middle)
            if found is None:
                return False
            if found:
                text = "an earlier event of this saga is parked"
                await self._park(effects.connection, *arrived, text)
            else:
                await self._run(run, effects)
        return True

    async def pass_over(
        self, saga_id: str, version: int, record: Record, *, from_middle: bool
    ) -> bool:
        """Count an event that nobody handles, with others at once; False where `take` has to look."""
        passed = self._passed[from_middle]
        return await passed.add(Passed(saga_id, version, record))

    async def _write_passed(self, events: Sequence[Passed], *, from_middle: bool) -> set[str]:
        records = [event.record for event in events]
        values = (
            self.group, [event.saga_id for event in events], [event.version for event in events],
            [record.topic for record in records], [record.partition for record in records],
            [record.offset for record in records], from_middle,
        )  # fmt: skip
        async with self._transaction() as effects:
            written = await effects.connection.exec_driver_sql(sql("pass_events"), values)
            return set(written.scalars())

    async def park(
        self, saga_id: str, version: int, record: Record, why: str, *, from_middle: bool
    ) -> None:
        """Set an event aside: all that follow in its saga are set aside, too."""
        async with self._transaction() as effects:
            arrived = (saga_id, version, record)
            found = await self._enter(effects.connection, *arrived, from_middle=from_middle)
            if found is not None:
                await self._park(effects.connection, *arrived, why)

    async def replay(self, saga_id: str, run: Callable[[Record, Effects], Awaitable[None]]) -> bool:
        """Run the handlers on the first parked event of a saga; False when there is none.

        Raises what they raise; then it stays parked.
        """
        try:
            async with self._transaction() as effects:
                fetch = effects.connection.exec_driver_sql
                await fetch(sql("lock_consumed"), (self.group, saga_id))
                found = await fetch(sql("read_parked_event"), (self.group, saga_id))
                if (row := found.mappings().first()) is None:
                    return False
                await self._run(lambda given: run(_record(saga_id, row), given), effects)
                await fetch(sql("unpark_event"), (self.group, saga_id, row["version"]))
        except HandlerError as failed:
            raise failed.error from failed
        return True

    async def parked(self) -> list[ParkedEvent]:
        """All that is set aside."""
        async with self._transaction() as effects:
            found = await effects.connection.exec_driver_sql(
                sql("list_parked_events"), (self.group,)
            )
            return [
                ParkedEvent(
                    row["saga_id"], row["version"], row["reason"], row["parked_at"],
                    f"{row['topic']}/{row['partition']}/{row['offset']}",
                )
                for row in found.mappings()
            ]  # fmt: skip

    async def accept_gap(self, saga_id: str, version: int) -> bool:
        """Let a saga go on with *version*; False when it is further already."""
        if not 0 < version < 2**63:
            raise InvalidInputError(f"no saga has a version {version}; versions count from 1")
        async with self._transaction() as effects:
            found = await effects.connection.exec_driver_sql(
                sql("accept_gap"), (self.group, saga_id, version)
            )
            return found.first() is not None

    async def close(self) -> None:
        """Let go of the database, within a few seconds."""
        for passed in self._passed.values():
            await passed.close()
        if self._own:
            disposing = asyncio.ensure_future(self._engine.dispose())
            await asyncio.wait({disposing}, timeout=_DROP_AFTER)

    # ------------------------------------------------------------------ one transaction

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Effects]:
        """Committed at the end of the block; rolled back by any error."""
        try:
            async with self._engine.connect() as connection:
                transaction = await connection.begin()
                effects = Effects(connection, await driver_of(connection))
                try:
                    yield effects
                    await effects.close()
                    await transaction.commit()
                except BaseException:
                    await effects.roll_back()
                    raise
        except (SQLAlchemyError, *TROUBLE) as error:
            raise _in_our_words(error, self._where) from error

    async def _run(self, run: Run, effects: Effects) -> None:
        """Run the handlers within their time; one that does not end loses its connection."""
        task = asyncio.ensure_future(run(effects))
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        finally:
            late = await _call_away(task, effects)
        if late:
            text = f"the handler took longer than {self._timeout:g} s"
            raise HandlerError(TimeoutError(text))
        try:
            result_of(task)
            await effects.settle()
        except UnavailableError:
            raise
        except Exception as error:
            if _is_the_databases(error, effects):
                raise _in_our_words(error, self._where) from error
            raise HandlerError(error) from error

    async def _enter(
        self,
        connection: AsyncConnection,
        saga_id: str,
        version: int,
        record: Record,
        *,
        from_middle: bool,
    ) -> bool | None:
        """Whether the saga is parked; None for a repeat."""
        place = (record.topic, record.partition, record.offset)
        entered = await connection.exec_driver_sql(
            sql("enter_consumed"), (self.group, saga_id, version, *place, from_middle)
        )
        if (row := entered.first()) is not None:
            return bool(row[0])
        found = await connection.exec_driver_sql(sql("read_consumed"), (self.group, saga_id))
        last = found.scalar()
        if last is not None and version <= last:
            return None
        raise gap(saga_id, last or 0, version, record)

    async def _park(
        self, connection: AsyncConnection, saga_id: str, version: int, record: Record, why: str
    ) -> None:
        headers = [[name, value.decode("utf-8", "replace")] for name, value in record.headers]
        reason = why[:_REASON_LIMIT].replace("\0", "\\0").encode("utf-8", "replace").decode()
        await connection.exec_driver_sql(
            sql("park_event"),
            (
                self.group, saga_id, version, record.topic, record.partition, record.offset,
                record.timestamp, record.value or b"", json.dumps(headers), reason,
            ),
        )  # fmt: skip


def gap(saga_id: str, last: int, version: int, record: Record) -> GapError:
    """The error that says what is missing, where, and what to do."""
    known = f"after version {last}" if last else "of which nothing was taken in before"
    return GapError(
        f"saga {saga_id}, {known}, comes with version {version} at {record.place}: version "
        f"{last + 1} is missing. Nothing is skipped; read from further back, or accept the gap",
        saga_id,
        last + 1,
        version,
    )


async def create_tables(database: ConsumerDatabase) -> None:
    """Make the two tables of a consumer, `saga_consumed` and `saga_parked`, unless they are there.

    To have your own migrations make them, copy the statements of `consumer_tables()`.
    """
    engine = _engine(database, 1, 30.0) if isinstance(database, str) else database
    try:
        async with engine.begin() as connection:
            for statement in consumer_tables():
                await connection.exec_driver_sql(statement)
    finally:
        if isinstance(database, str):
            await engine.dispose()


def consumer_tables() -> Sequence[str]:
    """The statements that make the tables."""
    text = "\n".join(
        line for line in sql("create_consumed").splitlines() if not line.startswith("--")
    )
    return [part.strip() for part in text.split(";") if part.strip()]


def result_of(task: asyncio.Future[None]) -> None:
    """Raise what a handler raised; one that was cancelled by what it awaited failed as well."""
    if task.cancelled():
        # Let out as it is, it would end whoever called the handler, without a word.
        raise RuntimeError("CancelledError: what the handler awaited was cancelled")
    task.result()


async def _call_away(task: asyncio.Future[None], effects: Effects) -> bool:
    """Whether a handler was late. Whatever it does afterwards, it commits nothing."""
    if task.done():
        return False
    task.cancel()
    await asyncio.wait({task}, timeout=_DROP_AFTER)
    if not task.done():
        effects.driver.terminate()
    return True


def _is_the_databases(error: Exception, effects: Effects) -> bool:
    """Whether the database, and not the handler, is at fault: gone, or short of something."""
    cause = unwrapped(error)
    if effects.driver.is_closed():
        return isinstance(cause, TROUBLE)
    busy = isinstance(cause, asyncpg.PostgresError) and (cause.sqlstate or "")[:2] in ("40", "53")
    return busy or (isinstance(cause, asyncpg.PostgresError) and is_away(cause))


def _in_our_words(error: Exception, place: str) -> Exception:
    cause = unwrapped(error)
    if getattr(cause, "sqlstate", None) == "42P01":
        return UnavailableError(
            f"{place}: {cause}; make the tables: `orchestrator.messaging.create_tables`"
        )
    told = in_our_words(cause, place) if isinstance(cause, TROUBLE) else error
    return told if isinstance(told, UnavailableError) else UnavailableError(str(told))


def _engine(url: str, connections: int, timeout: float) -> AsyncEngine:
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise InvalidInputError(
            f"a consumer's database is PostgreSQL: postgresql://..., not {scheme}://"
        )
    limit = str(int((timeout + 5) * 1000))
    return create_async_engine(
        f"postgresql+asyncpg://{rest}",
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "timeout": 5.0,
            "server_settings": {
                "application_name": "saga consumer",
                "statement_timeout": limit,
                "idle_in_transaction_session_timeout": limit,
            },
        },
    )


def _record(saga_id: str, row: Any) -> Record:
    headers = tuple((name, text.encode()) for name, text in json.loads(row["headers"]))
    return Record(
        row["topic"], row["partition"], row["offset"], row["timestamp"], saga_id.encode(),
        bytes(row["value"]), headers,
    )  # fmt: skip
