"""Planted bugs: a world of each must be found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestrator.adapters.memory.tables import SagaRow, WorkerRow
from orchestrator.adapters.memory.workers import MemoryFleet
from orchestrator.domain import backward
from orchestrator.domain.commands import Failed
from orchestrator.domain.outcomes import failure_of
from orchestrator.errors import PublishError, UnknownOutcomeError
from orchestrator.ports import Append, Definition, FeedPage, Publisher
from orchestrator.runtime import executor, machine, worker
from orchestrator.runtime.relay_shard import ShardRelay
from tests.simulation.parts import Parts
from tests.simulation.rows import SimEventStore, SimFeed
from tests.simulation.store import SimEvents, SimFleet


class WithoutEpoch(SimEventStore):
    def fits(self, row: SagaRow | None, append: Append) -> bool:
        return row is not None and super().fits(row, replace(append, epoch=row.epoch))


class WithoutOwnerAndEpoch(SimEventStore):
    def fits(self, row: SagaRow | None, append: Append) -> bool:
        if row is None:
            return False
        return super().fits(row, replace(append, epoch=row.epoch, owner=str(row.owner)))


class WithoutHead(SimEventStore):
    def fits(self, row: SagaRow | None, append: Append) -> bool:
        return row is not None and super().fits(row, replace(append, head=row.head))


class CheckedBySelect(SimEventStore):
    """Looks, and writes a moment later without holding the row."""

    locks = False


class ParkedBlindly(SimEventStore):
    def fits(self, row: SagaRow | None, append: Append) -> bool:
        return super().fits(row, replace(append, if_inbox=False))


class AnsweredBeforeCommit(SimEvents):
    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        sent = asyncio.ensure_future(super().append(batch))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        rows = self._wire.database.tables.sagas
        return {append.saga_id: rows[append.saga_id].inbox_seq for append in batch}


class UnknownTakenForWritten(SimEvents):
    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        try:
            return await super().append(batch)
        except UnknownOutcomeError:
            return {append.saga_id: append.inbox_seen for append in batch}


class SentAgain(SimEvents):
    """Sends from memory what may have been written, and takes a refusal for "it was"."""

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        try:
            return await super().append(batch)
        except UnknownOutcomeError:
            seen = {append.saga_id: append.inbox_seen for append in batch}
            return seen | dict(await super().append(batch))


class CheckpointFirst(ShardRelay):
    async def _publish(self, part: FeedPage, publisher: Publisher) -> bool:
        return await self._move(part.position) and await super()._publish(part, publisher)


class GoesOnPastFailures(ShardRelay):
    async def _publish(self, part: FeedPage, publisher: Publisher) -> bool:
        try:
            return await super()._publish(part, publisher)
        except PublishError:
            return await self._move(part.position)


class WithoutGate(SimFeed):
    """Reads all that is there, up to the highest position that it sees."""

    gated = False

    def settled(self) -> int:
        log = self._tables.log
        return log[-1].row.position if log else 0


class RenewsTheRetired(MemoryFleet):
    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        until = self._tables.clock.now() + ttl
        self._tables.workers.setdefault(worker_id, WorkerRow(until)).lease_until = until
        return True


class LeaseByOwnClock(SimFleet):
    """The lease ends when the worker's own clock says so, however wrong that is."""

    async def join(
        self,
        worker_id: str,
        label: str,
        ttl: timedelta,
        definitions: Sequence[Definition] | None = None,
    ) -> None:
        await super().join(worker_id, label, ttl + self._wrong(), definitions)

    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        return await super().renew(worker_id, ttl + self._wrong())

    def _wrong(self) -> timedelta:
        place: Any = self._wire.place
        return timedelta(seconds=place.wall)


def _without_deadline() -> Parts:
    """A worker that goes on however long it has not heard from the database."""
    return Parts(patches=[(worker._Shift, "_deadline", _Never())])


class _Never:
    def __get__(self, one: Any, kind: Any) -> float:
        return float("inf")

    def __set__(self, one: Any, value: float) -> None:
        return


def _doubt_forgotten() -> Parts:
    failed = lambda error, step=None: Failed(failure_of(error))  # noqa: E731 - in its place
    return Parts(patches=[(executor, "InDoubt", Failed), (executor, "outcome_of", failed)])


def _key_with_attempt() -> Parts:
    context = executor.Executor._context

    def numbered(self: Any, path: str, attempt: int, *rest: Any) -> Any:
        made = context(self, path, attempt, *rest)
        return replace(made, idempotency_key=f"{made.idempotency_key}/{attempt}")

    return Parts(patches=[(executor.Executor, "_context", numbered)])


def _waited_for() -> Parts:
    run = executor.Attempt.run

    def bounded(self: Any, call: Any, limit: float | None, name: str) -> None:
        run(self, asyncio.wait_for(call, limit), None, name)

    return Parts(patches=[(executor.Attempt, "run", bounded)])


def _one_name_for_all() -> Parts:
    return Parts(patches=[(machine, "new_name", lambda: "host")])


MUTANTS: dict[str, Callable[[], Parts]] = {
    "epoch not in the condition": lambda: Parts({"event_store": WithoutEpoch}),
    "owner and epoch not in the condition": lambda: Parts({"event_store": WithoutOwnerAndEpoch}),
    "condition checked by a select": lambda: Parts({"event_store": CheckedBySelect}),
    "head not in the condition, and sent again": lambda: Parts(
        {"event_store": WithoutHead}, {"events": SentAgain}
    ),
    "answered before the commit": lambda: Parts(ports={"events": AnsweredBeforeCommit}),
    "unknown commit taken for written": lambda: Parts(ports={"events": UnknownTakenForWritten}),
    "checkpoint before send": lambda: Parts(relay=CheckpointFirst),
    "global cursor without a gate": lambda: Parts({"feed_type": WithoutGate}),
    "goes on past a failed batch": lambda: Parts(relay=GoesOnPastFailures),
    "what is in doubt is not undone": _doubt_forgotten,
    "undone in the order it was done": lambda: Parts(patches=[(backward, "reversed", iter)]),
    "key with the attempt in it": _key_with_attempt,
    "parked without a look at the inbox": lambda: Parts({"event_store": ParkedBlindly}),
    "wait_for as the limit of a step": _waited_for,
    "lease by the worker's own clock": lambda: Parts(ports={"fleet": LeaseByOwnClock}),
    "no deadline of its own": _without_deadline,
    "a retired worker renews": lambda: Parts({"fleet_type": RenewsTheRetired}),
    "owner named after the host": _one_name_for_all,
}
