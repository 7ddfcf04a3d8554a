"""The statements of the hot path keep to their indexes, whatever else the tables hold."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.adapters.postgres.event_store import columns
from orchestrator.adapters.postgres.read_model import listing, statement
from orchestrator.adapters.postgres.statements import sql
from orchestrator.ports import Filter, Store
from tests.adapters.postgres.beside import Connection, open_database
from tests.contract.given import ORDER, Given

CROWD = """
INSERT INTO saga (id, name, version, fingerprint, status, due_at, correlation_id, context)
SELECT gen_random_uuid(), $1, 1, 'f', $2, $3, 'c', '{}' FROM generate_series(1, 20000)
"""

EXPLAIN = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "

STEERED = ("enable_hashjoin", "enable_mergejoin", "enable_material", "enable_memoize",
           "enable_sort", "enable_bitmapscan")  # fmt: skip


@pytest.fixture
async def crowded(side: Connection) -> None:
    """20,000 finished instances, and as many of another definition, due."""
    await side.execute(CROWD, "order", "completed", None)
    due_at = await side.fetchval("SELECT now()")
    await side.execute(CROWD, "refund", "pending", due_at)
    await side.execute("ANALYZE saga")


async def plan_of(connection: Connection, statement: str, *args: object) -> str:
    """How the server runs a statement; what the statement did is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        rows = await connection.fetch(EXPLAIN + statement, *args)
        return "\n".join(row[0] for row in rows)
    finally:
        await transaction.rollback()


@pytest.mark.usefixtures("crowded")
async def test_a_claim_reads_due_instances_of_its_definitions_only(
    any_dsn: str, given: Given
) -> None:
    owner = await given.worker()
    await given.started(10)

    async def look(connection: Connection) -> str:
        return await plan_of(connection, sql("claim_sagas"), owner, 5, "default", ["order"], [1])

    async with open_database(any_dsn) as database:
        plan = await database.with_connection(look)

    assert "Index Scan using ix_saga_due" in plan
    assert "Seq Scan" not in plan
    assert "Rows Removed" not in plan


@pytest.mark.usefixtures("crowded")
async def test_a_claim_takes_exactly_its_limit_however_the_planner_joins(
    side: Connection, given: Given, store: Store
) -> None:
    owner = await given.worker()
    await given.started(50)
    for setting in STEERED:
        await side.execute(f"SET {setting} = off")

    claims = await side.fetch(sql("claim_sagas"), owner, 5, "default", ["order", "refund"], [1, 1])

    assert len(claims) == 5
    assert len(await store.queue.owned(owner)) == 5


async def test_an_append_finds_its_rows_by_primary_key_in_order_of_id(
    any_dsn: str, given: Given, side: Connection
) -> None:
    owned = await given.claimed(50)
    await side.execute(CROWD, "order", "completed", None)
    batch = [given.append(owner, claim, 2) for owner, claim in owned]

    async def look(connection: Connection) -> str:
        return await plan_of(connection, sql("append_events"), *columns(batch))

    async with open_database(any_dsn) as database:
        plan = await database.with_connection(look)

    assert "using pk_saga on saga" in plan
    assert "ix_saga_owner" not in plan
    assert "Bitmap" not in plan
    assert "Seq Scan" not in plan


@pytest.mark.usefixtures("crowded")
async def test_children_are_listed_by_their_parent(
    side: Connection, given: Given, store: Store
) -> None:
    [parent] = await given.started()
    await given.started(3, parent=parent)
    await side.execute("ANALYZE saga")

    plan = await plan_of(side, *statement(listing(Filter(parent=parent), "default")))

    assert "using ix_saga_parent" in plan
    assert "Sort" not in plan
    assert len(await store.reads.search(Filter(parent=parent))) == 3


@pytest.mark.usefixtures("crowded")
async def test_starts_that_were_known_are_found_by_id_or_key(any_dsn: str, given: Given) -> None:
    [saga_id] = await given.started(key="k")

    async def look(connection: Connection) -> str:
        return await plan_of(
            connection, sql("find_started"), "default", [saga_id], ["order"], ["k"]
        )

    async with open_database(any_dsn) as database:
        plan = await database.with_connection(look)

    assert "using pk_saga on saga" in plan
    assert "using uq_saga_key on saga" in plan
    assert "Seq Scan" not in plan


