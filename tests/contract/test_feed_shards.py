"""What every feed promises to relays that share it shard by shard."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from orchestrator.domain.shards import Shard, shard_of
from orchestrator.errors import ConflictError
from orchestrator.ports import Cursor, FeedEvent, Store
from tests.contract.given import LEASE, Given, eventually


async def events_of(store: Store, shard: Shard, limit: int) -> list[FeedEvent]:
    """All events of a shard, page by page."""
    events: list[FeedEvent] = []
    after = 0
    while (page := await store.feed.read(after, limit, shard)).position > after:
        assert len(page.events) <= limit
        events += page.events
        after = page.position
    return events


@pytest.mark.parametrize("limit", [3, 1000])
async def test_each_event_is_in_the_one_shard_that_its_id_says(
    store: Store, given: Given, limit: int
) -> None:
    owned = await given.claimed(40)
    for head in (0, 2):
        await store.events.append(
            [given.append(owner, claim, 2, head=head) for owner, claim in owned]
        )
    everything = (await store.feed.read(0, 1000)).events

    for shards in (1, 2, 3, 7):
        for index in range(shards):
            found = await events_of(store, Shard(index, shards), limit)
            assert found == [
                event for event in everything if shard_of(event.row.saga_id, shards) == index
            ]


async def test_a_shard_without_events_comes_to_the_end_of_the_feed(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim, 3)])
    empty = Shard(1 - shard_of(claim.saga_id, 2), 2)

    page = await store.feed.read(0, 10, empty)

    assert (page.events, page.position) == ((), (await store.feed.read(0, 10)).position)


async def test_the_number_of_shards_is_fixed_by_the_first_who_asks(
    store: Store, other: Store
) -> None:
    await store.feed.pin("r", 3)
    await other.feed.pin("r", 3)

    with pytest.raises(ConflictError, match="has 3 shards and the settings say 4"):
        await other.feed.pin("r", 4)
    assert [row.relay for row in await store.feed.relays()] == ["r/0", "r/1", "r/2"]


async def test_of_two_who_fix_the_number_at_once_one_does(store: Store, other: Store) -> None:
    ends = await asyncio.gather(
        *(feed.pin("r", shards) for feed in (store.feed, other.feed) for shards in (2, 5)),
        return_exceptions=True,
    )

    assert len(await store.feed.relays()) in (2, 5)
    assert [type(end) for end in ends if end is not None] == [ConflictError] * 2


async def test_shards_begin_where_the_relay_was_before_there_were_any(store: Store) -> None:
    cursor = await store.feed.acquire("r", "ann", LEASE)
    assert cursor is not None
    await store.feed.checkpoint("r", "ann", Cursor(7, cursor.epoch), LEASE)

    await store.feed.pin("r", 2)

    assert [(row.relay, row.position) for row in await store.feed.relays()] == [
        ("r/0", 7),
        ("r/1", 7),
    ]


async def test_the_lag_of_a_relay_is_that_of_its_last_shard(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim, 5)])
    end = (await store.feed.read(0, 10)).position
    await store.feed.pin("r", 2)
    first = await store.feed.acquire("r/0", "ann", LEASE)
    assert first is not None
    await store.feed.checkpoint("r/0", "ann", Cursor(end, first.epoch), LEASE)

    assert await store.feed.lag("r/0") == 0
    assert await store.feed.lag("r") == await store.feed.lag("r/1") > 0


async def test_only_a_rewind_takes_a_checkpoint_back(store: Store) -> None:
    cursor = await store.feed.acquire("r", "ann", LEASE)
    assert cursor is not None
    await store.feed.checkpoint("r", "ann", Cursor(9, cursor.epoch), LEASE)

    assert not await store.feed.rewind("r", "bob", Cursor(4, cursor.epoch), LEASE)
    assert await store.feed.rewind("r", "ann", Cursor(4, cursor.epoch), LEASE)
    assert await store.feed.acquire("r", "ann", LEASE) == Cursor(4, cursor.epoch)


async def test_who_attends_sees_all_who_do_in_the_same_order(store: Store, other: Store) -> None:
    assert await store.feed.attend("r", "bob", LEASE) == ["bob"]
    assert await other.feed.attend("r", "ann", LEASE) == ["ann", "bob"]
    assert await other.feed.attend("elsewhere", "eve", LEASE) == ["eve"]
    assert await store.feed.attend("r", "bob", LEASE) == ["ann", "bob"]

    await store.feed.leave("r", "bob")

    assert await other.feed.attend("r", "ann", LEASE) == ["ann"]


async def test_who_does_not_come_back_in_time_is_there_no_longer(
    store: Store, other: Store
) -> None:
    await store.feed.attend("r", "bob", timedelta(milliseconds=50))

    async def alone() -> bool:
        return await other.feed.attend("r", "ann", LEASE) == ["ann"]

    await eventually(alone)
