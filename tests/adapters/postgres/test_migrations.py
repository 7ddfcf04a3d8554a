"""The schema goes up and down, agrees with its description, and is made once."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from orchestrator.adapters.postgres.migrate import (
    current,
    downgrade,
    is_ours,
    on_database,
    same_default,
    upgrade,
)
from orchestrator.adapters.postgres.partitions import ensure_partitions
from orchestrator.adapters.postgres.schema import VERSION_TABLE, head
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.postgres.tables import metadata
from orchestrator.errors import SchemaError, UnavailableError
from tests.adapters.postgres.beside import Connection as Side
from tests.contract.given import ORDER, Given

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"

OLD_INSTANCE = """
INSERT INTO saga (id, name, version, fingerprint, status, due_at, correlation_id, context)
VALUES (gen_random_uuid(), 'order', 1, 'f', 'pending', now(), 'c', '{}') RETURNING id::text
"""

# Everything that a table promises, in the server's own words.
PROMISES = """
SELECT t.relname, 'column', a.attname,
       format_type(a.atttypid, a.atttypmod) || a.attnotnull || coalesce(pg_get_expr(d.adbin, 0), '')
FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0
LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
WHERE t.relnamespace = CAST(CAST(:schema AS text) AS regnamespace) AND t.relkind IN ('r', 'p') AND NOT t.relispartition
UNION ALL
SELECT t.relname, 'constraint', c.conname, pg_get_constraintdef(c.oid)
FROM pg_class t JOIN pg_constraint c ON c.conrelid = t.oid
WHERE t.relnamespace = CAST(CAST(:schema AS text) AS regnamespace) AND NOT t.relispartition AND c.contype <> 'n'
UNION ALL
SELECT tablename, 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = CAST(:schema AS text)
    AND tablename !~ '^event_'
UNION ALL
SELECT relname, 'options', '', reloptions::text || coalesce(pg_get_partkeydef(oid), '')
FROM pg_class WHERE relnamespace = CAST(CAST(:schema AS text) AS regnamespace) AND relkind IN ('r', 'p')
    AND NOT relispartition
