"""Removing what ended long ago, so that readers hear of it and nothing that is owed is lost.

An instance and its events go in one transaction, which leaves one event behind: `SagaRemoved`. It
is published like any other, and the relay makes the tombstone on the state topic of it. Once it is
published the next removal takes it away too, and drops the months that are empty by then.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from orchestrator.adapters.postgres.feed import standing_of
from orchestrator.adapters.postgres.partitions import drop_empty, first_id
from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings, Record
from orchestrator.adapters.postgres.schema import verify_schema
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.chain import link
from orchestrator.ports import Removable, Removed

PAGE = 100
_NOTHING = str(UUID(int=0))
_RETAIN = "SELECT set_config('saga.retention', 'on', true)"
_DELETES = tuple(
    f"DELETE FROM {table} WHERE {column} = ANY($1::uuid[])"  # noqa: S608 - names of our own tables
    for table, column in (("inbox", "saga_id"), ("saga_input", "saga_id"), ("saga", "id"))
)


async def look(dsn: str, before: datetime, name: str | None = None) -> Removable:
    """What `remove` would find. Changes nothing."""
    async with _opened(dsn) as database:
        [bound] = await database.fetch(sql("read_published"))
        rows = await database.fetch_list(sql("count_removable"), before, name, bound["position"])
        ended, unpublished, events, held = (
            rows[0][column] for column in ("ended", "unpublished", "events", "held")
        )
        relays = await database.fetch(sql("list_relays")) if unpublished else []
        behind = min(map(standing_of, relays), key=lambda relay: relay.position, default=None)
        return Removable(ended, int(events), unpublished, held, behind)


async def remove(
    dsn: str,
    before: datetime,
    name: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Removed:
    """Remove the instances that ended before *before*, page by page.

    Each page is a transaction: cut off anywhere, what is gone is gone with its tombstone on the
    way, and the next call goes on.
    """
    sagas = events = 0
    async with _opened(dsn) as database:
        batch = _Batch(before, name)
        async for page_sagas, page_events in _pages(database, batch):
            sagas, events = sagas + page_sagas, events + page_events
            if progress is not None:
                progress(sagas)
        await _forget(database, batch)
        months = await database.with_connection(lambda c: drop_empty(c, before))
    return Removed(sagas, events, tuple(months))


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is to be removed."""

    before: datetime
    name: str | None


async def _pages(database: Database, batch: _Batch) -> AsyncIterator[tuple[int, int]]:
    """Instances and events of each page. Children go after their parents, so it goes round again."""
    again = True
    while again:
        again, after = False, _NOTHING
        while page := await database.transact(partial(_remove_page, batch=batch, after=after)):
            again, after = True, page[-1]["id"]
            yield len(page), sum(row["head"] for row in page)


async def _remove_page(connection: Connection, *, batch: _Batch, after: str) -> list[Record]:
    """The instances of one page, which are gone with all that was theirs when this commits."""
    before = str(first_id(batch.before))
    published, relayed = await _published(connection)
    page = await connection.fetch(
        sql("list_removable"), batch.before, after, before, batch.name, PAGE, published
    )
    if not page:
        return page
    ids = [row["id"] for row in page]
    await connection.execute(_RETAIN)
    await connection.execute("DELETE FROM event WHERE saga_id = ANY($1::uuid[])", ids)
    for statement in _DELETES:
        await connection.execute(statement, ids)
    if relayed and (known := [row for row in page if row["head"]]):
        await _mark(connection, known)
    return page


async def _published(connection: Connection) -> tuple[int, bool]:
    """Up to where every relay has published, and whether there ever was one.

    Where there was none, none begins before this transaction ends: it would publish half of a saga.
    """
    [bound] = await connection.fetch(sql("read_published"))
    if not bound["relayed"]:
        await connection.execute("LOCK TABLE relay_cursor IN SHARE MODE")
        [bound] = await connection.fetch(sql("read_published"))
    return bound["position"], bound["relayed"]


async def _mark(connection: Connection, page: Sequence[Record]) -> None:
    """Leave the event behind by which readers hear of it, at the end of each one's hash chain."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    facts = [json.dumps({"saga": row["name"], "saga_version": row["saga_version"]}) for row in page]
    hashes = [
        link(row["hash"], row["id"], row["head"] + 1, "SagaRemoved", "", 0, row["epoch"], now, "{}", fact)
        for row, fact in zip(page, facts, strict=True)
    ]  # fmt: skip
    await connection.execute(
        sql("mark_removed"), [row["id"] for row in page], [row["head"] + 1 for row in page],
        [row["epoch"] for row in page], facts, now, hashes,
    )  # fmt: skip


async def _forget(database: Database, batch: _Batch) -> None:
    """Take away what earlier removals left behind, where every relay has published it."""

    async def forget(connection: Connection) -> int:
        await connection.execute(_RETAIN)
        before, (published, _) = str(first_id(batch.before)), await _published(connection)
        done = await connection.execute(sql("forget_removed"), published, before, 10 * PAGE)
        return int(done.rpartition(" ")[2])

    while await database.transact(forget):
        pass


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, PostgresSettings(command_timeout=60.0))
    try:
        await database.open()
        await database.with_connection(verify_schema)
        yield database
    finally:
        await database.close()
