"""What ended long ago can be removed, and readers hear of it, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.postgres import partitions, retention
from orchestrator.adapters.postgres.retention import look, remove
from orchestrator.adapters.postgres.store import open_store
from orchestrator.domain.chain import link
from orchestrator.domain.events import Status
from orchestrator.ports import Cursor, FeedEvent, Store
from tests.adapters.postgres.beside import Connection
from tests.contract.given import LEASE, Given
from tests.contract.test_feed import all_events

NAMES = ("saga", "saga_input", "event", "inbox")


@pytest.fixture
async def other(any_dsn: str) -> AsyncIterator[Store]:
    """A store of another process over the same database."""
    async with open_store(any_dsn) as found:
        yield found


def now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=5)  # the clocks of two machines may differ


async def rows(side: Connection) -> dict[str, int]:
    return {name: await side.fetchval(f"SELECT count(*) FROM {name}") for name in NAMES}


async def published(store: Store, upto: int | None = None) -> None:
    """Let a relay have published the feed, all of it or up to a position."""
    events = await all_events(store)
    cursor = await store.feed.acquire("events", "ann", LEASE)
    assert cursor is not None
    position = events[-1].row.position if upto is None else upto
    await store.feed.checkpoint("events", "ann", Cursor(position, cursor.epoch), LEASE)


def removals(events: list[FeedEvent]) -> list[str]:
    return [event.row.saga_id for event in events if event.row.type == "SagaRemoved"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.COMPENSATED, Status.TERMINATED])
async def test_an_instance_that_ended_goes_with_all_that_was_its_own(
    store: Store, given: Given, side: Connection, any_dsn: str, status: Status
) -> None:
    await given.at_rest(status)
    assert (await look(any_dsn, now())).sagas == 1

    done = await remove(any_dsn, now())

    assert (done.sagas, done.events) == (1, 1)
    assert set((await rows(side)).values()) == {0}, "no relay ever was, so nobody is to be told"


async def test_what_has_not_ended_or_ended_later_stays(
    store: Store, given: Given, side: Connection, any_dsn: str
) -> None:
    await given.at_rest(Status.STUCK)
    await given.started()
    await given.claimed()
    assert await remove(any_dsn, now()) == retention.Removed(0, 0, ())

    await given.at_rest(Status.COMPLETED)
    early = datetime.now(UTC) - timedelta(hours=1)
    assert (await remove(any_dsn, early)).sagas == 0
    assert (await rows(side))["saga"] == 4


async def test_of_one_saga_only_where_it_is_named(store: Store, given: Given, any_dsn: str) -> None:
    await given.at_rest(Status.COMPLETED)

    assert (await look(any_dsn, now(), "refund")).sagas == 0
    assert (await remove(any_dsn, now(), "refund")).sagas == 0
    assert (await remove(any_dsn, now(), "order")).sagas == 1


async def test_what_no_relay_has_published_yet_stays(
    store: Store, given: Given, any_dsn: str
) -> None:
    first, second = [await given.at_rest(Status.COMPLETED) for _ in range(2)]
    position = (await all_events(store))[0].row.position
    await published(store, upto=position)

    assert (await look(any_dsn, now())).unpublished == 1
    done = await remove(any_dsn, now())

    assert done.sagas == 1
    assert await store.reads.get(first) is None
    assert await store.reads.get(second) is not None


async def test_the_first_relay_of_all_waits_for_a_removal_under_way(
    store: Store,
    given: Given,
    side: Connection,
    any_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await given.at_rest(Status.COMPLETED)
    delete, beginning = retention._RETAIN, "SELECT pg_sleep(0.5)"
    monkeypatch.setattr(retention, "_RETAIN", f"{delete}; {beginning}")
    removing = asyncio.create_task(remove(any_dsn, now()))
    locked = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND granted"
    while not await side.fetchval(f"{locked} AND relation = 'relay_cursor'::regclass"):
        await asyncio.sleep(0)

    cursor = await store.feed.acquire("events", "ann", LEASE)

    assert cursor == Cursor(0, 1)
    assert await all_events(store) == [], "what it would have found half of is gone already"
    assert (await removing).sagas == 1


async def test_a_removal_is_an_event_in_the_feed_that_says_what_it_was(
    store: Store, given: Given, any_dsn: str
) -> None:
    saga_id = await given.at_rest(Status.COMPLETED)
    [before] = await store.events.read(saga_id)
    await published(store)

    await remove(any_dsn, now())

    [event] = await all_events(store)
    row = event.row
    assert (row.saga_id, row.version, row.type) == (saga_id, 2, "SagaRemoved")
    assert (event.saga_name, event.saga_version, event.key) == ("order", 1, None)
    assert row.position > before.position
    assert row.hash == link(
        before.hash, saga_id, 2, row.type, "", 0, row.epoch, row.recorded_at, row.meta, row.data
    )


async def test_what_a_removal_leaves_behind_goes_once_it_is_published(
    store: Store, given: Given, side: Connection, any_dsn: str
) -> None:
    saga_id = await given.at_rest(Status.COMPLETED)
    await published(store)
    await remove(any_dsn, now())
    await remove(any_dsn, now())
    assert removals(await all_events(store)) == [saga_id], "not published yet"

    await published(store)
    await remove(any_dsn, now())

    assert set((await rows(side)).values()) == {0}


async def test_children_go_with_their_parents_and_not_before_them(
    store: Store, given: Given, any_dsn: str
) -> None:
    owner = await given.worker()
    [root] = await given.started()
    [child] = await given.started(parent=root)
    [grandchild] = await given.started(parent=child)
    claims = {c.saga_id: c for c in await store.queue.claim(owner, 3, [("order", 1)])}
    for saga_id in (child, grandchild):
        done = given.append(owner, claims[saga_id], status=Status.COMPLETED, keep=False)
        await store.events.append([done])

    assert (await look(any_dsn, now())).held == 1
    assert (await remove(any_dsn, now())).sagas == 0

    done = given.append(owner, claims[root], status=Status.COMPLETED, keep=False)
    await store.events.append([done])
    assert (await remove(any_dsn, now())).sagas == 3


async def test_many_go_page_by_page_and_each_is_told_once(
    store: Store, given: Given, any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await given.at_rest(Status.COMPLETED) for _ in range(25)]
    await published(store)
    monkeypatch.setattr(retention, "PAGE", 4)
    told: list[int] = []

    done = await asyncio.gather(remove(any_dsn, now(), None, told.append), remove(any_dsn, now()))

    assert sum(each.sagas for each in done) == 25
    assert sorted(removals(await all_events(store))) == sorted(ids)


async def test_cut_off_anywhere_nothing_goes_without_being_told(
    store: Store, given: Given, side: Connection, any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await given.at_rest(Status.COMPLETED) for _ in range(12)]
    await published(store)
    monkeypatch.setattr(retention, "PAGE", 3)
    mark, calls = retention._mark, iter(range(100))

    async def die(connection: Connection, page: object) -> None:
        if next(calls) == 2:
            raise ConnectionResetError("the process died here")
        await mark(connection, page)

    monkeypatch.setattr(retention, "_mark", die)
    with contextlib.suppress(Exception):
        await remove(any_dsn, now())

    kept = {row["id"] for row in await side.fetch("SELECT id::text AS id FROM saga")}
    told = removals(await all_events(store))
    assert len(told) == 6
    assert kept | set(told) == set(ids)
    assert not kept & set(told)

    assert (await remove(any_dsn, now())).sagas == 6
    assert sorted(removals(await all_events(store))) == sorted(ids)


async def test_a_reader_of_the_feed_beside_it_misses_no_event(
    store: Store, other: Store, given: Given, any_dsn: str
) -> None:
    ids = [await given.at_rest(Status.COMPLETED) for _ in range(10)]
    await published(store)
    after = (await all_events(store))[-1].row.position
    seen: list[str] = []
    removing = asyncio.create_task(remove(any_dsn, now()))
    while not removing.done() or len(seen) < 10:
        page = await other.feed.read(after, 3)
        seen += removals(list(page.events))
        after = page.position
        await asyncio.sleep(0)

    assert (await removing).sagas == 10
    assert sorted(seen) == sorted(ids)


async def test_months_that_hold_nothing_any_more_are_dropped(
    store: Store, given: Given, side: Connection, any_dsn: str
) -> None:
    month = datetime(2020, 5, 1, tzinfo=UTC)
    for offset in (0, 1):
        await partitions._make(side, partitions._month(month, offset))
    present = await partitions._present(side)
    owner = await given.worker()
    old = str(partitions.first_id(datetime(2020, 6, 3, tzinfo=UTC)))
    await given.started(saga_id=old)
    [claim] = await store.queue.claim(owner, 1, [("order", 1)])
    await store.events.append([given.append(owner, claim)])

    first = await remove(any_dsn, now())
    await store.events.append(
        [given.append(owner, claim, head=1, status=Status.COMPLETED, keep=False)]
    )
    second = await remove(any_dsn, now())

    assert (first.months, second.months) == (("event_2020_05",), ("event_2020_06",))
    assert await partitions._present(side) == present - {"event_2020_05", "event_2020_06"}
