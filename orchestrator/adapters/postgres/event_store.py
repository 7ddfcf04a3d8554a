"""The log in Postgres: one statement and one commit for each batch of appends."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from orchestrator.adapters.postgres.pool import Database
from orchestrator.adapters.postgres.statements import sql
from orchestrator.errors import InvalidInputError, UnavailableError, UnknownOutcomeError
from orchestrator.ports import Append, EventRow

log = logging.getLogger(__name__)

_by_id = attrgetter("saga_id")
_head = attrgetter(
    "saga_id", "owner", "epoch", "head", "status", "due_at", "owner_after", "inbox_seen", "if_inbox",
    "pivoted",
)  # fmt: skip
_row = attrgetter(
    "version", "type", "node", "attempt", "epoch", "data", "meta", "recorded_at", "hash"
)


class PostgresEventStore:
    """orchestrator.ports.EventStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        if len({append.saga_id for append in batch}) != len(batch):
            raise ValueError("a batch holds one append for each instance")
        if not batch:
            return {}
        try:
            return await self._append(sorted(batch, key=_by_id))
        except _RefusedError as error:
            if len(batch) == 1:
                raise UnavailableError(str(error)) from error
        return await self._append_singly(batch)

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        rows = await self._database.fetch(sql("read_events"), saga_id, after)
        return [
            EventRow(saga_id, version, type_, node, attempt, epoch, data, meta, at, hash_, position)
            for version, position, type_, node, attempt, epoch, data, meta, at, hash_ in rows
        ]

    async def _append(self, batch: Sequence[Append]) -> dict[str, int]:
        try:
            rows = await self._database.commit(sql("append_events"), *columns(batch))
        except InvalidInputError as error:
            raise _RefusedError(str(error)) from error
        return {row["id"]: row["inbox_seq"] for row in rows}

    async def _append_singly(self, batch: Sequence[Append]) -> dict[str, int]:
        """One value that the database refuses must not take its neighbours down with it."""
        written: dict[str, int] = {}
        for append in batch:
            try:
                written |= await self._append([append])
            except _RefusedError as error:
                log.warning("saga %s is not written: %s", append.saga_id, error)
            except UnavailableError as error:
                # Some of the batch are committed, so the whole of it is unknown.
                raise UnknownOutcomeError(str(error)) from error
        return written


class _RefusedError(Exception):
    """The database cannot store one of the values."""


def columns(batch: Sequence[Append]) -> list[object]:
    """The batch as arrays: a column for each field of the appends, then of their events."""
    ids, owners, epochs, heads, statuses, dues, after, seen, if_inbox, pivoted = zip(
        *map(_head, batch), strict=True
    )
    new_heads = [a.events[-1].version if a.events else a.head for a in batch]
    events = [event for append in batch for event in append.events]
    numbers = [n for n, append in enumerate(batch, start=1) for _ in append.events]
    columns: Iterable[Iterable[object]] = (
        zip(*map(_row, events), strict=True) if events else [()] * 9
    )
    return [
        ids, owners, epochs, heads, new_heads, statuses, dues, after, seen, if_inbox, pivoted,
        len(batch), numbers, *columns, len(events),
    ]  # fmt: skip
