"""A wire to a server that is cut round the COMMIT: before the server has it, or after it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Cut = Literal["before", "after"]


@asynccontextmanager
async def wire(dsn: str, cut: Cut) -> AsyncIterator[str]:
    """A DSN by way of this process. The first COMMIT on it ends its connection."""
    parts = urlsplit(dsn)
    users: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        users.add(task)
        there = await asyncio.open_connection(parts.hostname, parts.port)
        back = asyncio.create_task(_copy(there[0], writer))
        try:
            while data := await reader.read(65536):
                if b"COMMIT" in data:
                    await _end(back, there, data, cut)
                    break
                there[1].write(data)
        finally:
            back.cancel()
            writer.close()
            there[1].close()
            users.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
    try:
        yield urlunsplit(parts._replace(netloc=place))
    finally:
        server.close()
        for task in tuple(users):
            task.cancel()
        await asyncio.gather(*users, return_exceptions=True)


async def _end(
    back: asyncio.Task[None],
    there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    data: bytes,
    cut: Cut,
) -> None:
    back.cancel()
    await asyncio.wait({back})
    if cut == "after":
        there[1].write(data)
        await there[0].read(65536)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
