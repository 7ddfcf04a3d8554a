"""Monthly partitions of the log, made ahead of time.

A UUIDv7 begins with its milliseconds, so the ids of a month are one range, and every event of an
instance lies in the partition of the month in which the instance was asked for.
"""

from __future__ import annotations

import logging
import re
import uuid
from datetime import UTC, datetime

import asyncpg

from orchestrator.adapters.postgres.pool import Connection
from orchestrator.adapters.postgres.statements import sql

log = logging.getLogger(__name__)


async def ensure_partitions(connection: Connection, months_ahead: int = 3) -> list[str]:
    """Make the partitions from last month to *months_ahead*; the names of those that were made.

    Any number of processes may do so at once. Without the right to create tables it warns: events
    then go into the default partition, from where they are moved once a month's partition is made.
    """
    if await connection.fetchval("SELECT to_regclass('event')") is None:
        return []
    today = await connection.fetchval("SELECT clock_timestamp()")
    months = [_month(today, offset) for offset in range(-1, months_ahead + 1)]
    present = await _present(connection)
    made = []
    for month in months:
        if _name(month) not in present:
            try:
                made.append(await _make(connection, month))
            except asyncpg.InsufficientPrivilegeError:
                log.warning(
                    "no right to make partition %s; run `saga migrate` as the tables' owner",
                    _name(month),
                )
    return made


async def _make(connection: Connection, month: datetime) -> str:
    """Make one partition, taking along what the default partition holds of its month."""
    name = _name(month)
    statements = sql("create_partition").format(
        name=name, lower=first_id(month), upper=first_id(_month(month, 1))
    )
    async with connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtext('saga'), hashtext('partitions'))"
        )
        if name not in await _present(connection):
            await connection.execute(statements)
            log.info("made partition %s", name)
    return name


async def _present(connection: Connection) -> set[str]:
    """The partitions there are. (to_regclass may not see one that was made a moment ago.)"""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = oid "
        "WHERE inhparent = 'event'::regclass"
    )
    return {row["relname"] for row in rows}


async def drop_empty(connection: Connection, before: datetime) -> list[str]:
    """Drop the partitions of whole months before *before* that hold nothing any more; their names.

    The last two months stay, as `ensure_partitions` would make them anew. Without the right to drop
    tables it warns.
    """
    today = await connection.fetchval("SELECT clock_timestamp()")
    oldest = _name(min(_month(before, 0), _month(today, -1)))
    dropped = []
    for name in sorted(await _present(connection)):
        if not re.fullmatch(r"event_\d{4}_\d\d", name) or name >= oldest:
            continue
        try:
            async with connection.transaction():
                if await _drop_if_empty(connection, name):
                    dropped.append(name)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError) as error:
            log.warning("partition %s is empty and stays: %s", name, error)
    return dropped


async def _drop_if_empty(connection: Connection, name: str) -> bool:
    """Looked at before the lock, which appends would wait for, and once more behind it."""
    empty = f"SELECT NOT EXISTS (SELECT FROM {name})"  # noqa: S608 - one of our own partitions
    if not await connection.fetchval(empty):
        return False
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext('saga'), hashtext('partitions'))"
    )
    await connection.execute(f"LOCK TABLE event IN ACCESS EXCLUSIVE MODE; LOCK TABLE {name}")
    if not await connection.fetchval(empty):
        return False
    await connection.execute(f"DROP TABLE {name}")
    log.info("dropped partition %s", name)
    return True


def _month(day: datetime, offset: int) -> datetime:
    count = day.year * 12 + day.month - 1 + offset
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)


def _name(month: datetime) -> str:
    return f"event_{month:%Y_%m}"


def first_id(moment: datetime) -> uuid.UUID:
    """Below every id that was given after *moment*."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)
