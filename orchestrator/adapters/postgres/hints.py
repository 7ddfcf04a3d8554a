"""Wake-ups between processes by LISTEN and NOTIFY, on a connection of their own.

Listeners of this process are woken at once, without the detour. Others get at most one NOTIFY for
each channel in a few milliseconds, outside any transaction of the hot path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from orchestrator.adapters.postgres.pool import Connection, Database
from orchestrator.adapters.postgres.trouble import TROUBLE, reason
from orchestrator.errors import UnavailableError

log = logging.getLogger(__name__)

_NOTIFY = "SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel"
_HEARTBEAT = 5.0
_RETRY = 0.5


class PostgresHints:
    """orchestrator.ports.Hints. Lost hints are lost; after a reconnect everybody is woken."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wakes: dict[str, list[Callable[[], None]]] = {}
        self._heard: set[str] = set()
        self._pending: set[str] = set()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

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
                log.warning("no hints for a moment: %s", reason(error))
            self._pending.clear()
            self._heard.clear()
            await asyncio.sleep(_RETRY)

    async def _serve(self, connection: Connection) -> None:
        """Listen and notify until the connection fails."""
        await self._listen(connection)
        for channel in list(self._wakes):
            self._wake(channel)
        while True:
            self._work.clear()
            await self._listen(connection)
            if self._pending:
                pending, self._pending = self._pending, set()
                await connection.execute(_NOTIFY, sorted(pending))
                await asyncio.sleep(self._database.settings.notify_every)
            elif not await _happens(self._work, _HEARTBEAT):
                # A half-open connection would stay silent for ever.
                await connection.execute("SELECT 1")

    async def _listen(self, connection: Connection) -> None:
        for channel in set(self._wakes) - self._heard:
            await connection.add_listener(channel, self._hear(connection.get_server_pid()))
            self._heard.add(channel)

    def _hear(self, own_pid: int) -> Callable[[object, int, str, object], None]:
        def heard(_connection: object, pid: int, channel: str, _payload: object) -> None:
            if pid != own_pid:
                self._wake(channel)

        return heard


async def _happens(event: asyncio.Event, within: float) -> bool:
    timer = asyncio.get_running_loop().call_later(within, event.set)
    try:
        began = asyncio.get_running_loop().time()
        await event.wait()
        return asyncio.get_running_loop().time() - began < within
    finally:
        timer.cancel()
