"""What every event store promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.domain.events import Status
from orchestrator.ports import Store
from orchestrator.runtime.service import new_id
from tests.contract.given import ORDER, Given


async def test_what_is_appended_reads_back_exactly_as_it_was_written(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    text = '{"b" : 1.50, "a":"\\u0000", "a": 10000000000000000000000}'
    append = given.append(owner, claim, 3, data=text)

    assert await store.events.append([append]) == {claim.saga_id: 0}

    read = await store.events.read(claim.saga_id)
    assert [replace(row, position=0) for row in read] == list(append.events)


async def test_reading_after_a_version_leaves_out_what_came_before(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim, 5)])

    assert [row.version for row in await store.events.read(claim.saga_id, after=3)] == [4, 5]
    assert await store.events.read(claim.saga_id, after=5) == []
    assert await store.events.read(new_id()) == []


async def test_an_append_at_another_head_epoch_or_owner_is_refused(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    good = given.append(owner, claim)
    stranger = await given.worker()

    for bad in (
        replace(good, head=1),
        replace(good, epoch=claim.epoch - 1),
        replace(good, epoch=claim.epoch + 1),
        replace(good, owner=stranger),
        replace(good, saga_id=new_id()),
    ):
        assert await store.events.append([bad]) == {}

    assert await store.events.read(claim.saga_id) == []
    assert await store.events.append([good]) == {claim.saga_id: 0}


async def test_a_batch_writes_the_owned_and_leaves_out_the_fenced(
    store: Store, given: Given
) -> None:
    owned = await given.claimed(10)
    appends = [given.append(owner, claim, 2) for owner, claim in owned]
    appends[3] = replace(appends[3], epoch=appends[3].epoch + 1)
    appends[7] = replace(appends[7], head=4)

    written = await store.events.append(appends)

    fenced = {appends[3].saga_id, appends[7].saga_id}
    assert set(written) == {append.saga_id for append in appends} - fenced
    for append in appends:
        expected = 0 if append.saga_id in fenced else 2
        assert len(await store.events.read(append.saga_id)) == expected


async def test_positions_follow_the_versions_of_each_instance(store: Store, given: Given) -> None:
    owned = await given.claimed(40)
    batch = [given.append(owner, claim, 7) for owner, claim in reversed(owned)]
    await store.events.append(batch)
    await store.events.append([given.append(owner, claim, 5, head=7) for owner, claim in owned])

    seen: set[int] = set()
    for _, claim in owned:
        rows = await store.events.read(claim.saga_id)
        positions = [row.position for row in rows]
        assert [row.version for row in rows] == list(range(1, 13))
        assert positions == sorted(positions)
        seen.update(positions)
    assert len(seen) == 40 * 12


async def test_an_append_moves_head_status_and_due_time_of_the_instance(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    due_at = store.clock.now() + timedelta(hours=1)

    await store.events.append(
        [given.append(owner, claim, 2, status=Status.WAITING, due_at=due_at, keep=False)]
    )

    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    assert (instance.head, instance.status, instance.due_at) == (2, Status.WAITING, due_at)
    assert instance.owner is None


async def test_an_append_without_events_moves_the_instance_only(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    written = await store.events.append(
        [given.append(owner, claim, 0, status=Status.WAITING, keep=False)]
    )

    assert written == {claim.saga_id: 0}
    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    assert (instance.head, instance.status, instance.owner) == (0, Status.WAITING, None)


async def test_a_conditional_append_is_refused_when_the_inbox_has_news(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.inbox.send(claim.saga_id, "cancel", {}, actor="ann", dedupe_key="k")
    park = given.append(owner, claim, 1, status=Status.WAITING, keep=False, if_inbox=True)

    assert await store.events.append([park]) == {}
    assert await store.events.append([replace(park, if_inbox=False, inbox_seen=1)]) == {
        claim.saga_id: 1
    }


async def test_a_conditional_append_goes_through_when_the_inbox_was_read(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.inbox.send(claim.saga_id, "cancel", {}, actor="ann", dedupe_key="k")

    park = given.append(owner, claim, 1, keep=False, if_inbox=True, inbox_seen=1)

    assert await store.events.append([park]) == {claim.saga_id: 1}


async def test_an_ended_instance_takes_no_more_events(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim, status=Status.COMPLETED, keep=False)])

    assert await store.events.append([given.append(owner, claim, head=1)]) == {}
    assert await store.queue.claim(owner, 10, [ORDER]) == []


async def test_a_pivot_is_remembered_by_the_row_for_good(store: Store, given: Given) -> None:
    (owner, pivoted), (other_owner, other) = await given.claimed(2)

    async def told() -> list[bool]:
        found = [await store.reads.get(claim.saga_id) for claim in (pivoted, other)]
        return [instance.pivoted for instance in found if instance is not None]

    assert await told() == [False, False]
    await store.events.append(
        [
            replace(given.append(owner, pivoted), pivoted=True),
            given.append(other_owner, other),
        ]
    )
    assert await told() == [True, False]
    await store.events.append([given.append(owner, pivoted, head=1)])
    assert await told() == [True, False]


async def test_a_fenced_append_does_not_pivot(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    late = replace(given.append(owner, claim), pivoted=True, epoch=claim.epoch - 1)

    assert await store.events.append([late]) == {}

    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    assert not instance.pivoted


async def test_an_append_sets_the_count_of_claims_back(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    await store.queue.release(owner, [claim.saga_id])
    [claim] = await store.queue.claim(owner, 1, [ORDER])
    assert claim.claims == 2
    await store.events.append([given.append(owner, claim, 0, due_at=store.clock.now(), keep=False)])

    [claim] = await store.queue.claim(owner, 1, [ORDER])

    assert claim.claims == 1


async def test_an_empty_batch_writes_nothing(store: Store) -> None:
    assert await store.events.append([]) == {}
