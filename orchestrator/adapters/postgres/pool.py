"""Connections with every bound set, and the driver's errors put into our words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import asyncpg

from orchestrator.adapters.postgres import pooler
from orchestrator.adapters.postgres.trouble import (
    TROUBLE,
    in_our_words,
    is_away,
    is_refusal,
    reason,
    where,
)
from orchestrator.errors import InvalidInputError, UnavailableError, UnknownOutcomeError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Generic in the stubs only, hence the quotes.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Record = asyncpg.Record


POOLERS = ("auto", "none", "transaction")

_BOUNDS = ("connect_timeout", "command_timeout", "lock_timeout", "idle_in_transaction_timeout")
_LONGEST = 2_000_000.0


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How to use a database. All times in seconds.

    Behind a *pooler* that shares sessions every bound is set anew in each transaction, and a dead
    worker is noticed by its lease only, as with `presence=False`; `auto` finds out whether there is
    one. At most `transactions` transactional steps are under way at a time.
    """

    namespace: str = "default"
    application_name: str = "saga"
    pool_size: int = 8
    connect_timeout: float = 5.0
    command_timeout: float = 5.0
    lock_timeout: float = 2.0
    idle_in_transaction_timeout: float = 10.0
    gate_timeout: float = 0.1
    notify_every: float = 0.005
    transactions: int = 10
    presence: bool = True
    pooler: str = "auto"

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            # Postgres would take it for no limit at all.
            if not 0.001 <= getattr(self, name) <= _LONGEST:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}; give seconds, from 0.001 to {_LONGEST:g}"
                )
        if self.pooler not in POOLERS:
            raise InvalidInputError(f"pooler is {self.pooler!r}; give one of {', '.join(POOLERS)}")


# Every statement that goes through the pool is planned once and leans on an index. A plan that was
# made while the tables were small must not read them whole once they have grown; and rows come, and
# are locked, in the order of the ids.
_STEADY_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}