async def test_reading_one_instance_looks_into_one_partition(
    any_dsn: str, given: Given, store: Store
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim)])

    async def look(connection: Connection) -> str:
        return await plan_of(connection, sql("read_events"), claim.saga_id, 0)

    async with open_database(any_dsn) as database:
        plan = await database.with_connection(look)

    assert plan.count("Index Scan using") == 1


@pytest.mark.parametrize("shard", [(0, 1), (2, 4)])
async def test_the_feed_reads_by_position(
    any_dsn: str, given: Given, store: Store, shard: tuple[int, int]
) -> None:
    owned = await given.claimed(30)
    for head in range(0, 200, 10):
        await store.events.append(
            [given.append(owner, claim, 10, head=head) for owner, claim in owned]
        )

    async def look(connection: Connection) -> str:
        return await plan_of(connection, sql("read_feed"), 5000, 6000, 100, 1 << 23, *shard)

    async with open_database(any_dsn) as database:
        plan = await database.with_connection(look)

    assert "_position on event_" in plan
    assert ("Rows Removed" in plan) is (shard != (0, 1))
    assert "Sort Method" not in plan


async def test_appends_that_keep_an_instance_touch_no_index_of_it(
    store: Store, given: Given, side: Connection
) -> None:
    [(owner, claim)] = await given.claimed()
    await side.execute("SELECT pg_stat_reset()")
    for head in range(20):
        await store.events.append([given.append(owner, claim, head=head)])
    assert await store.queue.claim(owner, 1, [ORDER]) == []

    versions = await side.fetchval("SELECT count(DISTINCT epoch) FROM event")
    leaves = await side.fetchval("SELECT pg_relation_size('pk_saga') / 8192")
    assert (versions, leaves) == (1, 2)


SHARED = """
INSERT INTO cache_entry (name, digest, output, kept_at)
SELECT 'rates', sha256(('rates' || n)::bytea), '1', now() - n * interval '1 s' FROM generate_series(1, 1000) n;
INSERT INTO budget_receipt (name, receipt) SELECT 'llm', n::text FROM generate_series(1, 20000) n;
INSERT INTO circuit (name) SELECT n::text FROM generate_series(1, 20000) n;
INSERT INTO rate (name, full_at) SELECT n::text, now() FROM generate_series(1, 20000) n;
INSERT INTO budget (name, since, spent) SELECT n::text, now(), 1 FROM generate_series(1, 20000) n;
INSERT INTO cache_entry (name, digest, output, kept_at)
SELECT 'other', sha256(n::text::bytea), '1', now() FROM generate_series(1, 20000) n;
"""
MINUTE = timedelta(minutes=1)
DIGEST = bytes(32)


@pytest.mark.parametrize(
    ("statement", "index", "args"),
    [
        ("admit_call", "pk_circuit", (MINUTE, 1, MINUTE)),
        ("report_success", "pk_circuit", (MINUTE, 1)),
        ("reserve_call", "pk_rate", (MINUTE, MINUTE, None, MINUTE)),
        ("look_up_output", "pk_cache_entry", (DIGEST, "h", MINUTE, MINUTE, MINUTE)),
        ("keep_output", "ix_cache_entry_kept", (DIGEST, "h", "1", 900)),
        ("read_budget", "pk_budget", (MINUTE,)),
        ("spend_budget", "ix_budget_receipt_spent_at", (MINUTE, "r", 1.0, 90 * MINUTE)),
    ],
)
async def test_what_sagas_share_is_found_by_its_name(
    any_dsn: str, side: Connection, statement: str, index: str, args: tuple[object, ...]
) -> None:
    await side.execute(SHARED)

    async def look(connection: Connection) -> str:
        return await plan_of(connection, sql(statement), "default", "rates", *args)

    async with open_database(any_dsn) as database:
        plan = await database.with_connection(look)

    assert f"using {index} on" in plan
    assert "Seq Scan" not in plan
    assert "Rows Removed" not in plan
