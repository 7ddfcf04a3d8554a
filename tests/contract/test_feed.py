"""What every feed promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from orchestrator.domain.events import Status
from orchestrator.ports import Cursor, FeedEvent, Store
from tests.contract.given import LEASE, Given, eventually


async def all_events(store: Store, limit: int = 7) -> list[FeedEvent]:
    """The feed from its beginning, page by page."""
    events: list[FeedEvent] = []
    after = 0
    while (page := await store.feed.read(after, limit)).position > after:
        assert len(page.events) <= limit
        events += page.events
        after = page.position
    return events


async def test_an_empty_feed_stays_where_it_is(store: Store) -> None:
    page = await store.feed.read(0, 10)

    assert (page.events, page.position) == ((), 0)


async def test_the_feed_gives_every_event_once_in_order(store: Store, given: Given) -> None:
    owned = await given.claimed(10)
    for head in (0, 3):
        await store.events.append(
            [given.append(owner, claim, 3, head=head) for owner, claim in owned]
        )

    events = await all_events(store)

    positions = [event.row.position for event in events]
    assert positions == sorted(set(positions))
    assert len(events) == 60
    for _, claim in owned:
        mine = [event.row for event in events if event.row.saga_id == claim.saga_id]
        assert mine == await store.events.read(claim.saga_id)


async def test_an_event_comes_with_what_its_reader_needs(store: Store, given: Given) -> None:
    owner = await given.worker()
    await given.started(correlation_id="trail-1")
    [claim] = await store.queue.claim(owner, 1, [("order", 1)])
    await store.events.append([given.append(owner, claim)])

    [event] = (await store.feed.read(0, 10)).events

    assert (event.saga_name, event.saga_version) == ("order", 1)
    assert event.correlation_id == "trail-1"


async def test_readers_beside_writers_miss_nothing(
    store: Store, other: Store, given: Given
) -> None:
    owned = await given.claimed(30)
    done = asyncio.Event()

    async def write(part: int) -> None:
        for head in range(15):
            await store.events.append(
                [given.append(owner, claim, 1, head=head) for owner, claim in owned[part::3]]
            )

    async def follow() -> list[FeedEvent]:
        events: list[FeedEvent] = []
        after = 0
        while True:
            last = done.is_set()
            page = await other.feed.read(after, 50)
            events += page.events
            if last and page.position == after:
                return events
            after = page.position
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    await asyncio.gather(*map(write, range(3)))
    done.set()
    events = await following

    assert len({event.row.position for event in events}) == len(events) == 30 * 15


async def test_one_relay_owns_the_checkpoint(store: Store) -> None:
    assert await store.feed.acquire("r", "ann", LEASE) == Cursor(0, 1)
    assert await store.feed.acquire("r", "bob", LEASE) is None
    assert await store.feed.acquire("r", "ann", LEASE) == Cursor(0, 1)
    assert await store.feed.acquire("another", "bob", LEASE) == Cursor(0, 1)


async def test_the_next_owner_goes_on_at_the_checkpoint_under_a_new_epoch(store: Store) -> None:
    await store.feed.acquire("r", "ann", LEASE)
    assert await store.feed.checkpoint("r", "ann", Cursor(5, 1), LEASE)
    await store.feed.give_up("r", "ann")

    assert await store.feed.acquire("r", "bob", LEASE) == Cursor(5, 2)
    assert not await store.feed.checkpoint("r", "ann", Cursor(9, 1), LEASE)
    assert await store.feed.acquire("r", "bob", LEASE) == Cursor(5, 2)


async def test_a_lease_that_ran_out_is_taken_over(store: Store) -> None:
    await store.feed.acquire("r", "ann", timedelta(milliseconds=50))

    async def taken() -> bool:
        return await store.feed.acquire("r", "bob", LEASE) == Cursor(0, 2)

    await eventually(taken)


async def test_a_checkpoint_extends_the_lease(store: Store) -> None:
    await store.feed.acquire("r", "ann", timedelta(milliseconds=1))

    assert await store.feed.checkpoint("r", "ann", Cursor(1, 1), LEASE)
    assert await store.feed.acquire("r", "bob", LEASE) is None


async def test_a_checkpoint_never_goes_back(store: Store) -> None:
    await store.feed.acquire("r", "ann", LEASE)
    await store.feed.checkpoint("r", "ann", Cursor(9, 1), LEASE)

    assert await store.feed.checkpoint("r", "ann", Cursor(4, 1), LEASE)
    assert await store.feed.acquire("r", "ann", LEASE) == Cursor(9, 1)


async def test_only_the_owner_can_give_a_checkpoint_up(store: Store) -> None:
    await store.feed.acquire("r", "ann", LEASE)
    await store.feed.give_up("r", "bob")

    assert await store.feed.acquire("r", "bob", LEASE) is None


async def test_the_lag_is_what_lies_between_checkpoint_and_end(store: Store, given: Given) -> None:
    assert await store.feed.lag("r") == 0
    await given.at_rest(Status.COMPLETED)
    await given.at_rest(Status.COMPLETED)
    assert await store.feed.lag("r") == 2

    cursor = await store.feed.acquire("r", "ann", LEASE)
    assert cursor is not None
    page = await store.feed.read(0, 1)
    await store.feed.checkpoint("r", "ann", Cursor(page.position, cursor.epoch), LEASE)

    assert await store.feed.lag("r") == 1


async def test_relays_are_listed_with_how_far_they_are_and_who_moves_them(
    store: Store, other: Store, given: Given
) -> None:
    assert await store.feed.relays() == []
    [(owner, claim)] = await given.claimed()
    await store.events.append([given.append(owner, claim, 2)])
    cursor = await store.feed.acquire("events", "me", LEASE)
    assert cursor is not None
    position = (await all_events(store))[0].row.position
    assert await store.feed.checkpoint("events", "me", Cursor(position, cursor.epoch), LEASE)

    [relay] = await other.feed.relays()

    assert (relay.relay, relay.position, relay.owner) == ("events", position, "me")
    await store.feed.give_up("events", "me")
    assert [relay.owner for relay in await other.feed.relays()] == [None]


async def test_an_event_tells_key_parent_and_tags_of_its_instance(
    store: Store, given: Given
) -> None:
    owner = await given.worker()
    [parent] = await given.started()
    await given.started(key="order-7", parent=parent, tags={"country": "CH", "note": '"\\ Zoë'})
    claims = await store.queue.claim(owner, 2, [("order", 1)])
    await store.events.append([given.append(owner, claim) for claim in claims])

    found = {event.row.saga_id: event for event in await all_events(store)}

    child = found.pop(next(claim.saga_id for claim in claims if claim.parent == parent))
    assert (child.key, child.parent) == ("order-7", parent)
    assert child.tags == {"country": "CH", "note": '"\\ Zoë'}
    assert [(e.key, e.parent, e.tags) for e in found.values()] == [(None, None, {})]


async def test_a_repair_comes_with_the_turn_that_it_leads_back_to(
    store: Store, given: Given
) -> None:
    [(owner, claim)] = await given.claimed()
    types = [
        "SagaStarted", "SagaStuck", "SagaResumed", "StepSucceeded", "CompensationStarted",
        "SagaStuck", "StepRetried", "SagaStuck", "CompensationSkipped", "SagaStuck", "StepResolved",
    ]  # fmt: skip
    append = given.append(owner, claim, len(types))
    named = (replace(row, type=type_) for row, type_ in zip(append.events, types, strict=True))
    await store.events.append([replace(append, events=tuple(named))])

    turns = {e.row.version: e.turn for e in await all_events(store) if e.turn}

    back = "CompensationStarted"
    assert turns == {3: "SagaStarted", 7: back, 9: back, 11: back}


async def test_a_repair_before_the_start_leads_back_to_nothing(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    append = given.append(owner, claim, 2)
    stuck, resumed = append.events
    named = (replace(stuck, type="SagaStuck"), replace(resumed, type="SagaResumed"))
    await store.events.append([replace(append, events=named)])

    assert [event.turn for event in await all_events(store)] == ["", ""]
