"""A consumer with a database: effects exactly once, gaps refused, poison parked, zombies fenced."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from orchestrator import DefinitionError, InvalidInputError, UnavailableError
from orchestrator.adapters.kafka import KafkaSettings
from orchestrator.adapters.kafka.records import records_of
from orchestrator.errors import GapError, NotYetError, RejectedRecordError
from orchestrator.messaging import Event, EventConsumer, create_tables
from orchestrator.ports import Record
from tests.feed_events import feed_event
from tests.messaging.records import event_record

SERVERS = "127.0.0.1:9"
"""No broker is asked: records are handed over as its loop does."""


class Books:
    """The database of a downstream service, with a ledger that would show every repeat."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.open: list[EventConsumer] = []

    def consumer(self, **settings: Any) -> EventConsumer:
        settings = {"group": "books", "database": self.dsn, **settings}
        consumer = EventConsumer(SERVERS, **settings)
        self.open.append(consumer)
        return consumer

    async def query(self, query: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def booked(self) -> list[tuple[Any, ...]]:
        return await self.query("SELECT saga_id, version FROM ledger ORDER BY 1, 2")


@pytest.fixture
async def books(dsn: str) -> AsyncIterator[Books]:
    found = Books(dsn)
    await create_tables(dsn)
    await found.query("CREATE TABLE ledger (saga_id text, version int)")
    yield found
    for consumer in found.open:
        await consumer.close()


async def book(event: Event, db: AsyncSession) -> None:
    await db.execute(
        text("INSERT INTO ledger VALUES (:saga, :version)"),
        {"saga": event.saga_id, "version": event.version},
    )


async def take(consumer: EventConsumer, *records: Record) -> None:
    for record in records:
        await consumer.take(record, 1)


async def fail(consumer: EventConsumer, record: Record, attempts: int = 5) -> int:
    """Bring a record as the loop does until it no longer asks for more; how often it was brought."""
    for attempt in range(1, attempts + 2):
        try:
            await consumer.take(record, attempt)
        except NotYetError:
            continue
        return attempt
    raise AssertionError("it is tried for ever")


# ---------------------------------------------------------------------------- once and in order


async def test_an_event_that_comes_twice_has_its_effect_once(books: Books) -> None:
    consumer = books.consumer()
    consumer.on()(book)
    first, second = event_record("s", 1), event_record("s", 2)
    await take(consumer, first, second, first, second, event_record("s", 2, offset=77))

    assert await books.booked() == [("s", 1), ("s", 2)]


async def test_another_process_knows_what_was_taken_in(books: Books) -> None:
    for _ in range(2):
        consumer = books.consumer()
        consumer.on()(book)
        await take(consumer, event_record("s", 1))

    assert await books.booked() == [("s", 1)]


async def test_groups_do_not_know_of_each_other(books: Books) -> None:
    for group in ("one", "two"):
        consumer = books.consumer(group=group)
        consumer.on()(book)
        await take(consumer, event_record("s", 1))

    assert await books.booked() == [("s", 1), ("s", 1)]


async def test_a_gap_is_refused_and_named(books: Books) -> None:
    consumer = books.consumer()
    consumer.on()(book)
    await take(consumer, event_record("s", 1))
    with pytest.raises(GapError, match="saga s, after version 1, comes with version 3") as caught:
        await take(consumer, event_record("s", 3))

    assert (caught.value.saga_id, caught.value.expected, caught.value.found) == ("s", 2, 3)
    assert await books.booked() == [("s", 1)]
    await take(consumer, event_record("s", 2), event_record("s", 3))
    assert len(await books.booked()) == 3


async def test_a_gap_is_seen_where_no_handler_wanted_the_event(books: Books) -> None:
    consumer = books.consumer()
    consumer.on("saga.SagaCompleted")(book)
    await take(consumer, event_record("s", 1), event_record("s", 2))
    with pytest.raises(GapError):
        await take(consumer, event_record("s", 4, type_="SagaCompleted"))


async def test_a_saga_met_in_its_middle_is_a_gap_unless_that_is_asked_for(books: Books) -> None:
    strict, lenient = books.consumer(), books.consumer(group="other", from_middle=True)
    for consumer in (strict, lenient):
        consumer.on()(book)
    with pytest.raises(GapError, match="nothing was taken in before"):
        await take(strict, event_record("s", 5))
    await take(lenient, event_record("s", 5), event_record("s", 6))
    with pytest.raises(GapError):
        await take(lenient, event_record("s", 8))

    assert await books.booked() == [("s", 5), ("s", 6)]


async def test_an_accepted_gap_lets_the_saga_go_on(books: Books) -> None:
    consumer = books.consumer()
    consumer.on()(book)
    await take(consumer, event_record("s", 1))

    assert await consumer.accept_gap("s", 4)
    await take(consumer, event_record("s", 4))
    assert not await consumer.accept_gap("s", 2)
    assert await books.booked() == [("s", 1), ("s", 4)]


# ---------------------------------------------------------------------------- wanted by nobody


async def test_events_that_nobody_wants_are_counted_many_at_once(books: Books) -> None:
    consumer = books.consumer()
    consumer.on("saga.SagaCompleted")(book)
    sagas = [f"s{n}" for n in range(100)]
    for version in (1, 2, 2):
        await asyncio.gather(*(take(consumer, event_record(s, version)) for s in sagas))
    await take(consumer, *[event_record(s, 3, type_="SagaCompleted") for s in sagas[:5]])

    found = await books.query("SELECT saga_id, version, xmin FROM saga_consumed")
    assert {row[0]: row[1] for row in found} == dict.fromkeys(sagas, 2) | dict.fromkeys(
        sagas[:5], 3
    )
    assert len({row[2] for row in found}) <= 5 + 10
    assert await books.booked() == [(s, 3) for s in sagas[:5]]


async def test_two_processes_pass_over_the_same_events_and_miss_none(books: Books) -> None:
    sagas = [f"s{n}" for n in range(20)]

    async def go_through(saga: str, consumer: EventConsumer) -> None:
        await take(consumer, *[event_record(saga, version) for version in range(1, 21)])

    both = [books.consumer(), books.consumer()]
    await asyncio.gather(*(go_through(s, consumer) for s in sagas for consumer in both))

    found = await books.query("SELECT saga_id, version FROM saga_consumed")
    assert dict(found) == dict.fromkeys(sagas, 20)


async def test_an_event_that_nobody_wants_is_parked_behind_one_that_is(books: Books) -> None:
    consumer = books.consumer(attempts=1)

    @consumer.on("saga.SagaCompleted")
    async def broken(event: Event) -> None:
        raise ValueError("no")

    await take(consumer, event_record("s", 1, type_="SagaCompleted"), event_record("s", 2))
    assert [one.version for one in await consumer.parked()] == [1, 2]


async def test_a_handler_at_work_holds_up_the_events_of_its_own_saga_only(books: Books) -> None:
    """The events of another process that nobody wants there are written together."""
    busy, other = books.consumer(), books.consumer()
    inside, go = asyncio.Event(), asyncio.Event()

    @busy.on()
    async def slow(event: Event) -> None:
        inside.set()
        await go.wait()

    await take(other, event_record("s", 1))
    working = asyncio.create_task(busy.take(event_record("s", 2), 1))
    await inside.wait()
    behind = asyncio.create_task(other.take(event_record("s", 2), 1))
    try:
        sagas = [event_record(f"t{n}", 1) for n in range(10)]
        await asyncio.wait_for(asyncio.gather(*(take(other, one) for one in sagas)), 10)
        assert not behind.done()
    finally:
        go.set()
    await asyncio.gather(working, behind)


async def test_a_database_that_is_away_lets_nobody_pass_over_an_event(books: Books) -> None:
    consumer = books.consumer()
    async with _tables_gone(books):
        for _ in range(2):
            with pytest.raises(UnavailableError, match="create_tables"):
                await take(consumer, event_record("s", 1))
    await take(consumer, event_record("s", 1))
    with pytest.raises(GapError):
        await take(consumer, event_record("s", 3))


# ---------------------------------------------------------------------------- handlers


async def test_handlers_are_called_by_type_and_saga(books: Books) -> None:
    consumer, called = books.consumer(), []

    @consumer.on("saga.SagaCompleted", "SagaCompensated", saga="order")
    async def ended(event: Event) -> None:
        called.append(("ended", event.type))

    @consumer.on(saga="refund")
    async def refunds(event: Event) -> None:
        called.append(("refund", event.type))

    @consumer.on()
    async def everything(event: Event) -> None:
        called.append(("all", event.type))

    await take(
        consumer, event_record("s", 1), event_record("s", 2, type_="SagaCompleted"),
        event_record("s", 3, type_="SagaCompensated"),
    )  # fmt: skip

    assert called == [
        ("all", "StepSucceeded"),
        ("ended", "SagaCompleted"), ("all", "SagaCompleted"),
        ("ended", "SagaCompensated"), ("all", "SagaCompensated"),
    ]  # fmt: skip


async def test_a_handler_gets_what_its_annotation_names_all_in_one_transaction(
    books: Books,
) -> None:
    consumer = books.consumer()
    consumer.on()(book)

    @consumer.on()
    async def driver(event: Event, db: asyncpg.Connection) -> None:
        await db.execute("INSERT INTO ledger VALUES ($1, 10 + $2)", event.saga_id, event.version)

    @consumer.on()
    async def core(event: Event, db: AsyncConnection) -> None:
        values = {"saga": event.saga_id, "version": 20 + event.version}
        await db.execute(text("INSERT INTO ledger VALUES (:saga, :version)"), values)
        if event.version == 2:
            raise ValueError("after all three")

    await take(consumer, event_record("s", 1))
    with pytest.raises(NotYetError):
        await take(consumer, event_record("s", 2))

    assert await books.booked() == [("s", 1), ("s", 11), ("s", 21)]


async def test_an_engine_of_the_callers_is_used_and_left_open(books: Books) -> None:
    engine = create_async_engine(books.dsn.replace("postgresql://", "postgresql+asyncpg://"))
    consumer = books.consumer(database=engine)
    consumer.on()(book)
    await take(consumer, event_record("s", 1))
    await consumer.close()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    await engine.dispose()


def _of_two(event: Event, db: AsyncSession) -> None: ...
async def _of_three(event: Event, db: AsyncSession, more: int) -> None: ...
async def _of_a_number(event: Event, db: int) -> None: ...


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (_of_two, "must be an `async def`"),
        (_of_three, "3 parameters"),
        (_of_a_number, "there is no int to give"),
    ],
)
async def test_what_is_no_handler_is_refused(books: Books, handler: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        books.consumer().on()(handler)


async def test_a_handler_that_wants_a_database_needs_one(books: Books) -> None:
    with pytest.raises(DefinitionError, match="the consumer has none"):
        books.consumer(database=None).on()(book)


async def test_another_kind_of_database_is_refused(books: Books) -> None:
    with pytest.raises(InvalidInputError, match="a consumer's database is PostgreSQL"):
        books.consumer(database="mysql://root@localhost/books")


async def test_a_record_that_is_no_event_is_rejected(books: Books) -> None:
    consumer = books.consumer()
    for value in (b"", b"[]", b"{", b'{"saga_id": 1}', None):
        with pytest.raises(RejectedRecordError, match="holds no event"):
            await take(consumer, Record("t", 0, 0, 1, b"k", value))


HOSTILE = {
    "a name with a zero": {"saga_id": "a\0b"},
    "a name that is no Unicode": {"saga_id": "\ud800"},
    "no name": {"saga_id": ""},
    "an endless name": {"saga_id": "x" * 100_000},
    "a version beyond all bounds": {"version": 2**63},
    "true for a version": {"version": True},
    "an infinite attempt": {"attempt": float("inf")},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("from_middle", [False, True])
async def test_an_event_that_no_relay_wrote_is_rejected_and_waited_for_by_nobody(
    books: Books, change: dict[str, Any], from_middle: bool
) -> None:
    consumer = books.consumer(from_middle=from_middle)
    record = event_record("s", 1)
    value = json.dumps(json.loads(record.value or b"") | change).encode()
    with pytest.raises(RejectedRecordError, match="holds no event"):
        await take(consumer, replace(record, value=value))


async def test_an_event_that_is_nested_too_deep_is_rejected(books: Books) -> None:
    with pytest.raises(RejectedRecordError, match="holds no event"):
        await take(books.consumer(), Record("t", 0, 0, 1, b"k", b"[" * 100_000))


async def test_the_end_that_a_prune_leaves_behind_is_an_event_like_any_other(
    books: Books,
) -> None:
    consumer, seen = books.consumer(), []
    consumer.on()(book)

    @consumer.on("saga.SagaRemoved")
    async def forget(event: Event) -> None:
        seen.append((event.id, event.data))

    removed = '{"saga":"order","saga_version":3}'
    await take(
        consumer, event_record("s", 1), event_record("s", 2, type_="SagaCompleted"),
        event_record("s", 3, type_="SagaRemoved", data=removed),
        event_record("s", 3, type_="SagaRemoved", data=removed),
    )  # fmt: skip

    assert seen == [("s/3", json.loads(removed))]
    assert await books.booked() == [("s", 1), ("s", 2), ("s", 3)]


async def test_a_state_and_its_tombstone_are_no_events(books: Books) -> None:
    """The topic of states is another one; who reads it here learns so from the dead letters."""
    removed = feed_event("s", 2, type_="SagaRemoved", data="{}")
    [_, tombstone] = records_of(removed, KafkaSettings("x:1", state_topic="saga.state"))
    assert tombstone.value is None
    with pytest.raises(RejectedRecordError, match="holds no event of a saga"):
        await take(books.consumer(), Record("saga.state", 0, 0, 1, b"s", tombstone.value))


# ---------------------------------------------------------------------------- poison


async def test_a_handler_that_keeps_failing_parks_its_saga_and_no_other(books: Books) -> None:
    consumer = books.consumer(attempts=3)
    broken = True

    @consumer.on()
    async def fragile(event: Event, db: AsyncSession) -> None:
        await book(event, db)
        if broken and (event.saga_id, event.version) == ("bad", 2):
            raise ValueError("no such warehouse")

    await take(consumer, event_record("bad", 1))
    assert await fail(consumer, event_record("bad", 2)) == 3
    await take(consumer, event_record("bad", 3), event_record("good", 1), event_record("bad", 4))
    await take(consumer, event_record("bad", 3), event_record("bad", 2))

    assert await books.booked() == [("bad", 1), ("good", 1)]
    assert [(one.version, one.reason) for one in await consumer.parked()] == [
        (2, "ValueError: no such warehouse"),
        (3, "an earlier event of this saga is parked"),
        (4, "an earlier event of this saga is parked"),
    ]
    with pytest.raises(ValueError, match="no such warehouse"):
        await consumer.replay("bad")
    assert len(await consumer.parked()) == 3

    broken = False
    assert await consumer.replay("bad") == 3
    await take(consumer, event_record("bad", 5))
    assert await books.booked() == [*[("bad", n) for n in range(1, 6)], ("good", 1)]
    assert await consumer.parked() == []
    assert await consumer.replay("bad") == 0


async def test_a_gap_behind_a_parked_event_is_still_a_gap(books: Books) -> None:
    consumer = books.consumer(attempts=1)

    @consumer.on()
    async def broken(event: Event) -> None:
        raise ValueError("no")

    await take(consumer, event_record("s", 1), event_record("s", 2))
    with pytest.raises(GapError):
        await take(consumer, event_record("s", 4))


async def test_what_a_handler_wrote_before_it_failed_is_gone_and_it_is_tried_again(
    books: Books,
) -> None:
    consumer, tries = books.consumer(), []

    @consumer.on()
    async def third_time_lucky(event: Event, db: AsyncSession) -> None:
        await book(event, db)
        await db.commit()
        tries.append(event.version)
        if len(tries) < 3:
            raise ConnectionError("the mail server is away")

    assert await fail(consumer, event_record("s", 1)) == 3
    assert await books.booked() == [("s", 1)]


async def test_a_failed_statement_that_the_handler_swallowed_commits_nothing(
    books: Books,
) -> None:
    consumer = books.consumer(attempts=1)

    @consumer.on()
    async def careless(event: Event, db: AsyncSession) -> None:
        await book(event, db)
        with pytest.raises(Exception, match="no_such_table"):
            await db.execute(text("SELECT * FROM no_such_table"))

    await take(consumer, event_record("s", 1))

    assert await books.booked() == []
    [parked] = await consumer.parked()
    assert "transaction is aborted" in parked.reason


@pytest.mark.parametrize("database", [True, False])
async def test_a_handler_that_is_cancelled_from_inside_counts_as_failed(
    books: Books, database: bool
) -> None:
    consumer = books.consumer(attempts=2, **({} if database else {"database": None}))

    @consumer.on()
    async def awaits_what_was_cancelled(event: Event) -> None:
        work = asyncio.ensure_future(asyncio.sleep(60))
        work.cancel()
        await work

    with pytest.raises(NotYetError, match="CancelledError"):
        await consumer.take(event_record("s", 1), 1)
    if database:
        await consumer.take(event_record("s", 1), 2)
        [parked] = await consumer.parked()
        assert "CancelledError" in parked.reason


async def test_a_reason_that_the_database_cannot_hold_is_kept_as_well_as_it_can_be(
    books: Books,
) -> None:
    consumer = books.consumer(attempts=1)

    @consumer.on()
    async def fails(event: Event) -> None:
        raise ValueError("no \0 such \ud800 thing" + "!" * 2_000_000)

    await take(consumer, event_record("s", 1))
    [parked] = await consumer.parked()
    assert parked.reason.startswith("ValueError: no ")
    assert len(parked.reason) < 20_000


async def test_a_version_that_cannot_be_is_no_gap_to_accept(books: Books) -> None:
    with pytest.raises(InvalidInputError, match="versions count from 1"):
        await books.consumer().accept_gap("s", 0)


async def test_a_handler_that_hangs_is_cut_off_and_counts_as_failed(books: Books) -> None:
    consumer = books.consumer(attempts=2, handler_timeout=0.1)

    @consumer.on()
    async def hangs(event: Event, db: AsyncSession) -> None:
        await book(event, db)
        await asyncio.Event().wait()

    assert await fail(consumer, event_record("s", 1), 2) == 2
    assert await books.booked() == []
    [parked] = await consumer.parked()
    assert parked.reason == "TimeoutError: the handler took longer than 0.1 s"


# ---------------------------------------------------------------------------- fencing


async def test_two_consumers_with_the_same_event_in_hand_have_one_effect(books: Books) -> None:
    """One lost its partition and does not know it yet."""
    both = [books.consumer(), books.consumer()]
    inside, go = asyncio.Event(), asyncio.Event()

    async def slow(event: Event, db: AsyncSession) -> None:
        await book(event, db)
        inside.set()
        await go.wait()

    for consumer in both:
        consumer.on()(slow)
    zombie = asyncio.create_task(both[0].take(event_record("s", 1), 1))
    await inside.wait()
    other = asyncio.create_task(both[1].take(event_record("s", 1), 1))
    await _somebody_waits_for_a_lock(books)
    go.set()
    await asyncio.gather(zombie, other)

    assert await books.booked() == [("s", 1)]


async def test_a_handler_that_is_called_away_commits_nothing_even_if_it_will_not_go(
    books: Books,
) -> None:
    consumer = books.consumer()
    inside, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @consumer.on()
    async def stubborn(event: Event, db: asyncpg.Connection) -> None:
        await db.execute("INSERT INTO ledger VALUES ($1, $2)", event.saga_id, event.version)
        inside.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await db.execute("INSERT INTO ledger VALUES ('too late', 0)")
        ended.set()

    taking = asyncio.create_task(consumer.take(event_record("s", 1), 1))
    await inside.wait()
    taking.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await taking
        fresh = books.consumer()
        fresh.on()(book)
        await asyncio.wait_for(fresh.take(event_record("s", 1), 1), 10)
    finally:
        go.set()
    await ended.wait()

    assert await books.booked() == [("s", 1)]


async def test_a_replay_and_new_events_of_its_saga_do_not_overtake_each_other(
    books: Books,
) -> None:
    consumer, order = books.consumer(attempts=1), []
    broken = True

    @consumer.on()
    async def note(event: Event, db: AsyncSession) -> None:
        if broken:
            raise ValueError("no")
        await asyncio.sleep(0.001)
        order.append(event.version)

    await take(consumer, *[event_record("s", n) for n in range(1, 6)])
    broken = False

    async def go_on() -> None:
        await take(consumer, *[event_record("s", n) for n in range(6, 16)])

    await asyncio.gather(consumer.replay("s"), go_on())
    await consumer.replay("s")

    assert order == list(range(1, 16))


async def test_two_replays_of_one_saga_have_one_effect(books: Books) -> None:
    one, two = books.consumer(attempts=1), books.consumer(attempts=1)
    broken, inside, go = True, asyncio.Event(), asyncio.Event()

    async def slow(event: Event, db: AsyncSession) -> None:
        if broken:
            raise ValueError("no")
        await book(event, db)
        inside.set()
        await go.wait()

    for consumer in (one, two):
        consumer.on()(slow)
    await take(one, event_record("s", 1), event_record("s", 2))
    broken = False
    first = asyncio.create_task(one.replay("s"))
    await inside.wait()
    second = asyncio.create_task(two.replay("s"))
    await _somebody_waits_for_a_lock(books)
    go.set()

    assert await first + await second == 2
    assert await books.booked() == [("s", 1), ("s", 2)]


async def _somebody_waits_for_a_lock(books: Books) -> None:
    async with asyncio.timeout(20):
        while not await books.query("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _tables_gone(books: Books) -> AsyncIterator[None]:
    await books.query("ALTER TABLE saga_consumed RENAME TO elsewhere")
    yield
    await books.query("ALTER TABLE elsewhere RENAME TO saga_consumed")


async def test_missing_tables_are_waited_for_and_nothing_is_parked(books: Books) -> None:
    consumer = books.consumer(attempts=1)
    consumer.on()(book)
    async with _tables_gone(books):
        with pytest.raises(UnavailableError, match="create_tables"):
            await take(consumer, event_record("s", 1))
    await take(consumer, event_record("s", 1))

    assert await books.booked() == [("s", 1)]


async def test_a_database_that_is_away_is_waited_for_and_nothing_is_parked(books: Books) -> None:
    consumer = books.consumer(attempts=1)

    @consumer.on()
    async def dies_once(event: Event, db: AsyncSession) -> None:
        await book(event, db)
        others = "pid <> pg_backend_pid()" if await books.booked() else "true"
        await books.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name = 'saga consumer' AND {others}"
        )
        await db.execute(text("SELECT 1"))

    with pytest.raises(UnavailableError):
        await take(consumer, event_record("s", 1))
    assert await books.booked() == []

    fresh = books.consumer()
    fresh.on()(book)
    await take(fresh, event_record("s", 1))
    assert await books.booked() == [("s", 1)]


async def test_making_the_tables_again_does_no_harm(books: Books) -> None:
    consumer = books.consumer()
    consumer.on()(book)
    await take(consumer, event_record("s", 1))
    await create_tables(books.dsn)
    await take(consumer, event_record("s", 1))

    assert await books.booked() == [("s", 1)]
