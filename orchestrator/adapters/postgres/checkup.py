"""What `saga doctor` asks a database: its version, its schema, its settings, who works on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings
from orchestrator.adapters.postgres.schema import verify_schema
from orchestrator.adapters.postgres.statements import sql
from orchestrator.errors import SchemaError
from orchestrator.ports import Definition, Finding, Verdict

_OLDEST = 150000
_OTHER_COLLATION = """
SELECT datcollversion IS NOT NULL
    AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)
FROM pg_database WHERE datname = current_database()
"""

_LONG_OPEN = 300.0
"""Seconds after which an open transaction is worth a word."""


async def examine(
    dsn: str,
    definitions: Sequence[Definition],
    settings: PostgresSettings | None = None,
    *,
    long_open: float = _LONG_OPEN,
) -> list[Finding]:
    """Look at a database without changing it. UnavailableError when it cannot be reached."""
    database = Database(dsn, settings or PostgresSettings())
    await database.look_for_pooler(aloud=False)
    connection = await database.connect("doctor")
    try:
        with database.translated():
            async with database.bounded(connection):
                found = [finding async for finding in _findings(connection, definitions, long_open)]
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
    connection: Connection, definitions: Sequence[Definition], long_open: float
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
    for finding in await _text(connection):
        yield finding
    yield (rights := await _rights(connection))
    if rights.verdict is Verdict.FAILED:
        return  # what else there is to look at is in those tables
    yield await _partitions(connection)
    yield await _durability(connection)
    yield await _transactions(connection, long_open)
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


async def _rights(connection: Connection) -> Finding:
    missing = await connection.fetch(sql("list_missing_rights"))
    if not missing:
        return Finding("rights", Verdict.FINE, "this role may do all that it has to")
    told = "; ".join(f"{rights} on {name}" for name, rights in missing)
    role = await connection.fetchval("SELECT current_user")
    return Finding("rights", Verdict.FAILED, f"the role {role} lacks {told}; GRANT it")


async def _text(connection: Connection) -> list[Finding]:
    """Nothing of ours is sorted by a language, but indexes over text are; and payloads are UTF-8."""
    findings = []
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        text = f"the database is in {encoding}; make it with ENCODING 'UTF8', payloads are UTF-8"
        findings.append(Finding("encoding", Verdict.FAILED, text))
    if await connection.fetchval(_OTHER_COLLATION):
        text = (
            "the server's library sorts text in another way than when the database was made, and "
            "finds by index may miss rows: REINDEX DATABASE, then ALTER DATABASE ... REFRESH "
            "COLLATION VERSION"
        )
        findings.append(Finding("collation", Verdict.WARNING, text))
    return findings


async def _durability(connection: Connection) -> Finding:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    off = [n for n in names if await connection.fetchval(f"SHOW {n}") == "off"]
    if off:
        text = f"{', '.join(off)} off: a crash of the server may lose what was acknowledged"
        return Finding("durability", Verdict.WARNING, text)
    return Finding("durability", Verdict.FINE, "every acknowledged commit is on disk")


async def _transactions(connection: Connection, long_open: float) -> Finding:
    old = [
        f"{who} for {seconds:.0f} s"
        for seconds, who in await connection.fetch(sql("list_old_transactions"))
        if seconds >= long_open
    ]
    if not old:
        return Finding("transactions", Verdict.FINE, "none is open for long")
    text = (
        f"open: {', '.join(old)}; until they end dead rows cannot be removed, and everything gets "
        "slower: end them, or set idle_in_transaction_session_timeout for their role"
    )
    return Finding("transactions", Verdict.WARNING, text)


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
