"""One simulated worker process: the real engine, recorder and executor over the store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.adapters.memory import MemoryDatabase
from orchestrator.domain.saga import Saga
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import (
    DUE,
    Append,
    Claim,
    Codec,
    Definition,
    EventRow,
    EventStore,
    Filter,
    Inbox,
    Message,
    Reply,
    Requests,
    StartAnswer,
    StartRequest,
    Store,
)
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.recorder import Recorder
from orchestrator.testing.mortality import Life
from orchestrator.testing.silence import SilentTelemetry
from orchestrator.testing.stage import Stage
from orchestrator.testing.staged import ANNOUNCE_AFTER, StagedExecutor, StagedTransactions
from orchestrator.testing.virtual_time import VirtualLoop

_FOREVER = timedelta(days=36_500)
_A_HAIR = 1e-6
_EVERYBODY = 1_000_000
_VAIN = 3
_VAIN_AT_ALL = 20


class Process:
    """Claims what is due and carries it, as a worker does, without lease or polling."""

    def __init__(
        self,
        life: Life,
        loop: VirtualLoop,
        database: MemoryDatabase,
        codec: Codec,
        stage: Stage,
        sagas: Mapping[Definition, Saga[Any, Any]],
        give_up: Callable[[BaseException], None],
    ) -> None:
        self.life = life
        self._loop = loop
        self._sagas = sagas
        self._give_up = give_up
        self._store = _mortal(database.store(), stage, life)
        telemetry = SilentTelemetry()
        self._parents = stage.parents
        self.executor = StagedExecutor(stage, life, codec, self._store, self._announce)
        self.engine = Engine(
            self._store,
            codec,
            Recorder(self._store.events, telemetry),
            self.executor,
            telemetry,
            sagas,
            owner=life.owner,
            may_act=lambda: True,
        )
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._vain: dict[str, tuple[int, int]] = {}
        self._vain_at_all = (0, 0)

    async def work(self) -> None:
        """Until it dies."""
        store = self._store
        await store.fleet.retire_dead()
        await store.fleet.join(self.life.owner, f"process {self.life.number}", _FOREVER)
        store.hints.listen(DUE, self._news.set)
        while True:
            self._news.clear()
            for owned in await store.queue.owned(self.life.owner):
                self.engine.tell_inbox(owned.saga_id, owned.inbox_seq)
            for claim in await store.queue.claim(self.life.owner, _EVERYBODY, list(self._sagas)):
                self._take(claim)
            due = await self._next_due()
            timer = due and self._loop.call_later(
                max((due - self._loop.now()).total_seconds(), 0.0), self._news.set
            )
            await self._news.wait()
            if timer:
                timer.cancel()

    def _announce(self) -> None:
        """Have it recorded that a step is still running, as a worker does every moment."""
        self.engine.announce_overdue(self._loop.time() - ANNOUNCE_AFTER + _A_HAIR)

    def _take(self, claim: Claim) -> None:
        self._parents[claim.saga_id] = claim.parent or ""
        task = asyncio.create_task(self._carry(claim))
        self._carried[claim.saga_id] = task

        def done(_: asyncio.Task[None]) -> None:
            if self._carried.get(claim.saga_id) is task:
                del self._carried[claim.saga_id]
            self._news.set()

        task.add_done_callback(done)

    async def _carry(self, claim: Claim) -> None:
        try:
            await self.engine.advance(claim)
            await self._note_progress(claim)
        except OwnershipLostError:
            again = await self._store.queue.reclaim(self.life.owner, claim.saga_id, claim.epoch)
            if again is not None:
                await self._carry(again)
        except Exception as error:  # noqa: BLE001 - whoever drives the simulation gets it
            self._give_up(error)

    async def _note_progress(self, claim: Claim) -> None:
        """Count how often an instance was taken up for nothing: it only looks after others."""
        instance = await self._store.reads.get(claim.saga_id)
        head = instance.head if instance is not None else 0
        times, before = self._vain.get(claim.saga_id, (0, -1))
        self._vain[claim.saga_id] = (times + 1 if head == before else 0, head)
        everything = await self._store.feed.lag("")
        times, before = self._vain_at_all
        self._vain_at_all = (times + 1 if everything == before else 0, everything)

    async def _next_due(self) -> datetime | None:
        """When to look again. Those that only look after others, and found nothing, come last."""
        waiting = [
            (instance.due_at, instance.saga_id)
            for instance in await self._store.reads.search(Filter(limit=_EVERYBODY))
            if instance.owner is None
            and instance.due_at is not None
            and (instance.name, instance.version) in self._sagas
        ]
        hopeful = [due for due, saga_id in waiting if self._vain.get(saga_id, (0, 0))[0] < _VAIN]
        if not hopeful and self._vain_at_all[0] < _VAIN_AT_ALL:
            hopeful = [due for due, _ in waiting]
        return min(hopeful, default=None)


# ---------------------------------------------------------------------------- what may die


def _mortal(store: Store, stage: Stage, life: Life) -> Store:
    """The store as a process sees it that may die before and after whatever it writes."""
    return replace(
        store,
        events=_MortalEvents(store.events, stage, life),
        requests=_MortalRequests(store.requests, stage, life),
        inbox=_MortalInbox(store.inbox, stage, life),
        transactions=StagedTransactions(store.transactions, stage),
    )


@dataclass(frozen=True, slots=True)
class _MortalEvents:
    inner: EventStore
    stage: Stage
    life: Life

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        what = _written(batch)
        await self.stage.moment(self.life, f"before {what} was recorded")
        written = await self.inner.append(batch)
        self.stage.note(batch, written)
        await self.stage.moment(self.life, f"after {what} was recorded")
        return written

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        return await self.inner.read(saga_id, after)


@dataclass(frozen=True, slots=True)
class _MortalRequests:
    inner: Requests
    stage: Stage
    life: Life

    async def start(
        self, batch: Sequence[StartRequest], within: object | None = None
    ) -> list[StartAnswer]:
        names = ", ".join(request.name for request in batch)
        await self.stage.moment(self.life, f"before child {names} was started")
        answers = await self.inner.start(batch, within)
        await self.stage.moment(self.life, f"after child {names} was started")
        return answers


@dataclass(frozen=True, slots=True)
class _MortalInbox:
    inner: Inbox
    stage: Stage
    life: Life

    async def send(
        self, saga_id: str, kind: str, payload: Mapping[str, Any], *, actor: str, dedupe_key: str
    ) -> Reply:
        await self.stage.moment(self.life, f"before {kind} was sent")
        reply = await self.inner.send(saga_id, kind, payload, actor=actor, dedupe_key=dedupe_key)
        await self.stage.moment(self.life, f"after {kind} was sent")
        return reply

    async def read(self, saga_id: str, after: int) -> list[Message]:
        return await self.inner.read(saga_id, after)


def _written(batch: Sequence[Append]) -> str:
    """The events of a batch in words: `StepSucceeded order/1`."""
    rows = [row for append in batch for row in append.events]
    return ", ".join(f"{row.type} {row.node}".strip() for row in rows) or "where it waits"
