"""A topic for each saga, inside transactions: when it is made, and what is there when it cannot be."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient

from orchestrator.adapters.kafka import (
    KafkaSettings,
    TransactionalPublisher,
    count_partitions,
    ensure_topics,
    open_transactional,
)
from orchestrator.domain.shards import Shard
from orchestrator.errors import UnavailableError
from orchestrator.ports import FeedEvent, Mark
from tests.feed_events import feed_event
from tests.kafka_reader import read_topic

pytestmark = pytest.mark.kafka

SHARD = Shard(1, 4)


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    name = uuid.uuid4()
    return KafkaSettings(kafka, f"test-{name}.{{saga}}", state_topic=f"test-{name}-state")


def two_sagas() -> list[FeedEvent]:
    return [
        replace(feed_event(saga, version, position=position), saga_name=name)
        for position, (saga, name, version) in enumerate(
            [("s1", "order", 1), ("s2", "trip", 1), ("s1", "order", 2), ("s2", "trip", 2)], start=1
        )
    ]


def topics(settings: KafkaSettings) -> set[str]:
    listed = AdminClient({"bootstrap.servers": settings.bootstrap_servers}).list_topics(timeout=10)
    return {topic for topic in listed.topics if topic.startswith(settings.topic.partition("{")[0])}


def notes_topics_at_begin(
    publisher: TransactionalPublisher, settings: KafkaSettings
) -> list[set[str]]:
    """What topics there are each time that a transaction begins."""
    noted: list[set[str]] = []
    begin = publisher._producer.begin_transaction

    async def begin_noting() -> None:
        noted.append(topics(settings))
        await begin()

    publisher._producer.begin_transaction = begin_noting
    return noted


async def test_a_missing_topic_is_made_before_the_transaction_that_needs_it(
    settings: KafkaSettings,
) -> None:
    wanted = {settings.topic_of("order"), settings.topic_of("trip")}
    publisher = await open_transactional(settings, SHARD)
    try:
        assert not wanted & topics(settings)
        noted = notes_topics_at_begin(publisher, settings)
        await publisher.publish(two_sagas(), Mark(0, 4, 1))
        assert await publisher.mark() == Mark(0, 4, 1)
    finally:
        await publisher.close()

    assert [found & wanted for found in noted] == [wanted]
    for saga, name in (("s1", "order"), ("s2", "trip")):
        records = read_topic(settings.bootstrap_servers, settings.topic_of(name))
        assert [(r.key, r.version) for r in records] == [(saga, 1), (saga, 2)]


async def test_who_finds_a_topic_that_another_is_just_making_waits_until_it_is_there(
    settings: KafkaSettings,
) -> None:
    for number in range(5):
        new = replace(settings, topic=f"{settings.topic}.{number}")
        names = [new.topic_of("order"), new.topic_of("trip")]
        answers = await asyncio.gather(*(counted_once_made(new, names) for _ in range(4)))
        assert answers == [dict.fromkeys(names, 6)] * 4


async def counted_once_made(settings: KafkaSettings, names: list[str]) -> dict[str, int]:
    await ensure_topics(settings, names)
    return await count_partitions(settings, names)


async def test_of_a_batch_with_a_topic_that_may_not_be_made_nothing_is_there(
    settings: KafkaSettings,
) -> None:
    publisher = await open_transactional(settings, SHARD)
    await publisher.publish(two_sagas()[:1], Mark(0, 1, 1))
    await publisher.close()

    publisher = await open_transactional(replace(settings, create_topic=False), SHARD)
    noted = notes_topics_at_begin(publisher, settings)
    try:
        with pytest.raises(UnavailableError, match=f"no topic {settings.topic_of('trip')}"):
            await publisher.publish(two_sagas()[1:], Mark(1, 4, 1))
        assert await publisher.mark() == Mark(0, 1, 1)
    finally:
        await publisher.close()

    assert noted == []
    records = read_topic(settings.bootstrap_servers, settings.topic_of("order"))
    assert [r.version for r in records] == [1]


async def test_no_saga_has_a_name_by_which_its_events_would_go_among_the_marks(
    settings: KafkaSettings,
) -> None:
    publisher = await open_transactional(settings, SHARD)
    named = replace(feed_event("s1", 1, position=1), saga_name="all-sagas.marks")
    try:
        await publisher.publish([named], Mark(0, 1, 1))
        assert await publisher.mark() == Mark(0, 1, 1)
    finally:
        await publisher.close()
    records = read_topic(settings.bootstrap_servers, settings.topic_of("all-sagas.marks"))
    assert [r.key for r in records] == ["s1"]
