"""The side of everybody else: those who start and tell, who publish the feed, and who look."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from orchestrator.adapters.answers import frees, kind_of, reply_to
from orchestrator.adapters.memory.tables import AT_REST, CursorRow, SagaRow, Tables
from orchestrator.domain.events import Json, Status
from orchestrator.domain.shards import WHOLE, Shard, require_shards, shard_name
from orchestrator.errors import InvalidInputError
from orchestrator.ports import (
    Cursor,
    FeedPage,
    Filter,
    Instance,
    Message,
    RelayStanding,
    Reply,
    StartAnswer,
    StartRequest,
)


class MemoryRequests:
    """New instances, one for each key. There are no transactions here that a start could ride in."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def start(
        self, batch: Sequence[StartRequest], within: object | None = None
    ) -> list[StartAnswer]:
        if within is not None:
            raise InvalidInputError(
                "a store in memory has no transactions; start without one, or use Postgres"
            )
        return [self._start(request) for request in batch]

    def _start(self, request: StartRequest) -> StartAnswer:
        tables = self._tables
        known = request.saga_id
        if known in tables.sagas:
            # The same id is the same request, sent again.
            return StartAnswer(known, created=False)
        if request.key is not None:
            known = tables.keys.setdefault((request.name, request.key), known)
        if known in tables.sagas:
            same = tables.sagas[known].request.input == request.input
            return StartAnswer(known, created=False, same_input=same)
        now = tables.clock.now()
        tables.sagas[known] = SagaRow(request, created_at=now, updated_at=now, due_at=now)
        return StartAnswer(known, created=True)


