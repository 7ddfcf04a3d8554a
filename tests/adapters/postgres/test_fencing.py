"""No event of an old owner follows an event of a new one, however they overlap."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from orchestrator.adapters.postgres.event_store import columns
from orchestrator.adapters.postgres.statements import sql
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection, waits_for_lock
from tests.contract.given import Given

TAKE_OVER = "UPDATE saga SET owner = gen_random_uuid(), epoch = epoch + 1 WHERE id = $1"
RECLAIM = "UPDATE saga SET epoch = epoch + 1 WHERE id = $1"

# What the fence would be if it were a look at the epoch instead of an update of the row.
LOOK_THEN_WRITE = """
INSERT INTO event (saga_id, version, type, node, attempt, epoch, data, meta, recorded_at, hash)
SELECT id, 1, 'StepSucceeded', 'order/0', 1, $2, '{}', '{}', clock_timestamp(), $3
FROM saga WHERE id = $1 AND epoch = $2
"""


@pytest.mark.parametrize("change", [TAKE_OVER, RECLAIM], ids=["takeover", "reclaim"])
async def test_an_append_that_overlaps_a_takeover_is_refused(
    store: Store, given: Given, side: Connection, change: str
) -> None:
    [(owner, claim)] = await given.claimed()
    async with side.transaction():
        await side.execute(change, claim.saga_id)
        append = asyncio.create_task(store.events.append([given.append(owner, claim)]))
        await waits_for_lock(side)

    assert await append == {}
    assert await store.events.read(claim.saga_id) == []


async def test_a_look_at_the_epoch_would_let_that_append_in(
    store: Store, given: Given, side: Connection, any_dsn: str
) -> None:
    [(_, claim)] = await given.claimed()
    zombie = await asyncpg.connect(any_dsn)
    async with side.transaction():
        await side.execute(TAKE_OVER, claim.saga_id)
        await zombie.execute(LOOK_THEN_WRITE, claim.saga_id, claim.epoch, bytes(32))
    await zombie.close()

    assert len(await store.events.read(claim.saga_id)) == 1


async def test_a_reclaim_waits_for_an_append_under_way_and_sees_its_events(
    store: Store, given: Given, side: Connection
) -> None:
    [(owner, claim)] = await given.claimed()
    async with side.transaction():
        await side.fetch(sql("append_events"), *columns([given.append(owner, claim, 2)]))
        reclaim = asyncio.create_task(store.queue.reclaim(owner, claim.saga_id, claim.epoch))
        await waits_for_lock(side)

    again = await reclaim
    assert again is not None
    assert (again.epoch, again.head, again.input) == (2, 2, None)


async def test_a_claim_under_way_is_freed_by_the_retirement_that_waits_for_it(
    store: Store, given: Given, side: Connection
) -> None:
    owner = await given.worker()
    await given.started(5)
    async with side.transaction():
        claims = await side.fetch(sql("claim_sagas"), owner, 5, "default", ["order"], [1])
        leaving = asyncio.create_task(store.fleet.leave(owner))
        await waits_for_lock(side)
    await leaving

    assert len(claims) == 5
    assert await store.queue.owned(owner) == []
    assert len(await store.queue.claim(await given.worker(), 9, [("order", 1)])) == 5


async def test_batches_over_the_same_instances_do_not_deadlock_and_one_of_them_wins(
    store: Store, given: Given
) -> None:
    owned = await given.claimed(60)
    for head in range(15):
        batch = [given.append(owner, claim, head=head) for owner, claim in owned]

        answers = await asyncio.gather(
            store.events.append(batch),
            store.events.append(batch[::-1]),
            store.events.append(batch[1::2]),
        )

        assert sum(map(len, answers)) == 60

    for _, claim in owned:
        assert len(await store.events.read(claim.saga_id)) == 15
