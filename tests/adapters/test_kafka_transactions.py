"""Batches with their marks in Kafka transactions, fencing, and what readers see of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from orchestrator.adapters.kafka import (
    KafkaSettings,
    TransactionalPublisher,
    ensure_topic,
    open_publisher,
    open_transactional,
)
from orchestrator.domain.shards import Shard
from orchestrator.errors import FencedError, PublishError, UnavailableError
from orchestrator.ports import FeedEvent, Mark
from tests.brokers import Broker
from tests.feed_events import feed_event
from tests.kafka_reader import read_topic

pytestmark = pytest.mark.kafka

SHARD = Shard(1, 4)


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return KafkaSettings(broker.servers, topic=f"test-{uuid.uuid4()}")


@asynccontextmanager
async def opened(
    settings: KafkaSettings, shard: Shard = SHARD
) -> AsyncIterator[TransactionalPublisher]:
    publisher = await open_transactional(settings, shard)
    try:
        yield publisher
    finally:
        await publisher.close()


def batch(first: int, last: int, saga: str = "s1") -> list[FeedEvent]:
    return [feed_event(saga, n, position=n) for n in range(first, last + 1)]


def versions(settings: KafkaSettings) -> list[int]:
    return [record.version for record in read_topic(settings.bootstrap_servers, settings.topic)]


async def test_a_shard_that_published_nothing_has_the_mark_of_the_beginning(
    settings: KafkaSettings,
) -> None:
    async with opened(settings) as publisher:
        assert await publisher.mark() == Mark(0, 0, 0)


async def test_the_last_mark_of_a_shard_is_found_by_the_next_publisher(
    settings: KafkaSettings,
) -> None:
    async with opened(settings) as publisher:
        for last in range(1, 121):
            await publisher.publish(batch(last, last), Mark(last - 1, last, 7))
        assert await publisher.mark() == Mark(119, 120, 7)

    async with opened(settings) as publisher, opened(settings, Shard(2, 4)) as other:
        assert await publisher.mark() == Mark(119, 120, 7)
        assert await other.mark() == Mark(0, 0, 0)
    assert versions(settings) == list(range(1, 121))


@pytest.mark.parametrize("junk", [b"{}", b"not json", b'{"since": 1, "to": 2}', b"[1, 2, 3]"])
async def test_what_is_no_mark_is_told_and_never_taken_for_one(
    settings: KafkaSettings, junk: bytes
) -> None:
    async with opened(settings) as publisher:
        await publisher.publish(batch(1, 1), Mark(0, 1, 1))
        stranger = Producer({"bootstrap.servers": settings.bootstrap_servers})
        stranger.produce(settings.marks_topic, junk, b"1", partition=SHARD.index)
        assert stranger.flush(10) == 0
        with pytest.raises(UnavailableError, match="is no mark of a relay"):
            await publisher.mark()


async def test_a_batch_without_events_moves_the_mark(settings: KafkaSettings) -> None:
    async with opened(settings) as publisher:
        await publisher.publish([], Mark(0, 900, 1))

    async with opened(settings) as publisher:
        assert await publisher.mark() == Mark(0, 900, 1)
    assert versions(settings) == []


async def test_an_earlier_publisher_of_the_shard_is_fenced_by_the_broker(
    settings: KafkaSettings,
) -> None:
    async with opened(settings) as zombie:
        await zombie.publish(batch(1, 3), Mark(0, 3, 1))
        async with opened(settings) as successor:
            with pytest.raises(FencedError):
                await zombie.publish(batch(4, 6), Mark(3, 6, 1))
            assert await successor.mark() == Mark(0, 3, 1)
            await successor.publish(batch(4, 5), Mark(3, 5, 2))

    assert versions(settings) == [1, 2, 3, 4, 5]


async def test_what_an_earlier_publisher_left_open_is_ended_and_never_read(
    settings: KafkaSettings,
) -> None:
    async with opened(settings) as zombie:
        await zombie.publish(batch(1, 3), Mark(0, 3, 1))
        committing = zombie._producer.commit_transaction
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def commit_late() -> None:
            reached.set()
            await go_on.wait()
            await committing()

        zombie._producer.commit_transaction = commit_late
        publishing = asyncio.create_task(zombie.publish(batch(4, 6), Mark(3, 6, 1)))
        await reached.wait()
        async with opened(settings) as successor:
            assert await successor.mark() == Mark(0, 3, 1)
            go_on.set()
            with pytest.raises(FencedError):
                await publishing
            assert await successor.mark() == Mark(0, 3, 1)
            await successor.publish(batch(4, 4), Mark(3, 4, 2))

    assert versions(settings) == [1, 2, 3, 4]


async def test_without_transactional_ids_a_zombie_adds_its_records(
    settings: KafkaSettings,
) -> None:
    zombie, successor = await open_publisher(settings), await open_publisher(settings)
    try:
        await successor.publish(batch(1, 3), Mark(0, 3, 2))
        await zombie.publish(batch(1, 3), Mark(0, 3, 1))
    finally:
        await zombie.close()
        await successor.close()

    assert versions(settings) == [1, 2, 3, 1, 2, 3]


async def test_a_batch_of_many_partitions_is_there_as_a_whole_or_not_at_all(
    settings: KafkaSettings,
) -> None:
    sagas = [str(uuid.uuid4()) for _ in range(30)]
    data = '"' + "x" * 20_000 + '"'
    good = [feed_event(saga, 1, data=data) for saga in sagas]
    async with opened(settings) as publisher:
        await publisher.publish(good, Mark(0, 1, 1))
        large = feed_event("s1", 2, data='"' + "x" * 3_000_000 + '"')
        second = [feed_event(saga, 2, data=data) for saga in sagas]
        with pytest.raises(PublishError, match="saga s1 version 2 has 3000"):
            await publisher.publish([*second, large], Mark(1, 2, 1))
        with pytest.raises(PublishError, match="open a new one"):
            await publisher.publish(good, Mark(1, 2, 1))
    async with opened(settings) as publisher:
        assert await publisher.mark() == Mark(0, 1, 1)
        await publisher.publish(second, Mark(1, 2, 1))

    records = read_topic(settings.bootstrap_servers, settings.topic)
    assert len({record.partition for record in records}) > 1
    for saga in sagas:
        assert [record.version for record in records if record.key == saga] == [1, 2]


async def test_marks_for_another_number_of_shards_are_refused(settings: KafkaSettings) -> None:
    async with opened(settings):
        pass

    with pytest.raises(UnavailableError, match="has 4 partitions and the relay 8 shards"):
        await open_transactional(settings, Shard(1, 8))


async def test_a_missing_topic_of_marks_is_named_when_it_may_not_be_made(
    settings: KafkaSettings,
) -> None:
    await ensure_topic(settings)

    with pytest.raises(UnavailableError, match=r"there is no topic .*\.marks .* 4 partitions"):
        await open_transactional(replace(settings, create_topic=False), SHARD)


# ---------------------------------------------------------------------------- errors of the broker


def forget_a_batch(publisher: TransactionalPublisher) -> None:
    """Let the numbers of the next batches not follow those that the broker has seen."""
    numbers = publisher._producer._txn_manager._sequence_numbers
    for place in list(numbers):
        numbers[place] += 7


def become_unknown(publisher: TransactionalPublisher) -> None:
    """Have an id that the broker has not given to this transactional id."""
    manager = publisher._producer._txn_manager
    manager._pid_and_epoch = manager._pid_and_epoch._replace(pid=manager.producer_id + 100_000)


def be_of_an_earlier_epoch(publisher: TransactionalPublisher) -> None:
    manager = publisher._producer._txn_manager
    manager._pid_and_epoch = manager._pid_and_epoch._replace(epoch=manager.producer_epoch + 5)


@pytest.mark.parametrize("harm", [forget_a_batch, become_unknown, be_of_an_earlier_epoch])
async def test_after_an_error_of_any_class_the_next_publisher_goes_on_from_the_mark(
    settings: KafkaSettings, harm: Callable[[TransactionalPublisher], None]
) -> None:
    async with opened(settings) as publisher:
        await publisher.publish(batch(1, 3), Mark(0, 3, 1))
        harm(publisher)
        with pytest.raises(PublishError):
            await publisher.publish(batch(4, 6), Mark(3, 6, 1))
        with pytest.raises(PublishError, match="open a new one"):
            await publisher.publish(batch(4, 6), Mark(3, 6, 1))
    async with opened(settings) as publisher:
        assert await publisher.mark() == Mark(0, 3, 1)
        await publisher.publish(batch(4, 6), Mark(3, 6, 1))

    assert versions(settings) == [1, 2, 3, 4, 5, 6]


async def test_a_transaction_that_took_too_long_is_ended_by_the_broker_and_done_again(
    settings: KafkaSettings,
) -> None:
    quick = replace(settings, publish_timeout=0.6)  # the broker waits twice as long
    publisher = await open_transactional(quick, SHARD)
    committing = publisher._producer.commit_transaction
    publisher._settings = replace(settings, publish_timeout=30)

    async def commit_late() -> None:
        await asyncio.sleep(4)
        await committing()

    publisher._producer.commit_transaction = commit_late
    try:
        with pytest.raises(PublishError):
            await publisher.publish(batch(1, 3), Mark(0, 3, 1))
    finally:
        await publisher.close()
    async with opened(settings) as second:
        assert await second.mark() == Mark(0, 0, 0)
        await second.publish(batch(1, 3), Mark(0, 3, 1))

    assert versions(settings) == [1, 2, 3]
