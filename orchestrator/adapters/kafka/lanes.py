"""Records of one partition in hand: one at a time for each key, and how far all of them are done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.ports import Record

Carry = Callable[[Record, asyncio.Event], Awaitable[None]]
"""Takes one record in; gives it up when the event is set while it waits to try again."""


class GivenBackError(Exception):
    """The partition is given back; this record is not done."""


@dataclass(slots=True)
class _Entry:
    record: Record
    done: bool = False


class Lanes:
    """One lane for each key. A lane that waits holds nobody up but those behind it.

    `reached` is the offset to commit: all records below it are done. After an error that *carry*
    lets out, `error` holds it and nothing more begins.
    """

    def __init__(self, carry: Carry, limit: int, limit_bytes: int) -> None:
        self.reached = -1
        self.committed = -1
        self.error: Exception | None = None
        self.resume_at = 0.0
        self._first = -1
        self._carry = carry
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._order: deque[_Entry] = deque()
        self._lanes: dict[bytes | None, deque[_Entry]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether to fetch no more for now."""
        return len(self._order) >= self._limit or self._bytes >= self._limit_bytes

    @property
    def roomy(self) -> bool:
        """Whether to fetch again."""
        return len(self._order) <= self._limit // 2 and self._bytes <= self._limit_bytes // 2

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit."""
        return self.reached > self.committed

    @property
    def restart(self) -> int | None:
        """After an error: from where to read again, once nothing is under way any more."""
        if self._tasks:
            return None
        return self._first if self.reached < 0 else self.reached

    def add(self, record: Record) -> None:
        """Queue a record behind those of its key. Those without a key share a lane."""
        if self._closing.is_set():
            return
        if self._first < 0:
            self._first = record.offset
        entry = _Entry(record)
        self._order.append(entry)
        self._bytes += _size(record)
        lane = self._lanes.get(record.key)
        if lane is not None:
            lane.append(entry)
            return
        self._lanes[record.key] = lane = deque([entry])
        task = asyncio.create_task(self._run(record.key, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, limit: float) -> int:
        """Begin nothing more, and wait for what is under way, at most *limit* seconds.

        What is late is cancelled, and no longer counts when it ends after all; how many those are.
        """
        self._closing.set()
        late: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=limit)
        self._ended = True
        for task in late:
            task.cancel()
        return len(late)

    async def _run(self, key: bytes | None, lane: deque[_Entry]) -> None:
        while lane and not self._closing.is_set():
            try:
                await self._carry(lane[0].record, self._closing)
            except GivenBackError:
                return
            except Exception as error:  # noqa: BLE001 - told by whoever reads `error`
                self.error = self.error or error
                self._closing.set()
                return
            if self._ended:
                return
            lane.popleft().done = True
            self._advance()
        if not lane:
            del self._lanes[key]

    def _advance(self) -> None:
        while self._order and self._order[0].done:
            record = self._order.popleft().record
            self._bytes -= _size(record)
            self.reached = record.offset + 1


def _size(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