"""


def promises(dsn: str, schema: str) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()

    def look(connection: Connection) -> None:
        rows = connection.execute(text(PROMISES), {"schema": schema})
        found.update(
            tuple(str(part).replace(f"{schema}.", "") for part in row)
            for row in rows
            if row[0] != VERSION_TABLE
        )

    on_database(dsn, look)
    return found


def test_up_down_and_up_again_gives_the_same_schema(empty_dsn: str) -> None:
    assert current(empty_dsn) is None
    upgrade(empty_dsn)
    assert current(empty_dsn) == head()
    first = promises(empty_dsn, "public")

    downgrade(empty_dsn, "base")
    assert current(empty_dsn) is None
    assert promises(empty_dsn, "public") == set()
    upgrade(empty_dsn)

    assert promises(empty_dsn, "public") == first


def test_every_step_can_be_taken_alone(empty_dsn: str) -> None:
    steps = [f"{number:04}" for number in range(1, int(head()) + 1)]
    for step in steps:
        upgrade(empty_dsn, step)
        assert current(empty_dsn) == step
    for step in [*reversed(steps[:-1]), "base"]:
        downgrade(empty_dsn, step)


def test_alembic_finds_no_difference_to_the_tables(dsn: str) -> None:
    found: list[object] = []

    def look(connection: Connection) -> None:
        options = {
            "include_name": is_ours, "compare_server_default": same_default, "version_table": VERSION_TABLE
        }  # fmt: skip
        found.extend(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    on_database(dsn, look)
    assert found == []


def test_constraints_and_indexes_are_those_of_the_tables_to_the_letter(dsn: str) -> None:
    def draw(connection: Connection) -> None:
        connection.execute(text("CREATE SCHEMA drawn"))
        connection.execute(text("SET search_path = drawn"))
        metadata.create_all(connection)

    on_database(dsn, draw)

    assert promises(dsn, "drawn") == promises(dsn, "public")


def test_the_newest_file_is_alembics_head() -> None:
    config = Config("alembic.ini")
    assert ScriptDirectory.from_config(config).get_current_head() == head()


def test_two_that_migrate_at_once_do_it_once(empty_dsn: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(upgrade, empty_dsn) for _ in range(3)]:
            done.result()

    assert current(empty_dsn) == head()


async def test_a_migration_can_be_run_from_within_a_loop(empty_dsn: str) -> None:
    upgrade(empty_dsn)

    async with open_store(empty_dsn) as store:
        assert await store.reads.ids(None, 1) == []


async def test_an_instance_of_an_older_schema_goes_on_after_the_migration(empty_dsn: str) -> None:
    upgrade(empty_dsn, "0005")
    connection = await asyncpg.connect(empty_dsn)
    saga_id = await connection.fetchval(OLD_INSTANCE)
    await connection.execute("INSERT INTO saga_input VALUES ($1, '1')", saga_id)
    await connection.close()
    upgrade(empty_dsn)

    async with open_store(empty_dsn) as store:
        given = Given(store)
        owner = await given.worker()
        [claim] = await store.queue.claim(owner, 1, [ORDER])
        assert (claim.saga_id, claim.parent, claim.parent_node) == (saga_id, None, "")
        assert await store.events.append([given.append(owner, claim)]) == {saga_id: 0}
        instance = await store.reads.get(saga_id)
        assert instance is not None
        assert (instance.head, instance.parent, instance.pivoted) == (1, None, False)


def test_a_server_that_is_away_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 ") as caught:
        upgrade("postgresql://ann:s3cret@127.0.0.1:1/shop")
    assert "s3cret" not in str(caught.value)


async def test_a_store_refuses_a_schema_that_does_not_fit(empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match="saga migrate"):
        async with open_store(empty_dsn):
            pass
    upgrade(empty_dsn, "0001")
    with pytest.raises(SchemaError, match="saga migrate"):
        async with open_store(empty_dsn):
            pass
    upgrade(empty_dsn)
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    await connection.close()
    with pytest.raises(SchemaError, match="upgrade the package"):
        async with open_store(empty_dsn):
            pass
    with pytest.raises(SchemaError, match="newer"):
        upgrade(empty_dsn)


# -------------------------------------------------------------------------------- partitions


async def test_the_partitions_of_the_coming_months_are_made_ahead(
    side: Side,
) -> None:
    today = await side.fetchval("SELECT clock_timestamp()")
    months = [today.year * 12 + today.month - 1 + offset for offset in range(-1, 4)]
    wanted = {f"event_{month // 12:04}_{month % 12 + 1:02}" for month in months}

    found = {row[0] for row in await side.fetch(TABLES)}

    assert wanted | {"event_default"} <= found
    assert await ensure_partitions(side) == []


async def test_many_that_make_partitions_at_once_do_not_get_in_each_others_way(
    any_dsn: str, side: Side
) -> None:
    connections = [await asyncpg.connect(any_dsn) for _ in range(4)]

    made = await asyncio.gather(*(ensure_partitions(c, months_ahead=6) for c in connections))

    for connection in connections:
        await connection.close()
    assert any(made)
    attached = await side.fetchval(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass"
    )
    assert attached == 9


async def test_a_new_partition_takes_its_events_out_of_the_default_one(
    side: Side,
) -> None:
    far = datetime(datetime.now(UTC).year + 1, 6, 15, tzinfo=UTC)
    saga_id = uuid.UUID(int=int(far.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | 1)
    insert = (
        "INSERT INTO event VALUES ($1, $2, default, 'T', '', 1, 1, '{\"a\" : 1}', '{}', now(), $3)"
    )
    await side.execute(insert, saga_id, 1, bytes(32))
    where = "SELECT DISTINCT tableoid::regclass::text FROM event WHERE saga_id = $1"
    before = await side.fetchrow("SELECT * FROM event")
    assert await side.fetchval(where, saga_id) == "event_default"

    made = await ensure_partitions(side, months_ahead=30)

    name = f"event_{far:%Y_%m}"
    assert name in made
    assert await side.fetchval(where, saga_id) == name
    assert await side.fetchrow("SELECT * FROM event") == before
    await side.execute(insert, saga_id, 2, bytes(32))
    assert await side.fetchval(where, saga_id) == name
    with pytest.raises(asyncpg.RestrictViolationError):
        await side.execute("DELETE FROM event")
