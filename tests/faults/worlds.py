"""The stores that are held against the model: one on Postgres, behind a wire, and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import asyncpg

from orchestrator.adapters import memory
from orchestrator.adapters.clock import ManualClock
from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import UnknownOutcomeError
from orchestrator.ports import Append, Store
from tests.faults.model import LATER, NOW
from tests.faults.wire_proxy import WireProxy

Cut = Literal["before", "after"]
SECOND = timedelta(seconds=1)

ROWS = """
SELECT s.id::text, s.status, s.head, s.epoch, s.owner::text,
    CASE WHEN s.owner IS NOT NULL OR s.due_at IS NULL THEN NULL
         WHEN s.due_at <= clock_timestamp() THEN 'now' ELSE 'later' END,
    s.inbox_seq, s.inbox_seen, s.claims, s.pivoted,
    ARRAY(SELECT ARRAY[e.version, e.epoch] FROM event e WHERE e.saga_id = s.id ORDER BY e.version),
    ARRAY(SELECT i.kind || ' ' || (i.payload ->> 'n') FROM inbox i WHERE i.saga_id = s.id ORDER BY i.seq)
FROM saga s WHERE s.name = $1 ORDER BY s.id
"""


class World(Protocol):
    """One store, and what a test does to it from outside."""

    store: Store

    async def cut(self, cut: Cut, append: Append) -> None:
        """Append by a connection that is cut before the commit, or after it."""

    async def make_due(self, saga_id: str) -> None:
        """Let the time come for which an instance waits."""

    async def expire(self, worker: str) -> None:
        """Let the lease of a worker run out."""

    async def rows(self, name: str) -> list[tuple[Any, ...]]:
        """The instances of a saga, as `Instance.shown` has them."""


class PostgresWorld:
    """The real one."""

    def __init__(self, store: Store, flaky: Store, wire: WireProxy, side: Any) -> None:
        self.store = store
        self._flaky = flaky
        self._wire = wire
        self._side = side

    async def cut(self, cut: Cut, append: Append) -> None:
        plan = {"before": self._wire.cut_before_commit, "after": self._wire.cut_after_commit}
        fault = plan[cut]("INSERT INTO event")
        try:
            await self._flaky.events.append([append])
        except UnknownOutcomeError:
            assert fault.fired == 1
        else:
            raise AssertionError("the connection was cut, and nobody noticed")
        finally:
            self._wire.faults.remove(fault)

    async def make_due(self, saga_id: str) -> None:
        await self._side.execute(
            "UPDATE saga SET due_at = clock_timestamp() WHERE id = $1", saga_id
        )

    async def expire(self, worker: str) -> None:
        await self._side.execute(
            "UPDATE worker SET lease_until = clock_timestamp() - interval '1 s' WHERE id = $1",
            worker,
        )

    async def rows(self, name: str) -> list[tuple[Any, ...]]:
        return [
            (*row[:10], [tuple(pair) for pair in row[10]], [_message(text) for text in row[11]])
            for row in await self._side.fetch(ROWS, name)
        ]


def _message(text: str) -> tuple[str, int]:
    kind, number = text.split()
    return kind, int(number)


class MemoryWorld:
    """The fake that simulations trust."""

    def __init__(self) -> None:
        self._clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
        self._database = memory.MemoryDatabase(self._clock)
        self.store = self._database.store()

    async def cut(self, cut: Cut, append: Append) -> None:
        if cut == "after":
            await self.store.events.append([append])

    async def make_due(self, saga_id: str) -> None:
        self._database._tables.sagas[saga_id].due_at = self._clock.now()

    async def expire(self, worker: str) -> None:
        lease = self._database._tables.workers.get(worker)
        if lease is not None:
            lease.lease_until = self._clock.now() - SECOND

    async def rows(self, name: str) -> list[tuple[Any, ...]]:
        found = self._database._tables.sagas.items()
        return [
            (
                saga_id, str(row.status), row.head, row.epoch, row.owner, self._due(row),
                row.inbox_seq, row.inbox_seen, row.claims, row.pivoted,
                [(event.version, event.epoch) for event in row.events],
                [(message.kind, message.payload["n"]) for message in row.inbox],
            )
            for saga_id, row in sorted(found)
            if row.request.name == name
        ]  # fmt: skip

    def _due(self, row: Any) -> str | None:
        if row.owner is not None or row.due_at is None:
            return None
        return NOW if row.due_at <= self._clock.now() else LATER


@asynccontextmanager
async def postgres_world(dsn: str) -> AsyncIterator[PostgresWorld]:
    """The database at *dsn*, and a wire to it."""
    settings = PostgresSettings(presence=False)
    async with (
        WireProxy(dsn) as wire,
        open_store(dsn, settings=settings) as store,
        open_store(wire.dsn, settings=settings) as flaky,
    ):
        side = await asyncpg.connect(dsn)
        try:
            yield PostgresWorld(store, flaky, wire, side)
        finally:
            await side.close()
