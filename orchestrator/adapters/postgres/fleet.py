"""The list of workers: leases by the database's clock, and a presence that dies with a session.

A presence is an advisory lock that a session of the worker holds. Its key is drawn anew for every
session, so that a worker never has to wait for the end of its own lost session.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from orchestrator.adapters.postgres.clock import DatabaseClock
from orchestrator.adapters.postgres.partitions import ensure_partitions
from orchestrator.adapters.postgres.pool import Connection, Database
from orchestrator.adapters.postgres.session import Session
from orchestrator.adapters.postgres.statements import sql
from orchestrator.errors import UnavailableError
from orchestrator.ports import Definition, Member, Retired

log = logging.getLogger(__name__)

LEASE_OVER = "its lease ran out"
PRESENCE_GONE = "its connection is gone"

_MISSED_FOR = 0.4
_PARTITIONS_EVERY = 12 * 3600.0
_PARTITIONS_AGAIN = 600.0


@dataclass(slots=True)
class _Member:
    """A worker of this process: its session, and the presence that the session holds."""

    session: Session
    presence: int | None = None


@dataclass(slots=True)
class PostgresFleet:
    """orchestrator.ports.Fleet. Sets *clock* by the answers to its renewals."""

    database: Database
    clock: DatabaseClock
    _watch: Session = field(init=False)
    _members: dict[str, _Member] = field(default_factory=dict)
    _missing: dict[str, tuple[int, float]] = field(default_factory=dict)
    _partitions_at: float = 0.0

    def __post_init__(self) -> None:
        self._watch = Session(self.database, "watch")

    async def join(
        self,
        worker_id: str,
        label: str,
        ttl: timedelta,
        definitions: Sequence[Definition] | None = None,
    ) -> None:
        """As the port says; makes the coming months' partitions of the log, too."""
        member = self._member(worker_id)
        served = None if definitions is None else json.dumps(sorted(definitions))
        try:
            async with member.session.use() as connection:
                await connection.fetch(
                    sql("join_fleet"), worker_id, label, ttl, member.presence,
                    self.database.settings.namespace, served,
                )  # fmt: skip
            await self._ensure_partitions()
        except BaseException:
            await member.session.close()
            raise
        self._members[worker_id] = member

    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        """As the port says. A worker that this process did not join gets no presence from it."""
        if worker_id not in self._members:
            self._members[worker_id] = self._member(worker_id)
        member = self._members[worker_id]
        async with member.session.use() as connection:
            sent = time.monotonic()
            now = await connection.fetchval(sql("renew_lease"), worker_id, ttl, member.presence)
        if now is None:
            return False
        self.clock.observe(now, sent, time.monotonic())
        return True

    async def oldest_transaction(self) -> float:
        """As the port says, anybody's that keeps rows of this database."""
        rows = await self.database.fetch(sql("list_old_transactions"))
        return max((row["seconds"] for row in rows), default=0.0)

    async def retire_dead(self) -> list[Retired]:
        """As the port says. A presence has to be missed twice, some time apart: every worker's is
        away for a moment when the server restarts. Cancelling the caller does not cancel it."""
        # A section, as `leave` is: who is cancelled at a BEGIN would leave the transaction open.
        return await asyncio.shield(self.database.section(self._retire_dead()))

    async def leave(self, worker_id: str) -> None:
        """As the port says. Cancelling the caller does not cancel it."""
        await asyncio.shield(self.database.section(self._leave(worker_id)))

    async def members(self) -> list[Member]:
        rows = await self.database.fetch(sql("list_members"), self.database.settings.namespace)
        return [
            Member(
                row["id"], row["label"], row["joined_at"], row["lease_until"], row["alive"],
                None if row["definitions"] is None else _definitions(row["definitions"]),
            )
            for row in rows
        ]  # fmt: skip

    async def close(self) -> None:
        """End all sessions: whoever did not leave is found gone."""
        for member in tuple(self._members.values()):
            await member.session.close()
        await self._watch.close()

    async def _retire_dead(self) -> list[Retired]:
        if time.monotonic() > self._partitions_at:
            await self._ensure_partitions()
        async with self._watch.use() as connection:
            suspects = await connection.fetch(sql("list_suspects"))
            now = time.monotonic()
            missing: dict[str, tuple[int, float]] = {}
            retired = []
            for worker_id, key, expired in suspects:
                since = now
                if key is not None:
                    seen_key, seen_at = self._missing.get(worker_id, (key, now))
                    since = seen_at if seen_key == key else now
                    missing[worker_id] = (key, since)
                if expired:
                    retired += await _retire(connection, worker_id, LEASE_OVER, None)
                elif now - since >= _MISSED_FOR:
                    retired += await _retire(connection, worker_id, PRESENCE_GONE, key)
            self._missing = missing
        return retired

    async def _leave(self, worker_id: str) -> None:
        member = self._members.pop(worker_id, None) or self._member(worker_id)
        try:
            async with member.session.use() as connection, connection.transaction():
                await connection.execute(sql("leave_fleet"), worker_id)
                await connection.execute(sql("free_sagas"), worker_id)
        finally:
            await member.session.close()

    def _member(self, worker_id: str) -> _Member:
        async def be_present(connection: Connection) -> None:
            if self.database.has_presence:
                key = secrets.randbits(63)
                await connection.fetchval("SELECT pg_advisory_lock($1)", key)
                member.presence = key
                await connection.execute(
                    "UPDATE worker SET presence_key = $2 WHERE id = $1 AND retired_at IS NULL",
                    worker_id, key,
                )  # fmt: skip

        member = _Member(Session(self.database, "heartbeat", be_present, eager=True))
        return member

    async def _ensure_partitions(self) -> None:
        """Months are made long before they begin: one that cannot be made now must stop nobody."""
        self._partitions_at = time.monotonic() + _PARTITIONS_EVERY
        try:
            async with self._watch.use() as connection:
                await ensure_partitions(connection)
        except UnavailableError as error:
            self._partitions_at = time.monotonic() + _PARTITIONS_AGAIN
            log.warning("partitions of the coming months are not made yet: %s", error)


def _definitions(text: str) -> tuple[Definition, ...]:
    return tuple((name, version) for name, version in json.loads(text))


async def _retire(
    connection: Connection, worker_id: str, reason: str, presence: int | None
) -> list[Retired]:
    """Take one worker out, if it is still as it was seen, and free what it held.

    Not yet where a transaction that was left open holds a row of it: the others are not to wait.
    """
    try:
        async with connection.transaction():
            if await connection.fetchval(sql("retire_worker"), worker_id, reason, presence) is None:
                return []
            freed = await connection.execute(sql("free_sagas"), worker_id)
    except asyncpg.LockNotAvailableError as error:
        log.warning("worker %s is dead (%s), and not replaced yet: %s", worker_id, reason, error)
        return []
    return [Retired(worker_id, reason, int(freed.split()[-1]))]
