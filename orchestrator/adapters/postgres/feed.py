"""All events in the order of their positions, none missing.

Positions are handed out before the commit, so a slower transaction's event can appear below one
that was read already. The cure is a gate: every append holds it shared from before its positions
until its end, and whoever has held it exclusively for an instant knows that everything up to the
position noted then is there.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta

from orchestrator.adapters.postgres.pool import Connection, Database, Record
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.shards import WHOLE, Shard, require_shards
from orchestrator.errors import UnavailableError
from orchestrator.ports import Cursor, EventRow, FeedEvent, FeedPage, RelayStanding, Telemetry

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends with the event that goes over this."""

_SPAN = 10_000
"""Positions that a page of one shard looks through at most: most of them may be of others."""


class PostgresFeed:
    """orchestrator.ports.Feed. A page has at most *page_bytes* of payload, or one event."""

    def __init__(
        self,
        database: Database,
        page_bytes: int = PAGE_BYTES,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._database = database
        self._page_bytes = page_bytes
        self._settled = 0
        self._settling = asyncio.Lock()
        self._telemetry = telemetry

    async def acquire(self, relay: str, owner: str, ttl: timedelta) -> Cursor | None:
        rows = await self._database.fetch(sql("acquire_relay"), relay, owner, ttl)
        return Cursor(rows[0]["position"], rows[0]["epoch"]) if rows else None

    async def read(self, after: int, limit: int, shard: Shard = WHOLE) -> FeedPage:
        """As the port says; nothing, for now, while the gate cannot be had."""
        try:
            if self._settled <= after:
                async with self._settling:  # readers of several shards wait for one look
                    if self._settled <= after:
                        await self._settle(after)
            if self._settled <= after:
                return FeedPage((), after)
            upto = self._settled if shard.of == 1 else min(self._settled, after + _SPAN)
            rows = await self._database.fetch(
                sql("read_feed"), after, upto, limit, self._page_bytes, shard.index, shard.of
            )
        except UnavailableError:
            # After a failover the positions may have gone back: what was settled is so no more.
            self._settled = 0
            raise
        events = tuple(_event(row) for row in rows)
        cut = len(rows) == limit or (rows and rows[-1]["total"] >= self._page_bytes)
        return FeedPage(events, events[-1].row.position if cut else upto)

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        return bool(
            await self._database.fetch(
                sql("move_checkpoint"), relay, owner, cursor.epoch, cursor.position, ttl
            )
        )

    async def rewind(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        return bool(
            await self._database.fetch(
                sql("rewind_relay"), relay, owner, cursor.epoch, cursor.position, ttl
            )
        )

    async def give_up(self, relay: str, owner: str) -> None:
        await self._database.fetch(sql("give_up_relay"), relay, owner)

    async def pin(self, relay: str, shards: int) -> None:
        async def make(connection: Connection) -> int:
            await connection.fetch(sql("lock_shards"), relay)
            [row] = await connection.fetch(sql("pin_shards"), relay, shards)
            known: int = row["shards"]
            return known

        require_shards(relay, shards, await self._database.transact(make))

    async def attend(self, relay: str, owner: str, ttl: timedelta) -> list[str]:
        rows = await self._database.fetch(sql("attend_relay"), relay, owner, ttl)
        return [row["owner"] for row in rows]

    async def leave(self, relay: str, owner: str) -> None:
        await self._database.fetch(sql("leave_relay"), relay, owner)

    async def lag(self, relay: str) -> int:
        lag: int = (await self._database.fetch(sql("read_lag"), relay))[0]["lag"]
        return lag

    async def relays(self) -> list[RelayStanding]:
        return [standing_of(row) for row in await self._database.fetch(sql("list_relays"))]

    async def _settle(self, after: int) -> None:
        """Find out up to where everything is there. The gate is left alone when nothing is new."""
        [last] = await self._database.fetch(sql("read_position"))
        if last["high"] < after:
            # What is written from now on would get positions that were read already.
            raise UnavailableError(
                f"{self._database.where}: the log ends at {last['high']}, before {after}; an "
                "older state of the database was brought back"
            )
        if last["high"] == after:
            return
        patience = f"{int(self._database.settings.gate_timeout * 1000)}ms"
        began = time.monotonic()
        rows = await self._database.fetch_unless_locked(sql("settle_feed"), patience)
        if rows is not None:
            self._settled = rows[0]["high"]
        if self._telemetry is not None:
            self._telemetry.batch("feed_gate", 1, time.monotonic() - began)
            self._telemetry.count("feed_gate_timeouts", by=rows is None)


def standing_of(row: Record) -> RelayStanding:
    """A row of `list_relays`."""
    owner = row["owner"] if row["alive"] else None
    return RelayStanding(row["relay"], row["position"], owner, row["lease_until"])


def _event(row: Record) -> FeedEvent:
    (
        saga_id, version, type_, node, attempt, epoch, data, meta, recorded_at, hash_, position,
        name, saga_version, correlation_id, key, parent, tags, turn, _,
    ) = row  # fmt: skip
    return FeedEvent(
        EventRow(
            saga_id, version, type_, node, attempt, epoch, data, meta, recorded_at, hash_, position
        ),
        name,
        saga_version,
        correlation_id,
        key,
        parent,
        {} if tags == "{}" else json.loads(tags),
        turn or "",
    )
