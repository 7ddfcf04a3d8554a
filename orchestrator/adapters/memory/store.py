"""One database in memory, and the handles that processes have on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.memory.public import (
    MemoryFeed,
    MemoryHints,
    MemoryInbox,
    MemoryReadModel,
    MemoryRequests,
)
from orchestrator.adapters.memory.shared_state import MemorySharedState
from orchestrator.adapters.memory.tables import Tables
from orchestrator.adapters.memory.workers import (
    MemoryEventStore,
    MemoryFleet,
    MemoryTransactions,
    MemoryWorkQueue,
)
from orchestrator.ports import Clock, Store


@dataclass(frozen=True, slots=True)
class MemoryStore(Store):
    """One process's handle on a database in memory."""

    fleet: MemoryFleet
    database: MemoryDatabase

    def vanish(self, worker_id: str) -> None:
        """Let a worker's presence be gone, as if its process had been killed."""
        self.database.vanish(worker_id)


class MemoryDatabase:
    """The rows that several handles share: each `store()` stands for a process of its own."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._tables = Tables(clock or SystemClock())
        self._hints = MemoryHints()
        self._shared = MemorySharedState(self._tables.clock)

    def store(self) -> MemoryStore:
        tables = self._tables
        return MemoryStore(
            events=MemoryEventStore(tables),
            queue=MemoryWorkQueue(tables),
            fleet=MemoryFleet(tables),
            requests=MemoryRequests(tables),
            inbox=MemoryInbox(tables),
            feed=MemoryFeed(tables),
            reads=MemoryReadModel(tables),
            clock=tables.clock,
            hints=self._hints,
            shared=self._shared,
            transactions=MemoryTransactions(tables),
            database=self,
        )

    def vanish(self, worker_id: str) -> None:
        """Let a worker's presence be gone, as if its process had been killed."""
        if (worker := self._tables.workers.get(worker_id)) is not None:
            worker.present = False


@asynccontextmanager
async def open_store(
    clock: Clock | None = None, *, database: MemoryDatabase | None = None
) -> AsyncIterator[MemoryStore]:
    """A store on *database*, or on a new one; when it closes, its presences are gone."""
    store = (database or MemoryDatabase(clock)).store()
    try:
        yield store
    finally:
        store.fleet.cut()
