"""Pages of the feed: bounded in bytes, and never past what they hold."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.adapters.postgres.feed import PostgresFeed
from orchestrator.adapters.postgres.pool import Database, PostgresSettings, Record
from orchestrator.adapters.postgres.statements import sql
from orchestrator.errors import UnavailableError
from orchestrator.ports import FeedPage
from tests.adapters.postgres.beside import open_database
from tests.contract.given import Given


async def written(given: Given, sizes: list[int], letter: str = "x") -> list[int]:
    """Events with payloads of these many letters; their positions."""
    [(owner, claim)] = await given.claimed()
    for head, size in enumerate(sizes):
        data = '"' + letter * size + '"'
        await given.store.events.append([given.append(owner, claim, head=head, data=data)])
    return [row.position for row in await given.store.events.read(claim.saga_id)]


async def pages(feed: PostgresFeed, limit: int = 100) -> list[FeedPage]:
    found: list[FeedPage] = []
    after = 0
    while (page := await feed.read(after, limit)).position > after:
        found.append(page)
        after = page.position
    return found


@pytest.mark.parametrize("letter", ["x", "ü", "漢"])
async def test_a_page_ends_with_the_event_that_goes_over_its_bytes(
    any_dsn: str, given: Given, letter: str
) -> None:
    positions = await written(given, [300] * 7 + [5000, 5000, 10], letter)
    async with open_database(any_dsn) as database:
        found = await pages(PostgresFeed(database, page_bytes=1000 * len(letter.encode())))

    assert [len(page.events) for page in found] == [4, 4, 1, 1]
    assert [event.row.position for page in found for event in page.events] == positions


async def test_a_page_that_is_full_by_its_number_stays_within_its_bytes(
    any_dsn: str, given: Given
) -> None:
    positions = await written(given, [10] * 9)
    async with open_database(any_dsn) as database:
        found = await pages(PostgresFeed(database, page_bytes=1000), limit=4)

    assert [len(page.events) for page in found] == [4, 4, 1]
    assert [event.row.position for page in found for event in page.events] == positions


class Slow(Database):
    """A database whose first page of events is long on its way."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, PostgresSettings())
        self.read = asyncio.Event()
        self.arrives = asyncio.Event()

    async def fetch(self, sql_: str, *args: object) -> list[Record]:
        rows = await super().fetch(sql_, *args)
        if sql_ == sql("read_feed") and not self.read.is_set():
            self.read.set()
            await self.arrives.wait()
        return rows


async def test_two_readers_of_one_feed_do_not_move_each_others_end(
    any_dsn: str, given: Given
) -> None:
    first = await written(given, [10])
    database = Slow(any_dsn)
    await database.open()
    feed = PostgresFeed(database)
    early = asyncio.create_task(feed.read(0, 100))
    await database.read.wait()
    second = await written(given, [10])
    late = await feed.read(first[0], 100)
    database.arrives.set()
    page = await early
    await database.close()

    assert [event.row.position for event in late.events] == second
    assert [event.row.position for event in page.events] == first
    assert page.position == first[0]


async def test_a_reader_that_is_ahead_of_the_log_is_told_so(any_dsn: str, given: Given) -> None:
    [position] = await written(given, [10])
    async with open_database(any_dsn) as database:
        feed = PostgresFeed(database)

        assert (await feed.read(position, 10)).position == position
        with pytest.raises(UnavailableError, match="older state"):
            await feed.read(position + 1, 10)
