"""An EventConsumer on a real broker, and one without a database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from confluent_kafka import Producer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator import InvalidInputError
from orchestrator.errors import GapError, NotYetError, RejectedRecordError
from orchestrator.messaging import ConsumerSettings, Event, EventConsumer, create_tables
from tests.kafka_reader import read_topic
from tests.messaging.records import event_record, new_topic, publish

FAST = ConsumerSettings(
    commit_every=0.05, backoff=0.01, backoff_limit=0.05, session_timeout=3.0, stopped_for=0.3,
    concurrency=8, drain_timeout=5.0,
)  # fmt: skip


@dataclass
class Service:
    """A downstream service: its topic, its group, its database."""

    servers: str
    topic: str
    dsn: str | None

    def consumer(self, **settings: Any) -> EventConsumer:
        return EventConsumer(
            self.servers, **{"group": f"g-{self.topic}", "topic": self.topic, "database": self.dsn,
                             "settings": FAST, **settings},
        )  # fmt: skip


@asynccontextmanager
async def running(consumer: EventConsumer) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


@pytest.fixture
async def service(kafka: str, dsn: str) -> Service:
    await create_tables(dsn)
    return Service(kafka, new_topic(kafka), dsn)


@pytest.fixture
def bare(kafka: str) -> Service:
    """A service without a database."""
    return Service(kafka, new_topic(kafka), None)


async def until(holds: Callable[[], bool], within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------- on a broker


@pytest.mark.kafka
async def test_an_event_is_typed(service: Service) -> None:
    seen: list[Event] = []
    consumer = service.consumer()

    @consumer.on()
    async def keep(event: Event) -> None:
        seen.append(event)

    publish(service.servers, service.topic, [("s1", 1)], partition=2)
    async with running(consumer):
        await until(lambda: bool(seen))

    [event] = seen
    assert (event.saga_id, event.saga, event.saga_version) == ("s1", "order", 3)
    assert (event.version, event.type, event.id) == (1, "StepSucceeded", "s1/1")
    assert (event.node, event.attempt, event.epoch) == ("order/0", 1, 2)
    assert event.recorded_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert (event.correlation_id, event.position) == ("request-7", 0)
    assert event.data == {"output": {"cents": 100}}
    assert event.meta == {}
    assert (event.topic, event.partition, event.offset) == (service.topic, 2, 0)
    assert event.headers["ce_type"] == "saga.StepSucceeded"


@pytest.mark.kafka
async def test_what_was_published_twice_by_hand_is_handled_once(service: Service) -> None:
    seen: list[str] = []
    consumer = service.consumer()

    @consumer.on()
    async def keep(event: Event) -> None:
        seen.append(event.id)

    run = [(saga, version) for version in range(1, 6) for saga in ("a", "b", "c")]
    publish(service.servers, service.topic, [*run[:9], *run[3:], ("last", 1)])
    async with running(consumer):
        await until(lambda: len(seen) == 16)
        publish(service.servers, service.topic, [*run, ("end", 1)])
        await until(lambda: "end/1" in seen)
        await asyncio.sleep(0.2)

    assert sorted(seen) == sorted({*(f"{s}/{v}" for s, v in run), "last/1", "end/1"})


@pytest.mark.kafka
async def test_a_gap_stops_its_partition_until_it_is_accepted_and_no_other(
    service: Service,
) -> None:
    seen: list[str] = []
    consumer = service.consumer()

    @consumer.on()
    async def keep(event: Event) -> None:
        seen.append(event.id)

    publish(service.servers, service.topic, [("s", 1), ("s", 3), ("behind", 1)], partition=0)
    publish(service.servers, service.topic, [("t", 1)], partition=1)
    async with running(consumer):
        await until(lambda: "t/1" in seen and bool(consumer.stopped))
        [(place, error)] = consumer.stopped.items()
        assert place == (service.topic, 0)
        assert isinstance(error, GapError)
        assert "saga s, after version 1, comes with version 3" in str(error)
        publish(service.servers, service.topic, [("t", 2)], partition=1)
        await until(lambda: "t/2" in seen)
        assert "s/3" not in seen
        await consumer.accept_gap("s", 3)
        await until(lambda: "s/3" in seen and "behind/1" in seen)
        await until(lambda: not consumer.stopped)


@pytest.mark.kafka
async def test_one_saga_is_parked_and_the_others_of_its_partition_go_on(service: Service) -> None:
    seen: list[str] = []
    consumer, broken = service.consumer(attempts=2), True

    @consumer.on()
    async def keep(event: Event) -> None:
        if broken and event.saga_id == "bad":
            raise ValueError("no")
        seen.append(event.id)

    run = [(saga, version) for version in (1, 2, 3) for saga in ("bad", "good")]
    publish(service.servers, service.topic, run, partition=0)
    async with running(consumer):
        await until(lambda: len(seen) == 3)
        async with asyncio.timeout(10):
            while len(await consumer.parked()) < 3:
                await asyncio.sleep(0.01)
        broken = False
        assert await consumer.replay("bad") == 3
        publish(service.servers, service.topic, [("bad", 4)], partition=0)
        await until(lambda: "bad/4" in seen)

    assert [one for one in seen if one.startswith("bad")] == ["bad/1", "bad/2", "bad/3", "bad/4"]


@pytest.mark.kafka
async def test_records_of_a_transaction_that_was_aborted_are_not_seen(service: Service) -> None:
    seen: list[str] = []
    consumer = service.consumer()

    @consumer.on()
    async def keep(event: Event) -> None:
        seen.append(event.id)

    producer = Producer(
        {"bootstrap.servers": service.servers, "transactional.id": str(uuid.uuid4())}
    )
    producer.init_transactions(20)
    for saga, good in (("aborted", False), ("committed", True)):
        producer.begin_transaction()
        record = event_record(saga, 1)
        producer.produce(service.topic, record.value, saga, 0, headers=list(record.headers))
        producer.flush(10)
        (producer.commit_transaction if good else producer.abort_transaction)(20)
    async with running(consumer):
        await until(lambda: bool(seen))

    assert seen == ["committed/1"]


@pytest.mark.kafka
async def test_effects_stay_exactly_once_while_members_come_and_go(service: Service) -> None:
    assert service.dsn is not None
    connection = await asyncpg.connect(service.dsn)
    await connection.execute("CREATE TABLE ledger (id text)")

    def member() -> EventConsumer:
        consumer = service.consumer()

        @consumer.on()
        async def book(event: Event, db: AsyncSession) -> None:
            await db.execute(text("INSERT INTO ledger VALUES (:id)"), {"id": event.id})
            await asyncio.sleep(0.002)

        return consumer

    sagas = [f"s{n}" for n in range(40)]

    async def booked() -> int:
        return int(await connection.fetchval("SELECT count(*) FROM ledger"))

    async with running(member()):
        publish(service.servers, service.topic, [(s, v) for v in range(1, 6) for s in sagas])
        async with running(member()):
            publish(service.servers, service.topic, [(s, v) for v in range(6, 11) for s in sagas])
        async with running(member()), asyncio.timeout(60):
            while await booked() < 400:
                await asyncio.sleep(0.05)
    rows = await connection.fetch("SELECT id, count(*) FROM ledger GROUP BY id")
    await connection.close()

    assert {row["id"]: row["count"] for row in rows} == {
        f"{saga}/{version}": 1 for saga in sagas for version in range(1, 11)
    }


# ---------------------------------------------------------------------------- without a database


@pytest.mark.kafka
async def test_without_a_database_what_fails_and_what_follows_are_dead_letters(
    bare: Service,
) -> None:
    seen: list[str] = []
    consumer = bare.consumer(attempts=2, dead_letters=f"{bare.topic}.dead")

    @consumer.on()
    async def keep(event: Event) -> None:
        if event.id == "bad/2":
            raise ValueError("no such warehouse")
        seen.append(event.id)

    run = [(saga, version) for version in (1, 2, 3) for saga in ("bad", "good")]
    publish(bare.servers, bare.topic, run, partition=0)
    async with running(consumer):
        await until(lambda: len(seen) == 4)
        await until(lambda: len(read_topic(bare.servers, f"{bare.topic}.dead")) == 2)

    second, third = sorted(
        read_topic(bare.servers, f"{bare.topic}.dead"), key=lambda record: record.version
    )
    assert "ValueError: no such warehouse" in second.header["dead_letter_reason"]
    assert "version 2 of its saga failed" in third.header["dead_letter_reason"]
    assert sorted(seen) == ["bad/1", "good/1", "good/2", "good/3"]


@pytest.mark.kafka
async def test_without_a_database_no_gap_is_imagined_after_partitions_were_dealt_anew(
    bare: Service,
) -> None:
    seen: list[str] = []

    def member() -> EventConsumer:
        consumer = bare.consumer()

        @consumer.on()
        async def keep(event: Event) -> None:
            seen.append(event.id)

        return consumer

    sagas = [f"s{n}" for n in range(12)]
    version = 0

    async def go_on() -> None:
        nonlocal version
        for _ in range(3):
            version += 1
            publish(bare.servers, bare.topic, [(s, version) for s in sagas])
            wanted = {f"{s}/{version}" for s in sagas}
            await until(lambda: wanted <= set(seen))  # noqa: B023 - called in this turn

    one, other = member(), member()
    async with running(one):
        await go_on()
        async with running(other):  # takes its part, goes on with it, and gives it back
            await until(lambda: bool(other._running and other._running._held))
            await go_on()
        await go_on()
        assert one.stopped == {}

    assert {f"{s}/{v}" for s in sagas for v in range(1, version + 1)} == set(seen)


async def test_without_a_database_repeats_and_gaps_that_it_saw_itself_are_known() -> None:
    seen: list[int] = []
    consumer = EventConsumer("127.0.0.1:9", group="g")

    @consumer.on()
    async def keep(event: Event) -> None:
        seen.append(event.version)

    for version in (4, 5, 4, 5, 6):
        await consumer.take(event_record("s", version), 1)
    with pytest.raises(GapError, match="saga s, after version 6, comes with version 8"):
        await consumer.take(event_record("s", 8), 1)

    assert seen == [4, 5, 6]


async def test_without_a_database_what_failed_is_rejected_again_when_it_comes_again() -> None:
    """Its dead letter may not have been written: its partition can stop before that."""
    consumer = EventConsumer("127.0.0.1:9", group="g", attempts=1)

    @consumer.on()
    async def fails(event: Event) -> None:
        raise ValueError("no")

    for version in (1, 2, 1, 2):
        with pytest.raises(RejectedRecordError, match="failed"):
            await consumer.take(event_record("s", version), 1)


async def test_without_a_database_a_handler_has_its_time_too() -> None:
    consumer = EventConsumer("127.0.0.1:9", group="g", handler_timeout=0.05, attempts=2)

    @consumer.on()
    async def hang(event: Event) -> None:
        await asyncio.Event().wait()

    with pytest.raises(NotYetError, match="took longer"):
        await consumer.take(event_record("s", 1), 1)
    with pytest.raises(RejectedRecordError, match="took longer"):
        await consumer.take(event_record("s", 1), 2)


async def test_without_a_database_nothing_can_be_replayed() -> None:
    with pytest.raises(InvalidInputError, match="has no database"):
        await EventConsumer("127.0.0.1:9", group="g").replay("s")
