"""Group commit: one batch is committing while the next one gathers; the disk sets the pace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from orchestrator.errors import OwnershipLostError, UnavailableError, UnknownOutcomeError
from orchestrator.ports import Append, EventStore, Telemetry

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Item, Answer]):
    """Hands items to *commit* in batches, never two at a time, and each its own answer back.

    *commit* returns an answer or an exception for each item; when it raises, all get that error.
    """

    def __init__(
        self,
        kind: str,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        telemetry: Telemetry,
        limit: int,
    ) -> None:
        self._kind = kind
        self._commit = commit
        self._telemetry = telemetry
        self._limit = limit
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
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                began = loop.time()
                await self._one(batch)
                self._telemetry.batch(self._kind, len(batch), loop.time() - began)
        finally:
            self._writer = None

    async def _one(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._commit([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits for it
            answers = [error] * len(batch)
        except BaseException:
            unknown = UnknownOutcomeError("the process is ending; nobody waited for the commit")
            self._answer(batch, [unknown] * len(batch))
            raise
        self._answer(batch, answers)

    def _answer(
        self,
        batch: list[tuple[Item, asyncio.Future[Answer]]],
        answers: Sequence[Answer | Exception],
    ) -> None:
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


class Recorder:
    """Appends events in groups. Each append comes back durable, fenced, or unknown."""

    def __init__(self, events: EventStore, telemetry: Telemetry, limit: int = 100) -> None:
        self._events = events
        self._group: GroupCommit[Append, int] = GroupCommit(
            "append", self._commit, telemetry, limit
        )

    async def append(self, append: Append) -> int:
        """The inbox sequence of the instance, once the events are durable.

        Raises OwnershipLostError when it was refused, UnknownOutcomeError when nobody knows,
        UnavailableError when certainly nothing was written.
        """
        return await self._group.submit(append)

    async def close(self) -> None:
        await self._group.close()

    async def _commit(self, batch: Sequence[Append]) -> Sequence[int | Exception]:
        try:
            written = await self._events.append(batch)
        except UnavailableError as error:
            # One traceback shared by hundreds of waiters would grow with each of them.
            return [type(error)(str(error)) for _ in batch]
        return [
            written[append.saga_id]
            if append.saga_id in written
            else OwnershipLostError(f"saga {append.saga_id} was refused at epoch {append.epoch}")
            for append in batch
        ]
