"""A server that is crowded, locked, or has become read-only: said soon, and over when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from orchestrator.adapters.postgres.pool import Database, PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import BusyError, UnavailableError, UnknownOutcomeError
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection, open_database, waits_for_lock
from tests.adapters.postgres.test_unavailable import QUICK
from tests.contract.given import LEASE, ORDER, Given, eventually

SLOTS = 2


async def test_behind_ddl_that_waits_for_a_reader_appends_fail_soon_and_recover(
    any_dsn: str, side: Connection
) -> None:
    async with open_store(any_dsn, settings=QUICK) as store:
        given = Given(store)
        [(owner, claim)] = await given.claimed()
        ddl = await asyncpg.connect(any_dsn)
        async with side.transaction():
            await side.fetch("SELECT count(*) FROM saga")
            altering = asyncio.create_task(ddl.execute("ALTER TABLE saga ADD COLUMN more int"))
            await waits_for_lock(side)
            began = time.monotonic()
            with pytest.raises(UnavailableError) as caught:
                await store.events.append([given.append(owner, claim)])
            assert time.monotonic() - began < 4
            assert not isinstance(caught.value, UnknownOutcomeError)
        await altering
        await ddl.close()

        assert await store.events.append([given.append(owner, claim)]) == {claim.saga_id: 0}


async def test_without_a_free_slot_it_is_busy_and_who_has_one_keeps_it(
    any_dsn: str, side: Connection
) -> None:
    role = f"few_{side.get_server_pid()}"
    await side.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT {SLOTS}")
    parts = urlsplit(any_dsn)
    place = f"{role}:p@{parts.hostname}:{parts.port}"
    database = Database(urlunsplit(parts._replace(netloc=place)), PostgresSettings())
    await database.open()
    try:
        await side.execute("SELECT pg_advisory_lock(31)")
        shared = "SELECT pg_advisory_lock_shared(31)"
        holders = [asyncio.create_task(database.fetch(shared)) for _ in range(SLOTS)]
        await eventually(lambda: _sessions(side, role, SLOTS))
        with pytest.raises(BusyError):
            await database.fetch("SELECT 1")
        await side.execute("SELECT pg_advisory_unlock(31)")
        await asyncio.gather(*holders)
        assert len(await database.fetch("SELECT 1")) == 1
    finally:
        await database.close()
        await side.execute(f"DROP ROLE {role}")


async def _sessions(side: Connection, role: str, count: int) -> bool:
    found = await side.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", role)
    return bool(found >= count)


async def test_a_heartbeat_does_not_wait_for_slow_queries(any_dsn: str, side: Connection) -> None:
    settings = PostgresSettings(pool_size=2, lock_timeout=3, command_timeout=4)
    async with open_store(any_dsn, settings=settings) as store:
        given = Given(store)
        claims = await given.claimed(4)
        async with side.transaction():
            await side.fetch("SELECT FROM saga FOR UPDATE")
            slow = [
                asyncio.create_task(store.events.append([given.append(owner, claim)]))
                for owner, claim in claims
            ]
            await waits_for_lock(side)
            began = time.monotonic()
            assert await store.fleet.renew(claims[0][0], LEASE)
            assert time.monotonic() - began < 1
        assert all([await one for one in slow])


async def test_a_session_that_has_become_read_only_is_given_up(any_dsn: str) -> None:
    async with open_database(any_dsn) as database:
        await database.fetch("SET default_transaction_read_only = on")  # as after a failover
        with pytest.raises(UnavailableError) as caught:
            await database.commit("CREATE TABLE written ()")
        assert not isinstance(caught.value, UnknownOutcomeError)

        await database.commit("CREATE TABLE written ()")


async def test_what_a_silent_transaction_holds_is_taken_over_once_the_server_ends_it(
    store: Store, given: Given, any_dsn: str
) -> None:
    """As of a worker that was stopped between the lock and the commit."""
    owner = await given.worker(timedelta(milliseconds=50))
    [(_, claim)] = await given.claimed(1, owner)
    patient = Database(any_dsn, PostgresSettings(idle_in_transaction_timeout=1.0))
    stopped = await patient.connect("pool")
    await stopped.execute("BEGIN")
    await stopped.fetch("SELECT FROM saga WHERE id = $1 FOR UPDATE", claim.saga_id)
    began = time.monotonic()
    successor = await given.worker()

    async def taken() -> bool:
        with contextlib.suppress(UnavailableError):
            await store.fleet.retire_dead()
        return bool(await store.queue.claim(successor, 1, [ORDER]))

    await eventually(taken, within=6)
    assert time.monotonic() - began > 0.9
    stopped.terminate()
