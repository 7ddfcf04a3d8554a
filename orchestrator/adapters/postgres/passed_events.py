"""Events that no handler wants: counted many at once, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from orchestrator.errors import UnavailableError
from orchestrator.ports import Record


class Passed(NamedTuple):
    """An event that is counted, and no more."""

    saga_id: str
    version: int
    record: Record


Write = Callable[[Sequence[Passed]], Awaitable[set[str]]]
"""Writes the positions of several sagas; which of them are in."""


class PassedEvents:
    """What comes while one write is under way goes into the next."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: dict[str, tuple[Passed, asyncio.Future[bool]]] = {}
        self._writing: asyncio.Task[None] | None = None

    async def add(self, event: Passed) -> bool:
        """True once it is durable; False when it needs a closer look. Raises UnavailableError."""
        if event.saga_id in self._waiting:
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[event.saga_id] = event, answer
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        return await answer

    async def close(self) -> None:
        """Write no more. Who still waits is told that the database cannot be used."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing}, timeout=1)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = tuple(self._waiting.values()), {}
            try:
                written = await self._write([event for event, _ in batch])
            except BaseException as error:
                told = f"{error}" if isinstance(error, UnavailableError) else f"{error!r}"
                for _, answer in (*batch, *self._waiting.values()):
                    if not answer.done():
                        answer.set_exception(UnavailableError(told))
                self._waiting = {}
                if not isinstance(error, UnavailableError):
                    raise
                return
            for event, answer in batch:
                if not answer.done():
                    answer.set_result(event.saga_id in written)
