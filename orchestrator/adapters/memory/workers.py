"""The side of the workers: the log they append to, the work they claim, the list they are on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestrator.adapters.memory.tables import AT_REST, SagaRow, Tables, WorkerRow
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import (
    SUSPECT,
    Append,
    Claim,
    Definition,
    EventRow,
    Member,
    Owned,
    Retired,
)


class MemoryEventStore:
    """The log, and the conditional append."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        rows = self._tables.sagas
        # Told before anything is written: one statement does not see its own changes.
        fit = [append for append in batch if _fits(rows.get(append.saga_id), append)]
        written: dict[str, int] = {}
        for append in fit:
            if append.saga_id not in written:
                written[append.saga_id] = self._write(rows[append.saga_id], append)
        return written

    def _write(self, row: SagaRow, append: Append) -> int:
        tables = self._tables
        for event in append.events:
            stored = replace(event, position=len(tables.log) + 1)
            row.events.append(stored)
            tables.log.append(row.told(stored))
        row.status, row.due_at, row.owner = append.status, append.due_at, append.owner_after
        row.pivoted = row.pivoted or append.pivoted
        row.inbox_seen = min(max(row.inbox_seen, append.inbox_seen), row.inbox_seq)
        row.claims, row.updated_at = 0, tables.clock.now()
        return row.inbox_seq

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        row = self._tables.sagas.get(saga_id)
        return row.events[max(after, 0) :] if row is not None else []


def _fits(row: SagaRow | None, append: Append) -> bool:
    if row is None or (row.owner, row.epoch, row.head) != (
        append.owner,
        append.epoch,
        append.head,
    ):
        return False
    return not append.if_inbox or row.inbox_seq <= append.inbox_seen


class MemoryTransaction:
    """A transaction that holds nothing but its append: there is no database to write to."""

    def __init__(self, events: MemoryEventStore) -> None:
        self.handle: Any = None
        self._events = events

    async def append(self, append: Append) -> int:
        written = await self._events.append([append])
        if append.saga_id not in written:
            raise OwnershipLostError(f"saga {append.saga_id} was refused at epoch {append.epoch}")
        return written[append.saga_id]


class MemoryTransactions:
    """Transactions whose handle is None, whatever is wanted: for steps that are simulated."""

    def __init__(self, tables: Tables) -> None:
        self._events = MemoryEventStore(tables)

    @asynccontextmanager
    async def open(self, wanted: Any) -> AsyncIterator[MemoryTransaction]:
        yield MemoryTransaction(self._events)


class MemoryWorkQueue:
    """Claims, by due time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
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
        ]
        due.sort(key=lambda found: found[:2])
        return [_take(row, owner) for _, _, row in due[: max(limit, 0)]]

    async def reclaim(
        self, owner: str, saga_id: str, epoch: int, *, counts: bool = True
    ) -> Claim | None:
        row = self._tables.sagas.get(saga_id)
        if row is None or (row.owner, row.epoch) != (owner, epoch):
            return None
        return _take(row, owner, counts=counts)

    async def release(
        self,
        owner: str,
        saga_ids: Sequence[str],
        delay: timedelta = timedelta(0),
        *,
        untouched: bool = False,
    ) -> None:
        for saga_id in saga_ids:
            row = self._tables.sagas.get(saga_id)
            if row is not None and row.owner == owner:
                row.owner, row.due_at = None, self._tables.clock.now() + delay
                row.claims -= untouched and 0 < row.claims < SUSPECT

    async def owned(self, owner: str) -> list[Owned]:
        return [
            Owned(saga_id, row.epoch, row.inbox_seq)
            for saga_id, row in self._tables.sagas.items()
            if row.owner == owner
        ]


def _take(row: SagaRow, owner: str, *, counts: bool = False) -> Claim:
    row.owner, row.epoch = owner, row.epoch + 1
    row.claims += counts or row.claims < SUSPECT
    request = row.request
    return Claim(
        request.saga_id,
        request.name,
        request.version,
        request.fingerprint,
        row.epoch,
        row.head,
        row.status,
        row.inbox_seq,
        row.claims,
        row.created_at,
        None if row.head else request.input,
        request.context,
        request.parent,
        request.parent_node,
        row.inbox_seen,
    )


class MemoryFleet:
    """The list of workers, as one process sees it: its own presences end when it is cut off."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._joined: set[str] = set()

    async def join(
        self,
        worker_id: str,
        label: str,
        ttl: timedelta,
        definitions: Sequence[Definition] | None = None,
    ) -> None:
        now = self._tables.clock.now()
        served = None if definitions is None else tuple(sorted(definitions))
        self._tables.workers[worker_id] = WorkerRow(
            now + ttl, label=label, joined_at=now, definitions=served
        )
        self._joined.add(worker_id)

    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        worker = self._tables.workers.get(worker_id)
        if worker is None:
            return False
        worker.lease_until, worker.present = self._tables.clock.now() + ttl, True
        return True

    async def oldest_transaction(self) -> float:
        return 0.0

    async def retire_dead(self) -> list[Retired]:
        tables, now = self._tables, self._tables.clock.now()
        dead = {
            worker_id: "its connection is gone" if worker.lease_until > now else "its lease ran out"
            for worker_id, worker in tables.workers.items()
            if worker.lease_until <= now or not worker.present
        }
        for worker_id in dead:
            del tables.workers[worker_id]
        return [Retired(worker_id, why, tables.free(worker_id)) for worker_id, why in dead.items()]

    async def leave(self, worker_id: str) -> None:
        self._tables.workers.pop(worker_id, None)
        self._tables.free(worker_id)

    async def members(self) -> list[Member]:
        now = self._tables.clock.now()
        return [
            Member(
                worker_id, row.label, row.joined_at or now, row.lease_until,
                row.present and row.lease_until > now, row.definitions,
            )
            for worker_id, row in self._tables.workers.items()
        ]  # fmt: skip

    def cut(self) -> None:
        """Lose the connection: every presence of this process is gone, its leases run on."""
        for worker_id in self._joined & self._tables.workers.keys():
            self._tables.workers[worker_id].present = False