class MemoryInbox:
    """Messages to instances, each dedupe key once."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def send(
        self, saga_id: str, kind: str, payload: Mapping[str, Any], *, actor: str, dedupe_key: str
    ) -> Reply:
        asked = kind_of(kind)
        row, now = self._tables.sagas.get(saga_id), self._tables.clock.now()
        if row is None:
            return Reply.NOT_FOUND
        if dedupe_key in row.dedupe_keys:
            return Reply.DUPLICATE
        unread = row.inbox_seq - row.inbox_seen
        answer = reply_to(asked, row.status, pivoted=row.pivoted, unread=unread)
        if answer is not Reply.ACCEPTED:
            return answer
        # Through JSON, as a database would: what comes back is never the sender's own object.
        stored = json.loads(json.dumps(dict(payload)))
        row.dedupe_keys.add(dedupe_key)
        row.inbox.append(Message(row.inbox_seq + 1, asked.value, stored, actor, now))
        if frees(asked, row.status):
            row.status, row.updated_at = Status.WAITING, now
        if row.status is not Status.STUCK:
            row.due_at = now if row.due_at is None else min(row.due_at, now)
        return Reply.ACCEPTED

    async def read(self, saga_id: str, after: int) -> list[Message]:
        row = self._tables.sagas.get(saga_id)
        return row.inbox[max(after, 0) :] if row is not None else []


class MemoryFeed:
    """The log by position, and the checkpoints of its relays."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def acquire(self, relay: str, owner: str, ttl: timedelta) -> Cursor | None:
        row, now = self._tables.cursors.setdefault(relay, CursorRow()), self._tables.clock.now()
        if row.owner != owner:
            if row.owner is not None and row.lease_until is not None and row.lease_until > now:
                return None
            row.owner, row.epoch = owner, row.epoch + 1
        row.lease_until = now + ttl
        return Cursor(row.position, row.epoch)

    async def read(self, after: int, limit: int, shard: Shard = WHOLE) -> FeedPage:
        start, log = max(after, 0), self._tables.log
        found = (log[i] for i in range(start, len(log)) if shard.has(log[i].row.saga_id))
        events = tuple(islice(found, max(limit, 0)))
        cut = len(events) == limit
        return FeedPage(events, events[-1].row.position if cut else max(after, len(log)))

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        row = self._tables.cursors.get(relay)
        if row is None or (row.owner, row.epoch) != (owner, cursor.epoch):
            return False
        row.position = max(row.position, cursor.position)
        row.lease_until = self._tables.clock.now() + ttl
        return True

    async def rewind(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        moved = await self.checkpoint(relay, owner, cursor, ttl)
        if moved:
            self._tables.cursors[relay].position = cursor.position
        return moved

    async def give_up(self, relay: str, owner: str) -> None:
        row = self._tables.cursors.get(relay)
        if row is not None and row.owner == owner:
            row.owner = row.lease_until = None

    async def pin(self, relay: str, shards: int) -> None:
        cursors = self._tables.cursors
        if not (known := sum(name.startswith(f"{relay}/") for name in cursors)):
            before = cursors.pop(relay, CursorRow())
            for index in range(shards):
                cursors[shard_name(relay, index)] = CursorRow(before.position, epoch=1)
        require_shards(relay, shards, known or shards)

    async def attend(self, relay: str, owner: str, ttl: timedelta) -> list[str]:
        members, now = self._tables.members.setdefault(relay, {}), self._tables.clock.now()
        members[owner] = now + ttl
        return sorted(name for name, until in members.items() if name == owner or until > now)

    async def leave(self, relay: str, owner: str) -> None:
        self._tables.members.get(relay, {}).pop(owner, None)

    async def lag(self, relay: str) -> int:
        rows = (
            row.position
            for name, row in self._tables.cursors.items()
            if name == relay or name.startswith(f"{relay}/")
        )
        return len(self._tables.log) - min(rows, default=0)

    async def relays(self) -> list[RelayStanding]:
        now, found = self._tables.clock.now(), []
        for relay, row in sorted(self._tables.cursors.items()):
            runs = row.lease_until is not None and row.lease_until > now
            owner = row.owner if runs else None
            found.append(RelayStanding(relay, row.position, owner, row.lease_until))
        return found


class MemoryReadModel:
    """Questions about instances, answered from the rows."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def get(self, saga_id: str) -> Instance | None:
        row = self._tables.sagas.get(saga_id)
        return row.instance if row is not None else None

    async def ended(self, saga_ids: Sequence[str]) -> Mapping[str, Status]:
        rows = self._tables.sagas
        return {i: rows[i].status for i in saga_ids if i in rows and rows[i].status in AT_REST}

    async def search(self, wanted: Filter) -> list[Instance]:
        found = (self._tables.sagas[saga_id] for saga_id in self._newest_first())
        fit = [row.instance for row in found if _fits(row, wanted)]
        return fit[: max(wanted.limit, 0)]

    async def find(self, prefix: str, limit: int = 5) -> list[str]:
        return [i for i in self._newest_first() if i.startswith(prefix)][: max(limit, 0)]

    async def ids(self, after: str | None, limit: int) -> list[str]:
        page = (i for i in sorted(self._tables.sagas) if after is None or i > after)
        return list(page)[: max(limit, 0)]

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        return Counter((row.request.name, row.status) for row in self._tables.sagas.values())

    async def input(self, saga_id: str) -> Json | None:
        row = self._tables.sagas.get(saga_id)
        return row.request.input if row is not None else None

    def _newest_first(self) -> Iterable[str]:
        return sorted(self._tables.sagas, reverse=True)


def _fits(row: SagaRow, wanted: Filter) -> bool:
    request = row.request
    return (
        (wanted.status is None or row.status is wanted.status)
        and (wanted.name is None or request.name == wanted.name)
        and wanted.tags.items() <= request.tags.items()
        and (wanted.parent is None or request.parent == wanted.parent)
        and (wanted.since is None or row.created_at >= wanted.since)
        and (wanted.before is None or request.saga_id < wanted.before)
    )


class MemoryHints:
    """Wake-ups, one turn of the loop later."""

    def __init__(self) -> None:
        self._listening: dict[str, dict[object, Callable[[], None]]] = {}
        self._poked: set[str] = set()

    def poke(self, channel: str) -> None:
        if channel not in self._poked:
            asyncio.get_running_loop().call_soon(self._wake, channel)
            self._poked.add(channel)

    def listen(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        listening, ticket = self._listening.setdefault(channel, {}), object()
        listening[ticket] = wake

        def end() -> None:
            listening.pop(ticket, None)

        return end

    def _wake(self, channel: str) -> None:
        self._poked.discard(channel)
        for wake in tuple(self._listening.get(channel, {}).values()):
            wake()
