"""The rows of the fake in memory, as a server changes them: in two moments, and around locks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.memory.public import (
    MemoryFeed,
)
from orchestrator.adapters.memory.tables import AT_REST, SagaRow
from orchestrator.adapters.memory.workers import (
    MemoryEventStore,
    MemoryWorkQueue,
    _fits,
    _take,
)
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import Append, Claim, Definition, FeedEvent, FeedPage

if TYPE_CHECKING:
    from tests.simulation.database import Database


class SimEventStore(MemoryEventStore):
    """The conditional append in two moments: positions are handed out before the commit."""

    locks = True

    def __init__(self, database: Database) -> None:
        super().__init__(database.tables)
        self._database = database

    def prepare(self, batch: Sequence[Append]) -> list[tuple[Append, int]]:
        """The appends of *batch* that fit, each with its first position."""
        rows, found = self._tables.sagas, []
        for append in batch:
            if self.fits(rows.get(append.saga_id), append):
                found.append((append, self._database.last + 1))
                self._database.last += len(append.events)
        return found

    def fits(self, row: SagaRow | None, append: Append) -> bool:
        return _fits(row, append)

    def finish(self, prepared: list[tuple[Append, int]]) -> dict[str, int]:
        rows, written = self._tables.sagas, {}
        for append, position in prepared:
            row = rows[append.saga_id]
            # The row as the fake writes it; the events with the positions that they were given.
            written[append.saga_id] = self._write(row, replace(append, events=()))
            log = self._tables.log
            for number, event in enumerate(append.events, start=position):
                stored = replace(event, position=number)
                row.events.append(stored)
                log.insert(bisect_right(log, number, key=_position), row.told(stored))
            self._database.note_append(append)
        return written


class SimWorkQueue(MemoryWorkQueue):
    """Claims that skip locked rows."""

    def candidates(
        self, owner: str, limit: int, definitions: Sequence[Definition], locked: Any
    ) -> list[SagaRow]:
        if owner not in self._tables.workers:
            raise OwnershipLostError(f"worker {owner} was retired; it must join anew")
        now, wanted = self._tables.clock.now(), set(definitions)
        due = [
            (row.due_at, saga_id, row)
            for saga_id, row in self._tables.sagas.items()
            if row.owner is None
            and row.due_at is not None
            and row.due_at <= now
            and row.status not in AT_REST
            and (row.request.name, row.request.version) in wanted
            and saga_id not in locked
        ]
        due.sort(key=lambda found: found[:2])
        return [row for _, _, row in due[: max(limit, 0)]]

    def take(self, rows: Sequence[SagaRow], owner: str) -> list[Claim]:
        return [_take(row, owner) for row in rows]


class SimFeed(MemoryFeed):
    """The log by position, with holes where appends were rolled back."""

    gated = True

    def __init__(self, database: Database) -> None:
        super().__init__(database.tables)
        self._database = database

    def settled(self) -> int:
        """Up to where everything is there: what the gate tells who has held it for an instant."""
        return self._database.last

    def page(self, after: int, limit: int) -> FeedPage:
        log, settled = self._tables.log, self.settled()
        start = bisect_right(log, after, key=_position)
        events = tuple(e for e in log[start : start + limit] if e.row.position <= settled)
        cut = len(events) == limit
        return FeedPage(events, events[-1].row.position if cut else max(settled, after))


def _position(event: FeedEvent) -> int:
    return event.row.position
