"""A worker's presence dies with its connection, and comes back with it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection
from tests.contract.given import LEASE, Given, eventually

KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'saga heartbeat'"
)
ABSENT = """
SELECT w.id::text FROM worker w WHERE w.retired_at IS NULL AND NOT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
        AND (classid::bigint << 32 | objid::bigint) = w.presence_key
)
"""


async def test_a_presence_that_was_cut_off_comes_back_at_once_and_costs_nothing(
    store: Store, given: Given, side: Connection, any_dsn: str
) -> None:
    [(owner, _)] = await given.claimed()
    async with open_store(any_dsn) as fellow:
        for _ in range(3):
            await side.execute(KILL)
            for _ in range(12):
                assert await fellow.fleet.retire_dead() == []
                await asyncio.sleep(0.05)

            async def present() -> bool:
                return await side.fetch(ABSENT) == []

            await eventually(present)

    assert await store.fleet.renew(owner, LEASE)
    assert len(await store.queue.owned(owner)) == 1


async def test_without_a_presence_the_lease_alone_tells(
    any_dsn: str, store: Store, side: Connection
) -> None:
    async with open_store(any_dsn, settings=PostgresSettings(presence=False)) as shy:
        owner = await Given(shy).worker()
    assert await side.fetchval("SELECT presence_key FROM worker WHERE id = $1", owner) is None

    for _ in range(12):
        assert await store.fleet.retire_dead() == []
        await asyncio.sleep(0.05)


async def test_a_renewal_sets_the_clock_by_the_database(store: Store, given: Given) -> None:
    owner = await given.worker(timedelta(minutes=1))
    assert await store.fleet.renew(owner, LEASE)

    rows = await store.requests.start([])
    assert rows == []
    [saga_id] = await given.started()
    instance = await store.reads.get(saga_id)
    assert instance is not None
    assert abs(store.clock.now() - instance.created_at) < timedelta(seconds=1)


async def test_a_dead_worker_whose_row_somebody_holds_does_not_hold_up_the_others(
    store: Store, given: Given, side: Connection
) -> None:
    """It was stopped inside of a transaction: its row is locked until the server ends that."""
    before, stopped, after = [await given.worker(timedelta(milliseconds=1)) for _ in range(3)]
    [(_, claim)] = await given.claimed(1, stopped)
    async with side.transaction():
        await side.execute("SELECT FROM saga WHERE id = $1 FOR UPDATE", claim.saga_id)

        retired = await store.fleet.retire_dead()

        assert {one.worker_id for one in retired} == {before, after}
    [last] = await store.fleet.retire_dead()
    assert (last.worker_id, last.released) == (stopped, 1)
