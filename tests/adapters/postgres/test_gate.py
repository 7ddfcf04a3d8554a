"""The feed misses nothing, although positions are handed out before the commit."""

from __future__ import annotations

import asyncio

from orchestrator.adapters.postgres.event_store import columns
from orchestrator.adapters.postgres.statements import sql
from orchestrator.ports import Append, Store
from tests.adapters.postgres.beside import Connection
from tests.contract.given import Given

AFTER = "SELECT position FROM event WHERE position > $1 ORDER BY position"


async def positions(side: Connection, after: int) -> list[int]:
    """What a plain cursor would read."""
    return [row["position"] for row in await side.fetch(AFTER, after)]


async def two_appends(given: Given) -> tuple[Append, Append]:
    (one, claim_one), (two, claim_two) = await given.claimed(2)
    return given.append(one, claim_one), given.append(two, claim_two)


async def test_a_plain_cursor_misses_an_event_that_commits_late_and_the_feed_does_not(
    store: Store, given: Given, side: Connection
) -> None:
    slow, quick = await two_appends(given)
    transaction = side.transaction()
    await transaction.start()
    await side.fetch(sql("append_events"), *columns([slow]))
    await store.events.append([quick])
    [quick_row] = await store.events.read(quick.saga_id)

    plain_cursor = quick_row.position
    early = await store.feed.read(0, 10)
    assert (early.events, early.position) == ((), 0)
    await transaction.commit()

    [slow_row] = await store.events.read(slow.saga_id)
    assert slow_row.position < plain_cursor
    assert await positions(side, plain_cursor) == []
    page = await store.feed.read(early.position, 10)
    assert [event.row for event in page.events] == [slow_row, quick_row]


async def test_appends_go_on_while_a_stuck_session_holds_the_gate(
    store: Store, given: Given, side: Connection
) -> None:
    slow, quick = await two_appends(given)
    async with side.transaction():
        await side.fetch(sql("append_events"), *columns([slow]))
        waiting = asyncio.create_task(store.feed.read(0, 10))
        assert await store.events.append([quick]) == {quick.saga_id: 0}
        assert (await waiting).events == ()

    assert len((await store.feed.read(0, 10)).events) == 2


async def test_a_gap_of_an_append_that_was_rolled_back_is_passed_over(
    store: Store, given: Given, side: Connection
) -> None:
    lost, kept = await two_appends(given)
    transaction = side.transaction()
    await transaction.start()
    await side.fetch(sql("append_events"), *columns([lost]))
    await transaction.rollback()
    await store.events.append([kept])

    page = await store.feed.read(0, 10)

    [kept_row] = await store.events.read(kept.saga_id)
    assert [event.row for event in page.events] == [kept_row]
    assert kept_row.position > 1
    assert page.position == kept_row.position


async def test_a_long_transaction_of_a_stranger_does_not_hold_the_feed_back(
    store: Store, given: Given, side: Connection
) -> None:
    _, kept = await two_appends(given)
    async with side.transaction():
        await side.execute(
            "CREATE TABLE of_a_stranger ()"
        )  # it has a number, and keeps the horizon
        await store.events.append([kept])

        page = await store.feed.read(0, 10)

        assert [event.row.saga_id for event in page.events] == [kept.saga_id]
