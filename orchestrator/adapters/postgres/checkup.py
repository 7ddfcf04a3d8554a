"""What `saga doctor` asks a database: its version, its schema, its settings, who works on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings
from orchestrator.adapters.postgres.schema import verify_schema
from orchestrator.adapters.postgres.statements import sql
from orchestrator.errors import SchemaError
from orchestrator.ports import Definition, Finding, Verdict

_OLDEST = 150000


async def examine(
    dsn: str, definitions: Sequence[Definition], settings: PostgresSettings | None = None
) -> list[Finding]:
    """Look at a database without changing it. UnavailableError when it cannot be reached."""
    database = Database(dsn, settings or PostgresSettings())
    await database.look_for_pooler(aloud=False)
    connection = await database.connect("doctor")
    try:
        with database.translated():
            async with database.bounded(connection):
                found = [finding async for finding in _findings(connection, definitions)]
        return [*_pooler(database), *found]
    finally:
        await connection.close()


async def is_current(dsn: str) -> bool:
    """Whether the schema is the one that this code wants."""
    database = Database(dsn, PostgresSettings(pooler="none"))
    connection = await database.connect("schema")
    try:
        with database.translated():
            await verify_schema(connection)
    except SchemaError:
        return False
    finally:
        await connection.close()
    return True


async def _findings(
    connection: Connection, definitions: Sequence[Definition]
) -> AsyncIterator[Finding]:
    version = await connection.fetchval("SHOW server_version")
    number = int(await connection.fetchval("SHOW server_version_num"))
    old = "" if number >= _OLDEST else "; version 15 or newer is needed"
    yield Finding("PostgreSQL", Verdict.FAILED if old else Verdict.FINE, f"{version}{old}")
    try:
        await verify_schema(connection)
    except SchemaError as error:
        yield Finding("schema", Verdict.FAILED, str(error))
        return
    yield Finding("schema", Verdict.FINE, "at the revision that this code wants")
    yield await _partitions(connection)
    yield await _durability(connection)
    yield await _workers(connection)
    for finding in await _unserved(connection, definitions):
        yield finding


def _pooler(database: Database) -> list[Finding]:
    if not database.pooled:
        return []
    text = (
        "one that shares sessions may be in between: a dead worker is noticed when its lease ends "
        "(SAGA_LEASE_TTL), new work by polling; with the server's own address both are faster"
    )
    return [Finding("pooler", Verdict.WARNING, text)]


async def _partitions(connection: Connection) -> Finding:
    ahead = await connection.fetchval(sql("count_partitions_ahead"))
    if ahead:
        return Finding("partitions", Verdict.FINE, f"{ahead} month(s) ahead")
    return Finding("partitions", Verdict.WARNING, "none made ahead; run `saga migrate`")


async def _durability(connection: Connection) -> Finding:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    off = [n for n in names if await connection.fetchval(f"SHOW {n}") == "off"]
    if off:
        text = f"{', '.join(off)} off: a crash of the server may lose what was acknowledged"
        return Finding("durability", Verdict.WARNING, text)
    return Finding("durability", Verdict.FINE, "every acknowledged commit is on disk")


async def _workers(connection: Connection) -> Finding:
    alive = await connection.fetchval(sql("count_workers"))
    text = f"{alive} alive" if alive else "none alive; start one: saga worker"
    return Finding("workers", Verdict.FINE if alive else Verdict.WARNING, text)


async def _unserved(connection: Connection, definitions: Sequence[Definition]) -> list[Finding]:
    """Instances that have been due for a minute while nobody took them."""
    known = set(definitions)
    findings = []
    for name, version, count in await connection.fetch(sql("list_overdue")):
        here = "" if (name, version) in known else "; no definition of it is known here either"
        text = f"{count} due for over a minute; is there a worker that has this version?{here}"
        findings.append(Finding(f"{name} version {version}", Verdict.WARNING, text))
    return findings
