"""What every work queue promises."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from orchestrator.domain.events import Status
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import Claim, Owned, Store
from orchestrator.runtime.service import new_id
from tests.contract.given import ORDER, Given, request
from tests.doomed import begin


async def test_a_claim_carries_what_is_needed_to_begin(store: Store, given: Given) -> None:
    owner = await given.worker()
    [saga_id] = await given.started(input='{"n":7}', context='{"correlation_id":"c-9"}')

    [claim] = await store.queue.claim(owner, 10, [ORDER])

    assert (claim.saga_id, claim.name, claim.version) == (saga_id, "order", 1)
    assert (claim.fingerprint, claim.epoch, claim.head, claim.claims) == ("f1", 1, 0, 1)
    assert (claim.status, claim.inbox_seq) == (Status.PENDING, 0)
    assert (claim.input, claim.context) == ('{"n":7}', '{"correlation_id":"c-9"}')
    instance = await store.reads.get(saga_id)
    assert instance is not None
    assert claim.requested_at == instance.created_at


async def test_a_claim_of_a_child_names_its_parent(store: Store, given: Given) -> None:
    owner, parent = await given.worker(), new_id()
    await given.started(parent=parent, parent_node="order/1")

    [claim] = await store.queue.claim(owner, 10, [ORDER])
    again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)

    assert again is not None
    for found in (claim, again):
        assert (found.parent, found.parent_node) == (parent, "order/1")


async def test_a_claim_of_anybody_else_names_none(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)

    assert again is not None
    for found in (claim, again):
        assert (found.parent, found.parent_node) == (None, "")


async def test_an_instance_is_claimed_by_one_worker_only(store: Store, given: Given) -> None:
    owners = [await given.worker() for _ in range(4)]
    ids = await given.started(40)

    claims = await asyncio.gather(*(store.queue.claim(owner, 20, [ORDER]) for owner in owners))

    taken = [claim.saga_id for part in claims for claim in part]
    assert len(taken) == len(set(taken))
    while more := await store.queue.claim(owners[0], 20, [ORDER]):
        taken += [claim.saga_id for claim in more]
    assert sorted(taken) == sorted(ids)


async def test_a_claim_never_takes_more_than_its_limit(store: Store, given: Given) -> None:
    owner = await given.worker()
    await given.started(10)
    await given.started(10, name="refund")

    assert len(await store.queue.claim(owner, 3, [ORDER, ("refund", 1)])) == 3
    assert len(await store.queue.claim(owner, 14, [ORDER, ("refund", 1)])) == 14
    assert len(await store.queue.claim(owner, 14, [ORDER, ("refund", 1)])) == 3


async def test_a_claim_takes_only_definitions_that_it_names(store: Store, given: Given) -> None:
    owner = await given.worker()
    await given.started(version=2)
    await given.started(name="refund")

    assert await store.queue.claim(owner, 10, [ORDER]) == []
    assert len(await store.queue.claim(owner, 10, [("order", 2), ("refund", 1)])) == 2


async def test_only_a_worker_in_the_fleet_may_claim(store: Store, given: Given) -> None:
    await given.started()
    with pytest.raises(OwnershipLostError):
        await store.queue.claim(new_id(), 1, [ORDER])

    owner = await given.worker()
    await store.fleet.leave(owner)
    with pytest.raises(OwnershipLostError):
        await store.queue.claim(owner, 1, [ORDER])


async def test_every_claim_raises_the_epoch_and_counts(store: Store, given: Given) -> None:
    owner = await given.worker()
    await given.started()
    for turn in (1, 2, 3):
        [claim] = await store.queue.claim(owner, 1, [ORDER])
        assert (claim.epoch, claim.claims) == (turn, turn)
        await store.queue.release(owner, [claim.saga_id])


async def test_from_the_third_claim_in_vain_on_it_is_the_beginning_that_counts(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    counted = [claim.claims]
    for begins in (False, False, False, False, True, True, False):
        await store.queue.release(owner, [claim.saga_id])
        [claim] = await store.queue.claim(owner, 1, [ORDER])
        if begins:
            again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)
            assert again is not None
            claim = again
        counted.append(claim.claims)

    assert counted == [1, 2, 3, 3, 3, 4, 5, 5]


async def test_a_released_instance_is_due_after_the_delay(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    await store.queue.release(owner, [claim.saga_id], timedelta(hours=1))

    assert await store.queue.claim(owner, 1, [ORDER]) == []
    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    assert instance.due_at is not None
    assert instance.due_at - store.clock.now() > timedelta(minutes=59)
    assert instance.owner is None


async def test_nobody_releases_what_another_holds(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    await store.queue.release(await given.worker(), [claim.saga_id])

    assert await store.queue.owned(owner) == [Owned(claim.saga_id, 1, 0)]


async def test_what_is_not_due_is_not_claimed(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    later = store.clock.now() + timedelta(hours=1)
    await store.events.append([given.append(owner, claim, due_at=later, keep=False)])

    assert await store.queue.claim(owner, 1, [ORDER]) == []


async def test_what_waits_for_its_inbox_alone_is_claimed_after_a_message(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim, status=Status.WAITING, keep=False)])
    assert await store.queue.claim(owner, 1, [ORDER]) == []

    await store.inbox.send(claim.saga_id, "cancel", {}, actor="ann", dedupe_key="k")

    [again] = await store.queue.claim(owner, 1, [ORDER])
    assert (again.saga_id, again.inbox_seq, again.status) == (claim.saga_id, 1, Status.WAITING)


async def test_a_claim_after_the_first_event_carries_no_input(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    due_at = store.clock.now()
    await store.events.append([given.append(owner, claim, due_at=due_at, keep=False)])

    [again] = await store.queue.claim(owner, 1, [ORDER])

    assert (again.head, again.input) == (1, None)


async def test_reclaiming_ones_own_raises_the_epoch(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)

    assert again is not None
    assert (again.epoch, again.claims, again.input) == (2, 2, claim.input)
    assert await store.events.append([given.append(owner, claim)]) == {}
    assert await store.events.append([given.append(owner, again)]) == {claim.saga_id: 0}


async def test_what_is_reclaimed_through_no_fault_of_its_own_counts_no_further_than_a_claim(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    counted = []
    for _ in range(4):
        again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch, counts=False)
        assert again is not None
        counted.append(again.claims)
        claim = again

    assert counted == [2, 3, 3, 3]
    last = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)
    assert last is not None
    assert last.claims == 4


async def test_reclaiming_under_another_owner_or_epoch_gives_nothing(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()

    assert await store.queue.reclaim(await given.worker(), claim.saga_id, claim.epoch) is None
    assert await store.queue.reclaim(owner, claim.saga_id, claim.epoch + 1) is None
    assert await store.queue.reclaim(owner, new_id(), 1) is None


async def test_owned_tells_epoch_and_inbox_of_what_is_held(store: Store, given: Given) -> None:
    owned = await given.claimed(3)
    owner, first = owned[0]
    await store.inbox.send(first.saga_id, "cancel", {}, actor="ann", dedupe_key="k")

    found = await store.queue.owned(owner)

    assert {(o.saga_id, o.epoch, o.inbox_seq) for o in found} == {
        (claim.saga_id, 1, 1 if claim is first else 0) for _, claim in owned
    }
    assert await store.queue.owned(new_id()) == []


async def test_the_longest_due_comes_first(store: Store, given: Given) -> None:
    owner = await given.worker()
    first = await store.requests.start([request()])
    second = await store.requests.start([request()])

    claims = await store.queue.claim(owner, 1, [ORDER]) + await store.queue.claim(owner, 1, [ORDER])

    assert [claim.saga_id for claim in claims] == [first[0].saga_id, second[0].saga_id]


async def test_what_is_given_back_untouched_was_not_claimed(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    await store.queue.release(owner, [claim.saga_id], untouched=True)

    [again] = await store.queue.claim(owner, 1, [ORDER])
    assert (again.epoch, again.claims) == (2, 1)


async def test_a_suspect_that_is_given_back_untouched_is_as_suspect_as_before(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    for _ in range(3):
        again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)
        assert again is not None
        claim = again
    await store.queue.release(owner, [claim.saga_id], untouched=True)

    [again] = await store.queue.claim(owner, 1, [ORDER])
    assert (claim.claims, again.claims) == (4, 4)


async def test_what_is_claimed_in_vain_again_and_again_comes_back_later_each_time(
    store: Store, given: Given
) -> None:
    await given.started()
    waits = []
    for _ in range(4):
        owner = await given.worker()
        while not (claims := await begin(store, owner, [ORDER])):
            await asyncio.sleep(0.02)
        [claim] = claims
        await store.fleet.leave(owner)
        instance = await store.reads.get(claim.saga_id)
        assert instance is not None
        assert instance.due_at is not None
        waits.append((instance.due_at - store.clock.now()).total_seconds())

    assert max(waits[:2]) <= 0
    assert 0 < waits[2] <= 0.5 < waits[3] <= 1.0


async def test_what_was_begun_in_vain_countless_times_is_freed_like_all_else(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    mine: Claim | None = claim
    for _ in range(1_100):
        assert mine is not None
        mine = await store.queue.reclaim(owner, claim.saga_id, mine.epoch)

    await store.fleet.leave(owner)

    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    assert instance.owner is None
    assert instance.due_at is not None
    assert timedelta(seconds=3) < instance.due_at - store.clock.now() <= timedelta(seconds=6)