class Database:
    """One database: a pool for the fixed statements, one for lists, and single connections."""

    def __init__(self, dsn: str, settings: PostgresSettings) -> None:
        self.dsn = dsn
        self.settings = settings
        self.where = where(dsn)
        self.pooled = settings.pooler == "transaction"
        self._pool: Pool | None = None
        self._lists: Pool | None = None
        self._sections: set[asyncio.Task[Any]] = set()
        self._expiring: set[asyncio.Future[None]] = set()

    # ------------------------------------------------------------------ opening and closing

    async def open(self) -> None:
        """Make sure that the database answers. UnavailableError within `connect_timeout` if not."""
        await self.look_for_pooler()
        size = self.settings.pool_size
        self._pool = self._make_pool(size, _STEADY_PLANS)
        self._lists = self._make_pool(max(2, size // 2), {})
        with self.translated():
            await self._pool
            await self._lists

    async def look_for_pooler(self, *, aloud: bool = True) -> None:
        """Find out whether sessions are shared, unless the settings say so."""
        if self.settings.pooler == "auto":
            with self.translated():
                self.pooled = await pooler.is_between(self.dsn, self._direct("look"))
        if self.pooled and aloud:
            log.warning(
                "a pooler is in front of %s: dead workers are noticed when their lease ends, new "
                "work by polling; give SAGA_DATABASE_URL the server's own address to be faster",
                self.where,
            )

    @property
    def has_presence(self) -> bool:
        """Whether a session of ours is seen to end with its process."""
        return self.settings.presence and not self.pooled

    async def close(self) -> None:
        """Wait for writes under way, then let go of everything within a few seconds."""
        await self.settle()
        for pool in (self._pool, self._lists):
            if pool is not None:
                await self.let_go(pool)

    async def settle(self) -> None:
        """Wait for the sections under way, for as long as they may take."""
        if self._sections:
            await asyncio.wait(self._sections, timeout=2 * self.settings.command_timeout)

    async def let_go(self, pool: Pool) -> None:
        """Close the connections of *pool*, within a few seconds."""
        closing = asyncio.ensure_future(pool.close())
        await asyncio.wait({closing}, timeout=2.0)
        if not closing.done():
            pool.terminate()
            await asyncio.wait({closing}, timeout=1.0)
        if closing.done() and not closing.cancelled() and (error := closing.exception()):
            log.warning("closing connections to %s: %s", self.where, error)

    async def connect(self, purpose: str) -> Connection:
        """A connection of one's own, outside the pools, for *purpose*."""
        with self.translated():
            return await asyncpg.connect(self.dsn, **self.options(purpose))

    def _make_pool(self, size: int, planner: dict[str, str]) -> Pool:
        async def keep(_: object) -> None:
            """Nothing to reset: no statement of ours leaves anything behind in a session."""

        return asyncpg.create_pool(
            self.dsn,
            min_size=0,
            max_size=size,
            max_queries=1_000_000_000,
            reset=keep,
            **self.options("pool", planner),
        )

    def options(self, purpose: str, planner: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the driver is told when it connects: every bound, and how to plan."""
        options = self._direct(purpose, planner)
        return pooler.through(options) if self.pooled else options

    def _direct(self, purpose: str, planner: Mapping[str, str] | None = None) -> dict[str, Any]:
        settings = self.settings
        return {
            "timeout": settings.connect_timeout,
            "command_timeout": settings.command_timeout,
            "max_cached_statement_lifetime": 0,
            "target_session_attrs": "read-write",
            "server_settings": {
                "application_name": f"{settings.application_name} {purpose}",
                "timezone": "UTC",
                **self._bounds(),
                **(planner or {}),
            },
        }

    def _bounds(self) -> dict[str, str]:
        settings = self.settings
        return {
            "statement_timeout": _milliseconds(settings.command_timeout),
            "lock_timeout": _milliseconds(settings.lock_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.idle_in_transaction_timeout
            ),
        }

    def bounds(self, planner: Mapping[str, str] | None = None) -> str | None:
        """The statements that a transaction begins with; None where its session has the bounds."""
        return pooler.set_locally({**self._bounds(), **(planner or {})}) if self.pooled else None

    @asynccontextmanager
    async def bounded(
        self, connection: Connection, planner: Mapping[str, str] | None = None
    ) -> AsyncIterator[None]:
        """Where the session has no bounds of its own: a transaction that has them."""
        if (bounds := self.bounds(planner)) is None:
            yield
            return
        async with connection.transaction():
            await connection.execute(bounds)
            yield

    # ------------------------------------------------------------------ statements

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """Run a statement whose outcome need not be known when it fails."""
        with self.translated():
            async with self._acquire(self._pool) as connection:
                return await self._run(connection, sql, args)

    async def fetch_unless_locked(self, sql: str, *args: object) -> list[Record] | None:
        """As `fetch`; None when a lock could not be had in time."""
        with self.translated():
            try:
                async with self._acquire(self._pool) as connection:
                    return await self._run(connection, sql, args)
            except asyncpg.LockNotAvailableError:
                return None

    async def fetch_list(self, sql: str, *args: object) -> list[Record]:
        """Run a query that callers shaped, with the planner free to choose."""
        with self.translated():
            async with self._acquire(self._lists) as connection, self.bounded(connection):
                return await connection.fetch(sql, *args)

    async def with_connection(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What *work* gives with a pooled connection."""
        with self.translated():
            async with (
                self._acquire(self._pool) as connection,
                self.bounded(connection, _STEADY_PLANS),
            ):
                return await work(connection)

    async def commit(self, sql: str, *args: object) -> list[Record]:
        """Run a statement that must not be left half known: one transaction of its own.

        Raises UnknownOutcomeError when it may or may not have been committed, UnavailableError
        or InvalidInputError when certainly not. Cancelling the caller does not cancel it.
        """
        return await asyncio.shield(self.section(self._commit(sql, args)))

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What *work* gives, in one transaction; as `commit`."""
        return await asyncio.shield(self.section(self._transact(work)))

    def section(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that goes on to its end, whoever stops waiting for it; `close` waits for it."""
        task: asyncio.Task[T] = asyncio.create_task(work)
        self._sections.add(task)
        task.add_done_callback(self._forget)
        return task

    async def _commit(self, sql: str, args: tuple[object, ...]) -> list[Record]:
        with self.translated():
            async with self._acquire(self._pool) as connection:
                with self.deciding():
                    return await self._run(connection, sql, args)

    async def _transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        with self.translated():
            async with self._acquire(self._pool) as connection:
                with self.deciding():
                    async with connection.transaction():
                        if (bounds := self.bounds(_STEADY_PLANS)) is not None:
                            await connection.execute(bounds)
                        return await work(connection)

    async def _run(
        self, connection: Connection, sql: str, args: tuple[object, ...]
    ) -> list[Record]:
        if not self.pooled:
            return await connection.fetch(sql, *args)
        async with self.bounded(connection, _STEADY_PLANS):
            return await connection.fetch(sql, *args)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._sections.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("a write to %s ended: %s", self.where, error)

    @asynccontextmanager
    async def _acquire(self, pool: Pool | None) -> AsyncIterator[Connection]:
        if pool is None:
            raise UnavailableError(f"the connections to {self.where} are not open")
        # No time-out of its own, which would cost a task: who holds a connection, and who opens
        # one, is bounded.
        connection = await pool.acquire()
        cancelled = False
        try:
            yield connection  # type: ignore[misc]  # the pool's proxy has the connection's methods
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            giving = self._give_back(pool, connection, cancelled=cancelled)
            if cancelled:
                self.section(giving)
            else:
                await giving

    async def _give_back(self, pool: Pool, connection: Any, *, cancelled: bool) -> None:
        try:
            if cancelled:
                # What was prepared and not run yet keeps its locks until the next request.
                with contextlib.suppress(*TROUBLE):
                    await connection.execute("SELECT 1")
            await pool.release(connection, timeout=self.settings.command_timeout)
        except TROUBLE as error:
            # What became of the statement is known by now and must not be covered by this;
            # the pool has thrown the connection away.
            log.warning("giving a connection to %s back: %s", self.where, reason(error))

    # ------------------------------------------------------------------ errors

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's errors into ours; drop pooled connections to a server that went."""
        try:
            yield
        except TROUBLE as error:
            if is_away(error):
                self._expire()
            raise in_our_words(error, self.where) from error

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Turn an error around a commit into UnknownOutcomeError, unless it is a sure refusal."""
        try:
            yield
        except TROUBLE as error:
            if is_refusal(error):
                raise
            if is_away(error):
                self._expire()
            raise UnknownOutcomeError(
                f"whether {self.where} committed is not known: {reason(error)}"
            ) from error

    def _expire(self) -> None:
        for pool in (self._pool, self._lists):
            if pool is not None and not pool.is_closing():
                expiring = asyncio.ensure_future(pool.expire_connections())
                self._expiring.add(expiring)
                expiring.add_done_callback(self._expiring.discard)


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
