"""Group commit: one batch is committing while the next one gathers; the disk sets the pace."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from orchestrator.errors import (
    BusyError,
    OwnershipLostError,
    UnavailableError,
    UnknownOutcomeError,
)
from orchestrator.ports import Append, EventStore, Telemetry
from orchestrator.runtime import machine
from orchestrator.runtime.outage import Outage

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH_BYTES = 8 * 1024 * 1024
"""About how much goes into one statement: it has to end within the time that statements have."""


class GroupCommit(Generic[Item, Answer]):
    """Hands items to *commit* in batches, never two at a time, and each its own answer back.

    *commit* returns an answer or an exception for each item; when it raises, all get that error.
    *measure* gives an item's name and size: a batch holds no name twice, and at most `limit` items
    and `limit_bytes`, or one item. What nobody waits for any more is not begun.
    """

    def __init__(
        self,
        kind: str,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        measure: Callable[[Item], tuple[Hashable, int]],
        telemetry: Telemetry,
        *,
        limit: int,
        limit_bytes: int = BATCH_BYTES,
    ) -> None:
        self._kind = kind
        self._commit = commit
        self._measure = measure
        self._telemetry = telemetry
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Wait for the commit that carries *item*."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name=f"group-commit-{self._kind}")
        return await answer

    async def close(self) -> None:
        """Wait until everything that was handed in is answered."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # One turn of the loop lets everybody who is ready now join the first batch.
            await asyncio.sleep(0)
            while batch := self._next_batch():
                began = loop.time()
                await self._one(batch)
                self._tell(len(batch), loop.time() - began)
        finally:
            self._writer = None
            # None are left, unless this very task was cancelled.
            left, self._waiting = self._waiting, []
            never = UnavailableError("the process is ending; nothing was sent")
            _answer(left, one_each(never, len(left)))

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        later: list[tuple[Item, asyncio.Future[Answer]]] = []
        names: set[Hashable] = set()
        total = 0
        for index, entry in enumerate(self._waiting):
            if entry[1].done():
                continue
            name, size = self._measure(entry[0])
            if len(batch) == self._limit or (batch and total + size > self._limit_bytes):
                later += self._waiting[index:]
                break
            if name in names:
                later.append(entry)
                continue
            names.add(name)
            total += size
            batch.append(entry)
        self._waiting = later
        return batch

    async def _one(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._commit([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits for it
            answers = one_each(error, len(batch))
        except BaseException:
            unknown = UnknownOutcomeError("the process is ending; nobody waited for the commit")
            _answer(batch, one_each(unknown, len(batch)))
            raise
        _answer(batch, answers)

    def _tell(self, size: int, seconds: float) -> None:
        try:
            self._telemetry.batch(self._kind, size, seconds)
        except Exception:
            log.exception("telemetry failed; the commits go on")


def _answer(
    batch: Sequence[tuple[Item, asyncio.Future[Answer]]], answers: Sequence[Answer | Exception]
) -> None:
    for (_, waiting), answer in zip(batch, answers, strict=True):
        if waiting.done():
            continue
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)


def one_each(error: Exception, count: int) -> list[Exception]:
    """One traceback shared by hundreds of waiters would grow with each of them."""
    try:
        copies = [copy.copy(error) for _ in range(count)]
    except TypeError:  # an error that cannot be made from its own arguments
        return [error] * count
    for each in copies:
        each.__cause__ = error
    return copies


class Recorder:
    """Appends events in groups. Each append comes back durable, fenced, or unknown.

    One that the database is too busy for is handed in again while *may_act* says so: what the
    steps did need not be done again for that, and owner, epoch and head still guard it. (Where the
    database is away altogether it is not: then steps fail too, for no reason of their own.)
    """

    def __init__(
        self,
        events: EventStore,
        telemetry: Telemetry,
        limit: int = 100,
        limit_bytes: int = BATCH_BYTES,
        may_act: Callable[[], bool] = lambda: False,
        outage: Outage | None = None,
    ) -> None:
        self._events = events
        self._may_act = may_act
        self._outage = outage or Outage()
        self.written = 0
        """Appends that are durable."""
        self._group: GroupCommit[Append, int] = GroupCommit(
            "append", self._commit, _measured, telemetry, limit=limit, limit_bytes=limit_bytes
        )

    async def append(self, append: Append) -> int:
        """The inbox sequence of the instance, once the events are durable.

        Raises OwnershipLostError when it was refused, UnknownOutcomeError when nobody knows,
        UnavailableError when certainly nothing was written.
        """
        wait = 0.05
        while True:
            try:
                sequence = await self._group.submit(append)
            except BusyError as error:
                if not self._may_act():
                    raise
                self._outage.failed(f"worker {append.owner}", "write events", error)
            else:
                self._outage.succeeded(f"worker {append.owner}", "write events")
                self.written += 1
                return sequence
            await asyncio.sleep(machine.jittered(wait))
            wait = min(wait * 2, 2.0)

    async def close(self) -> None:
        await self._group.close()

    async def _commit(self, batch: Sequence[Append]) -> Sequence[int | Exception]:
        written = await self._events.append(batch)
        return [
            written[append.saga_id]
            if append.saga_id in written
            else OwnershipLostError(f"saga {append.saga_id} was refused at epoch {append.epoch}")
            for append in batch
        ]


def _measured(append: Append) -> tuple[str, int]:
    return append.saga_id, sum(len(event.data) for event in append.events)
