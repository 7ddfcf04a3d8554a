"""Lists, counts and lookups: queries that callers shape, built from the tables."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import Text

from orchestrator.adapters.postgres.pool import Database, Record
from orchestrator.adapters.postgres.statements import sql
from orchestrator.adapters.postgres.tables import saga, saga_input
from orchestrator.domain.events import Json, Status
from orchestrator.ports import Filter, Instance

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy left it so

_INSTANCE = select(
    cast(saga.c.id, Text).label("id"),
    saga.c.name,
    saga.c.version,
    saga.c.fingerprint,
    saga.c.key,
    saga.c.status,
    saga.c.head,
    saga.c.epoch,
    cast(saga.c.owner, Text).label("owner"),
    saga.c.due_at,
    saga.c.correlation_id,
    saga.c.tags,
    saga.c.created_at,
    saga.c.updated_at,
    cast(saga.c.parent, Text).label("parent"),
    saga.c.pivoted,
    saga.c.claims,
    saga.c.inbox_seen,
)


class PostgresReadModel:
    """orchestrator.ports.ReadModel."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, saga_id: str) -> Instance | None:
        if (known := _uuid(saga_id)) is None:
            return None
        rows = await self._run(_INSTANCE.where(saga.c.id == known))
        return _instance(rows[0]) if rows else None

    async def ended(self, saga_ids: Sequence[str]) -> Mapping[str, Status]:
        rows = await self._database.fetch(sql("list_ended"), list(saga_ids))
        return {row["id"]: Status(row["status"]) for row in rows}

    async def search(self, wanted: Filter) -> list[Instance]:
        if wanted.parent is not None and _uuid(wanted.parent) is None:
            return []
        rows = await self._run(listing(wanted, self._database.settings.namespace))
        return [_instance(row) for row in rows]

    async def find(self, prefix: str, limit: int = 5) -> list[str]:
        if (bounds := _bounds(prefix)) is None:
            return []
        query = select(cast(saga.c.id, Text).label("id")).where(
            saga.c.namespace == self._database.settings.namespace,
            saga.c.id >= bounds[0],
            saga.c.id <= bounds[1],
        )
        rows = await self._run(query.order_by(saga.c.id.desc()).limit(limit))
        return [row["id"] for row in rows]

    async def ids(self, after: str | None, limit: int) -> list[str]:
        query = select(cast(saga.c.id, Text).label("id")).where(
            saga.c.namespace == self._database.settings.namespace
        )
        if after is not None:
            query = query.where(saga.c.id > after)
        rows = await self._run(query.order_by(saga.c.id).limit(limit))
        return [row["id"] for row in rows]

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        query = (
            select(saga.c.name, saga.c.status, func.count().label("count"))
            .where(saga.c.namespace == self._database.settings.namespace)
            .group_by(saga.c.name, saga.c.status)
        )
        return {(name, Status(status)): n for name, status, n in await self._run(query)}

    async def input(self, saga_id: str) -> Json | None:
        if (known := _uuid(saga_id)) is None:
            return None
        rows = await self._run(select(saga_input.c.input).where(saga_input.c.saga_id == known))
        return Json(rows[0]["input"]) if rows else None

    async def _run(self, query: ClauseElement) -> list[Record]:
        return await self._database.fetch_list(*statement(query))


def listing(wanted: Filter, namespace: str) -> ClauseElement:
    """The query for the instances that *wanted* lets through."""
    query = _INSTANCE.where(saga.c.namespace == namespace)
    if wanted.status is not None:
        query = query.where(saga.c.status == wanted.status.value)
    if wanted.name is not None:
        query = query.where(saga.c.name == wanted.name)
    if wanted.tags:
        # The second condition is the index's own; without it the planner cannot use it.
        query = query.where(
            saga.c.tags.op("@>")(cast(cast(json.dumps(dict(wanted.tags)), Text), JSONB)),
            saga.c.tags != literal_column("'{}'::jsonb"),
        )
    if wanted.key is not None:
        query = query.where(saga.c.key == wanted.key)
    if wanted.parent is not None:
        query = query.where(saga.c.parent == wanted.parent)
    if wanted.since is not None:
        query = query.where(saga.c.created_at >= wanted.since)
    if wanted.before is not None:
        query = query.where(saga.c.id < wanted.before)
    return query.order_by(saga.c.id.desc()).limit(wanted.limit)


def statement(query: ClauseElement) -> tuple[Any, ...]:
    """A query as the driver takes it: its text, and its arguments in order."""
    compiled = query.compile(dialect=_DIALECT)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what a query compiles to
    params = compiled.params
    return (str(compiled), *(params[name] for name in compiled.positiontup or ()))


def _instance(row: Record) -> Instance:
    fields = dict(row)
    fields["saga_id"] = fields.pop("id")
    fields["status"] = Status(fields["status"])
    fields["tags"] = json.loads(fields["tags"])
    return Instance(**fields)


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _bounds(prefix: str) -> tuple[str, str] | None:
    """The first and the last id that begin with *prefix*; None when no id can."""
    if not re.fullmatch(r"[0-9a-f-]{0,36}", prefix):
        return None
    shape = "00000000-0000-0000-0000-000000000000"
    if any((a == "-") != (b == "-") for a, b in zip(prefix, shape, strict=False)):
        return None
    rest = shape[len(prefix) :]
    return prefix + rest, prefix + rest.replace("0", "f")
