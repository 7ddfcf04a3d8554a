"""What every fleet promises."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from orchestrator.adapters import memory
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import Retired, Store
from tests.contract.given import LEASE, ORDER, Given, eventually

SHORT = timedelta(milliseconds=50)


async def retired_until(store: Store, worker_id: str) -> Retired:
    """Look for dead workers, again and again, until *worker_id* is found to be one."""
    found: list[Retired] = []

    async def look() -> bool:
        found.extend(await store.fleet.retire_dead())
        return any(retired.worker_id == worker_id for retired in found)

    await eventually(look)
    return next(retired for retired in found if retired.worker_id == worker_id)


async def test_a_live_worker_is_left_alone(store: Store, other: Store, given: Given) -> None:
    [(owner, _)] = await given.claimed()

    for _ in range(3):
        assert await other.fleet.retire_dead() == []

    assert await store.fleet.renew(owner, LEASE)
    assert len(await store.queue.owned(owner)) == 1


async def test_a_worker_whose_lease_ran_out_is_retired_and_its_work_is_free(
    store: Store, other: Store, given: Given
) -> None:
    owner = await given.worker(SHORT)
    await given.claimed(3, owner)

    retired = await retired_until(other, owner)

    assert retired == Retired(owner, "its lease ran out", 3)
    successor = await given.worker()
    claims = await store.queue.claim(successor, 10, [ORDER])
    assert [claim.epoch for claim in claims] == [2, 2, 2]
    assert [claim.claims for claim in claims] == [2, 2, 2]


async def test_a_retired_worker_cannot_renew_claim_or_append(
    store: Store, other: Store, given: Given
) -> None:
    owner = await given.worker(SHORT)
    [(_, claim)] = await given.claimed(1, owner)
    await retired_until(other, owner)

    assert not await store.fleet.renew(owner, LEASE)
    with pytest.raises(OwnershipLostError):
        await store.queue.claim(owner, 1, [ORDER])
    assert await store.events.append([given.append(owner, claim)]) == {}
    assert await store.queue.reclaim(owner, claim.saga_id, claim.epoch) is None


async def test_a_renewed_lease_holds(store: Store, other: Store, given: Given) -> None:
    owner = await given.worker(SHORT)
    assert await store.fleet.renew(owner, LEASE)

    clock = store.clock.now

    async def over(began: object = clock()) -> bool:
        return bool(clock() - began > 2 * SHORT)  # type: ignore[operator]  # a datetime

    await eventually(over)
    assert await other.fleet.retire_dead() == []


async def test_a_worker_that_leaves_frees_what_it_held(store: Store, given: Given) -> None:
    owner = await given.worker()
    await given.claimed(2, owner)

    await store.fleet.leave(owner)

    assert not await store.fleet.renew(owner, LEASE)
    assert len(await store.queue.claim(await given.worker(), 10, [ORDER])) == 2


async def test_leaving_twice_does_no_harm(store: Store, given: Given) -> None:
    owner = await given.worker()
    await store.fleet.leave(owner)
    await store.fleet.leave(owner)

    assert not await store.fleet.renew(owner, LEASE)


async def test_a_worker_whose_connection_is_gone_is_retired_long_before_its_lease_ends(
    place: memory.MemoryDatabase | str, other: Store, request: pytest.FixtureRequest
) -> None:
    if "pgbouncer" in request.node.name:
        pytest.skip("behind a pooler nobody sees a session end; the lease decides (test_pooler)")
    opened = open_store(place) if isinstance(place, str) else memory.open_store(database=place)
    async with opened as gone:
        owner = await Given(gone).worker()
        await Given(gone).claimed(2, owner)

    retired = await retired_until(other, owner)

    assert retired == Retired(owner, "its connection is gone", 2)


async def test_a_dead_worker_is_retired_once(store: Store, other: Store, given: Given) -> None:
    owner = await given.worker(SHORT)
    await retired_until(other, owner)

    assert await other.fleet.retire_dead() == []
    assert await store.fleet.retire_dead() == []


async def test_members_are_listed_with_what_they_serve_until_they_leave(
    store: Store, other: Store
) -> None:
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    before = store.clock.now()
    await store.fleet.join(one, "one", LEASE, [("refund", 2), ORDER])
    await store.fleet.join(two, "two", LEASE)

    first, second = await other.fleet.members()

    assert (first.worker_id, first.label, first.alive) == (one, "one", True)
    assert first.definitions == (ORDER, ("refund", 2))
    assert second.definitions is None
    assert before - LEASE < first.joined_at <= second.joined_at < second.lease_until
    await store.fleet.leave(one)
    assert [member.worker_id for member in await other.fleet.members()] == [two]


async def test_a_member_whose_lease_ran_out_is_not_alive_until_it_is_retired(
    store: Store, other: Store, given: Given
) -> None:
    owner = await given.worker(SHORT)

    async def dead() -> bool:
        [member] = await other.fleet.members()
        return not member.alive

    await eventually(dead)
    await retired_until(other, owner)
    assert await other.fleet.members() == []


async def test_an_instance_says_how_often_it_was_claimed_and_what_was_read(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.queue.release(owner, [claim.saga_id])
    await store.queue.claim(owner, 1, [ORDER])

    found = await store.reads.get(claim.saga_id)

    assert found is not None
    assert (found.claims, found.inbox_seen) == (2, 0)
