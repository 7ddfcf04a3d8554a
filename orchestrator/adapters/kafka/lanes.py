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
    offset: int
    record: Record | None
    """None once it is done."""


class Lanes:
    """One lane for each key. A lane that waits holds nobody up but those behind it.

    `reached` is the offset to commit: all records below it are done. After an error that *carry*
    lets out, `error` holds it and nothing more begins. At most *limit* records or *limit_bytes* are
    held; what is done behind one that waits is only counted, up to *ahead*.
    """

    def __init__(self, carry: Carry, limit: int, limit_bytes: int, ahead: int) -> None:
        self.reached = -1
        self.committed = -1
        self.error: Exception | None = None
        self.resume_at = 0.0
        self._first = -1
        self._carry = carry
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._ahead = ahead
        self._open = 0
        self._bytes = 0
        self._order: deque[_Entry] = deque()
        self._lanes: dict[bytes | None, deque[_Entry]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._draining = False
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether to fetch no more for now."""
        return self._has(self._limit, self._limit_bytes, self._ahead)

    @property
    def roomy(self) -> bool:
        """Whether to fetch again."""
        return not self._has(self._limit // 2 + 1, self._limit_bytes // 2 + 1, self._ahead)

    def _has(self, limit: int, limit_bytes: int, ahead: int) -> bool:
        return self._open >= limit or self._bytes >= limit_bytes or len(self._order) >= ahead

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit."""
        return self.reached > self.committed

    @property
    def restart(self) -> int | None:
        """After an error: from where to read again, once nothing is under way any more."""
        if self._tasks or self._draining:
            return None
        return self._first if self.reached < 0 else self.reached

    def add(self, record: Record) -> None:
        """Queue a record behind those of its key. Those without a key share a lane."""
        if self._closing.is_set():
            return
        if self._first < 0:
            self._first = record.offset
        entry = _Entry(record.offset, record)
        self._order.append(entry)
        self._open += 1
        self._bytes += _size(record)
        lane = self._lanes.get(record.key)
        if lane is not None:
            lane.append(entry)
            return
        self._lanes[record.key] = lane = deque([entry])
        task = asyncio.create_task(self._run(record.key, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pass_to(self, offset: int) -> None:
        """What was read up to *offset* holds no records for us: it is done when all before it is."""
        if not self._order and not self._closing.is_set():
            self.reached = max(self.reached, offset)

    async def drain(self, limit: float) -> int:
        """Begin nothing more, and wait for what is under way, at most *limit* seconds.

        What is late is cancelled, and no longer counts when it ends after all; how many those are.
        """
        self._closing.set()
        self._draining = True
        late: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=limit)
        self._ended = True
        for task in late:
            task.cancel()
        return len(late)

    async def _run(self, key: bytes | None, lane: deque[_Entry]) -> None:
        while lane and (record := lane[0].record) and not self._closing.is_set():
            try:
                await self._carry(record, self._closing)
            except GivenBackError:
                return
            except asyncio.CancelledError:
                if not self._ended:
                    # Not by us. A lane that just ended would hold up its partition for ever.
                    self._fail(RuntimeError(f"taking in record {record.place} was cancelled"))
                raise
            except Exception as error:  # noqa: BLE001 - told by whoever reads `error`
                self._fail(error)
                return
            if self._ended:
                return
            self._done(lane.popleft(), record)
        if not lane:
            del self._lanes[key]

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self._closing.set()

    def _done(self, entry: _Entry, record: Record) -> None:
        entry.record = None
        self._open -= 1
        self._bytes -= _size(record)
        while self._order and self._order[0].record is None:
            self.reached = self._order.popleft().offset + 1


def _size(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
