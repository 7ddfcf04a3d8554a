"""Behind a real PgBouncer in transaction mode: found by itself, bounded, and nothing left behind.

The whole contract of the store is held there too (tests/contract, "pgbouncer").
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import timedelta

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.adapters.postgres import checkup, migrate, schema
from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings
from orchestrator.adapters.postgres.statements import sql
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import UnavailableError
from orchestrator.ports import Verdict
from tests.contract.given import ORDER, Given
from tests.poolers import NoPoolerError, open_pooler

LIMITS = PostgresSettings(command_timeout=1.5, lock_timeout=0.7, idle_in_transaction_timeout=1.0)
SHOWN = {
    "statement_timeout": "1500ms",
    "lock_timeout": "700ms",
    "idle_in_transaction_session_timeout": "1s",
}
ENTER = "SELECT pg_advisory_xact_lock_shared(hashtext('saga'), hashtext('gate'))"
IGNORING = """ignore_startup_parameters = statement_timeout,lock_timeout,\
idle_in_transaction_session_timeout,plan_cache_mode,enable_seqscan,enable_bitmapscan,jit
"""


async def left_behind(dsn: str) -> tuple[int, int]:
    """Prepared statements and locks of sessions, over all sessions that the pooler has."""
    one, other = await asyncpg.connect(dsn, statement_cache_size=0), 0
    statements = 0
    try:
        for _ in range(12):
            statements += await one.fetchval("SELECT count(*) FROM pg_prepared_statements")
        asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        other = await one.fetchval(asked)
    finally:
        await one.close()
    return statements, other


async def test_a_pooler_is_found_and_the_server_itself_is_not_taken_for_one(
    dsn: str, pooled_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for place, pooled in ((dsn, False), (pooled_dsn, True)):
        database = Database(place, PostgresSettings())
        await database.open()
        assert database.pooled is pooled
        assert database.has_presence is not pooled
        await database.close()
    assert [r.getMessage() for r in caplog.records if "a pooler is in front of" in r.getMessage()]


async def test_a_pooler_that_swallows_what_it_does_not_know_is_found_too(dsn: str) -> None:
    try:
        with open_pooler(dsn, more=IGNORING) as pooled:
            database = Database(pooled, LIMITS)
            await database.open()
            assert database.pooled
            assert await shown(database) == SHOWN
            await database.close()
    except NoPoolerError as reason:
        pytest.skip(f"there is no PgBouncer: {reason}")


async def shown(database: Database) -> dict[str, str]:
    """The limits that hold where a statement runs."""
    return {name: (await database.fetch(f"SHOW {name}"))[0][0] for name in SHOWN}


async def test_every_transaction_has_its_bounds_and_leaves_none_to_the_next(
    pooled_dsn: str,
) -> None:
    database = Database(pooled_dsn, LIMITS)
    await database.open()
    assert await shown(database) == SHOWN
    rows = await database.fetch_list("SHOW statement_timeout")
    assert rows[0][0] == "1500ms"
    async with open_store(pooled_dsn, settings=LIMITS) as store:
        for kind in (asyncpg.Connection, AsyncSession):
            async with store.transactions.open(kind) as lent:
                if kind is AsyncSession:
                    found = (await lent.handle.execute(text("SHOW lock_timeout"))).scalar_one()
                else:
                    found = await lent.handle.fetchval("SHOW lock_timeout")
                assert found == "700ms"
    stranger = await asyncpg.connect(pooled_dsn, statement_cache_size=0)
    for _ in range(12):
        assert await stranger.fetchval("SHOW statement_timeout") == "0"
    await stranger.close()
    await database.close()


async def test_the_server_itself_ends_what_hangs_behind_a_pooler(pooled_dsn: str) -> None:
    database = Database(pooled_dsn, PostgresSettings(command_timeout=0.4, lock_timeout=0.3))
    await database.open()
    began = asyncio.get_running_loop().time()
    with pytest.raises(Exception, match="time"):
        await database.fetch("SELECT pg_sleep(20)")
    assert asyncio.get_running_loop().time() - began < 5
    assert await database.fetch("SELECT 1")
    await database.close()


async def test_no_prepared_statement_and_no_lock_stays_in_a_session(pooled_dsn: str) -> None:
    async with open_store(pooled_dsn) as one, open_store(pooled_dsn) as other:
        for store in (one, other):
            given = Given(store)
            for _ in range(5):
                [(owner, claim)] = await given.claimed()
                await store.events.append([given.append(owner, claim)])
                assert await store.fleet.renew(owner, timedelta(seconds=30))
                async with store.transactions.open(AsyncSession) as lent:
                    await lent.handle.execute(text("SELECT :n + 1"), {"n": 1})
        await asyncio.gather(*(one.feed.read(0, 10) for _ in range(20)))
        assert await left_behind(pooled_dsn) == (0, 0)


async def test_a_relay_that_is_stopped_with_the_gate_in_hand_lets_appends_go_on(
    dsn: str,
) -> None:
    # Each transaction has a COMMIT of its own here, before which its process may be stopped.
    database = Database(dsn, PostgresSettings(pooler="transaction"))
    await database.open()
    held, stopped = asyncio.Event(), asyncio.Event()

    async def settle(connection: Connection) -> None:
        await connection.fetch(sql("settle_feed"), "100ms")
        held.set()
        await stopped.wait()

    relay = asyncio.create_task(database.with_connection(settle))
    await held.wait()
    side = await asyncio.wait_for(asyncpg.connect(dsn), 5)
    await side.execute(f"SET lock_timeout = '{PostgresSettings().lock_timeout:g}s'")
    await side.execute(ENTER)
    stopped.set()
    with pytest.raises(UnavailableError):
        await relay
    await side.close()
    await database.close()


async def test_many_stores_share_few_sessions(pooled_dsn: str) -> None:
    async def use(number: int) -> int:
        async with open_store(pooled_dsn, settings=PostgresSettings(pool_size=4)) as store:
            given = Given(store)
            owner = await given.worker()
            await given.started(10)
            claims = await store.queue.claim(owner, 10, [ORDER])
            for claim in claims:
                await store.events.append([given.append(owner, claim)])
            await store.fleet.leave(owner)
            return len(claims)

    assert sum(await asyncio.gather(*(use(number) for number in range(8)))) == 80


async def test_a_worker_behind_a_pooler_has_no_presence_and_a_fellow_is_judged_by_its_lease(
    pooled_dsn: str,
) -> None:
    owner = str(uuid.uuid4())
    async with open_store(pooled_dsn) as watcher:
        async with open_store(pooled_dsn) as gone:
            await gone.fleet.join(owner, "tester", timedelta(seconds=3))
        seen = []
        limit = asyncio.get_running_loop().time() + 10
        while not seen and asyncio.get_running_loop().time() < limit:
            seen = await watcher.fleet.retire_dead()
            await asyncio.sleep(0.1)
        assert [(one.worker_id, one.reason) for one in seen] == [(owner, "its lease ran out")]


async def test_the_doctor_says_that_a_pooler_is_in_between(dsn: str, pooled_dsn: str) -> None:
    told = {one.subject: one for one in await checkup.examine(pooled_dsn, [])}
    assert told["pooler"].verdict is Verdict.WARNING
    assert "SAGA_LEASE_TTL" in told["pooler"].text
    assert told["schema"].verdict is Verdict.FINE
    assert "pooler" not in {one.subject for one in await checkup.examine(dsn, [])}


async def test_a_migration_goes_through_a_pooler_and_two_do_not_meet(empty_dsn: str) -> None:
    try:
        with open_pooler(empty_dsn) as pooled:
            await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, pooled) for _ in range(3)))
            assert await asyncio.to_thread(migrate.current, pooled) == schema.head()
            assert await left_behind(pooled) == (0, 0)
    except NoPoolerError as reason:
        pytest.skip(f"there is no PgBouncer: {reason}")
    with psycopg.connect(empty_dsn) as connection:
        found = connection.execute("SELECT to_regclass('saga') IS NOT NULL").fetchone()
    assert found == (True,)
