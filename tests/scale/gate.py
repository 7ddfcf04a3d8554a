"""A plain wire to a database that can be shut and opened; it reads nothing and costs little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit


class _End(asyncio.Protocol):
    """One end of a connection: what comes in here goes out there."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.there: _End | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def join(self, there: _End) -> None:
        """Pass on from now on, and what came before."""
        self.there = there
        for data in self._early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.there is None or self.there.transport is None:
            self._early.append(data)
        else:
            self.there.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.there is not None and self.there.transport is not None:
            self.there.transport.close()


class Gate:
    """Between workers and their database. Shut, it refuses connections as a dead server does."""

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._ends: set[_End] = set()
        self._joining: set[asyncio.Task[None]] = set()
        self.opened: list[float] = []
        """When connections came, by `time.monotonic`."""

    @property
    def dsn(self) -> str:
        """The database by way of this gate."""
        user = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    async def open(self) -> None:
        """Let connections through."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._arrive, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Cut all connections and refuse others."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in tuple(self._ends):
            if end.transport is not None:
                end.transport.abort()
        self._ends.clear()

    def _arrive(self) -> _End:
        self.opened.append(time.monotonic())
        end = _End()
        self._ends.add(end)
        task = asyncio.ensure_future(self._join(end))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        return end

    async def _join(self, here: _End) -> None:
        make: Callable[[], _End] = _End
        loop = asyncio.get_running_loop()
        _, there = await loop.create_connection(make, self._parts.hostname, self._parts.port)
        there.there = here
        here.join(there)
        self._ends.add(there)
