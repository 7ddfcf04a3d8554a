"""A database session of one's own that comes back by itself when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from orchestrator.adapters.postgres.pool import Connection, Database
from orchestrator.errors import UnavailableError

log = logging.getLogger(__name__)

_RETRY, _SLOWEST = 0.1, 1.0
"""Seconds between two tries to come back: who left together does not come back together, and
is back before a server that began anew misses anybody."""


class Session:
    """One connection outside the pools, for one user at a time.

    *prepare* runs on every new connection before anybody uses it. With `eager` a lost connection
    is opened again at once, and not only when it is wanted next.
    """

    def __init__(
        self,
        database: Database,
        purpose: str,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
        *,
        eager: bool = False,
    ) -> None:
        self._database = database
        self._purpose = purpose
        self._prepare = prepare
        self._eager = eager
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._reopening: asyncio.Task[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, opened when there is none; errors come out in our words."""
        async with self._turn:
            connection = await self._open()
            try:
                with self._database.translated():
                    async with self._database.bounded(connection):
                        yield connection
            except UnavailableError as error:
                if isinstance(error.__cause__, TimeoutError):
                    # The driver would wait for the late answer first, and the next user with it.
                    connection.terminate()
                raise
            finally:
                if not connection.is_closed() and connection.is_in_transaction():
                    # A rollback that failed too: the next user's work would never be committed.
                    connection.terminate()

    async def close(self) -> None:
        """Let the connection go, within a moment."""
        self._closed = True
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait({self._reopening}, timeout=1.0)
        if self._connection is not None and not self._connection.is_closed():
            closing = asyncio.ensure_future(self._connection.close())
            await asyncio.wait({closing}, timeout=1.0)
            if not closing.done() or closing.exception():
                self._connection.terminate()

    async def _open(self) -> Connection:
        self._check_open()
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.connect(self._purpose)
            try:
                if self._prepare is not None:
                    with self._database.translated():
                        await self._prepare(connection)
                self._check_open()
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
            if self._eager:
                connection.add_termination_listener(self._lost)
        return self._connection

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"the {self._purpose} session is closed")

    def _lost(self, _: object) -> None:
        if not self._closed and (self._reopening is None or self._reopening.done()):
            self._reopening = asyncio.get_running_loop().create_task(
                self._reopen(), name=f"reopen-{self._purpose}"
            )

    async def _reopen(self) -> None:
        log.info("the %s session with %s was lost", self._purpose, self._database.where)
        wait = _RETRY
        while not self._closed:
            try:
                async with self.use():
                    return
            except UnavailableError as error:
                log.debug("%s session: %s", self._purpose, error)
                await asyncio.sleep(random.uniform(wait / 2, wait))
                wait = min(wait * 2, _SLOWEST)
