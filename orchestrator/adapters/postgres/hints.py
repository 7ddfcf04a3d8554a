"""Wake-ups between processes by LISTEN and NOTIFY, on a connection of their own.

Listeners of this process are woken at once, without the detour. Others get at most one NOTIFY for
each channel in a few milliseconds, outside any transaction of the hot path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from orchestrator.adapters.postgres.pool import Connection, Database
from orchestrator.adapters.postgres.trouble import TROUBLE, reason
from orchestrator.errors import UnavailableError

log = logging.getLogger(__name__)

_NOTIFY = "SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel"
_HEARTBEAT = 5.0
_RETRY = 0.5
_SAY_EVERY = 30.0


class PostgresHints:
    """orchestrator.ports.Hints. Lost hints are lost; after a reconnect everybody is woken.

    Behind a pooler that shares sessions nothing is heard from others, who may hear us.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wakes: dict[str, list[Callable[[], None]]] = {}
        self._heard: set[str] = set()
        self._pending: set[str] = set()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._say_at = 0.0
        self._said = False

    def poke(self, channel: str) -> None:
        self._wake(channel)
        if channel not in self._pending:
            self._pending.add(channel)
            self._begin()

    def listen(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        wakes = self._wakes.setdefault(channel, [])
        wakes.append(wake)
        if channel not in self._heard:
            self._begin()

        def end() -> None:
            with contextlib.suppress(ValueError):
                wakes.remove(wake)

        return end

    async def close(self) -> None:
        """Send what is pending, if that takes no time, and end."""
        if self._task is not None:
            if self._pending and not self._task.done():
                await asyncio.sleep(2 * self._database.settings.notify_every)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2.0)

    def _begin(self) -> None:
        self._work.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="hints")

    def _wake(self, channel: str) -> None:
        for wake in self._wakes.get(channel, ()):
            wake()

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._database.connect("hints")
                try:
                    await self._serve(connection)
                finally:
                    connection.terminate()
            except (*TROUBLE, UnavailableError) as error:
                self._say(reason(error))
            self._pending.clear()
            self._heard.clear()
            await asyncio.sleep(random.uniform(_RETRY / 2, _RETRY))

    def _say(self, why: str) -> None:
        """Once, and every half minute: a database that is away is asked twice a second."""
        now = asyncio.get_running_loop().time()
        if now >= self._say_at:
            self._say_at, self._said = now + _SAY_EVERY, True
            log.warning("no hints for now, polling goes on: %s", why)
        else:
            log.debug("still no hints: %s", why)

    async def _serve(self, connection: Connection) -> None:
        """Listen and notify until the connection fails."""
        connection.add_termination_listener(self._lost)
        await self._listen(connection)
        if self._said:
            self._said = False
            log.warning("there are hints again")
        for channel in list(self._wakes):
            self._wake(channel)
        while True:
            self._work.clear()
            if connection.is_closed():
                raise UnavailableError("the connection was lost")
            await self._listen(connection)
            if self._pending:
                pending, self._pending = self._pending, set()
                async with self._database.bounded(connection):
                    await connection.execute(_NOTIFY, sorted(pending))
                await asyncio.sleep(self._database.settings.notify_every)
            elif not await _happens(self._work, _HEARTBEAT):
                # A half-open connection would stay silent for ever.
                await connection.execute("SELECT 1")

    def _lost(self, _: object) -> None:
        """Who only listens would notice at the next heartbeat."""
        self._work.set()

    async def _listen(self, connection: Connection) -> None:
        for channel in set(self._wakes) - self._heard:
            if not self._database.pooled:
                await connection.add_listener(channel, self._hear(connection.get_server_pid()))
            self._heard.add(channel)

    def _hear(self, own_pid: int) -> Callable[[object, int, str, object], None]:
        def heard(_connection: object, pid: int, channel: str, _payload: object) -> None:
            if pid != own_pid:
                self._wake(channel)

        return heard


async def _happens(event: asyncio.Event, within: float) -> bool:
    rung = False

    def ring() -> None:
        nonlocal rung
        rung = True
        event.set()

    timer = asyncio.get_running_loop().call_later(within, ring)
    try:
        await event.wait()
    finally:
        timer.cancel()
    return not rung
