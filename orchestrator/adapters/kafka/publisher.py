"""Records into one topic, in order per saga, each acknowledged by all replicas in sync.

aiokafka needs care (measured): an idempotent producer goes on past a failed record, and its
`send` and `stop` may hang while the broker is away. So there is one unacknowledged batch per
partition, every wait has a limit of its own, and a producer that has failed once is taken apart
and never used again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # ships no types
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced  # type: ignore[import-untyped]  # ships no types
from aiokafka.partitioner import DefaultPartitioner  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.outgoing import Outgoing
from orchestrator.adapters.kafka.producer import (
    hear,
    let_go,
    new_producer,
    prepare,
    start,
    take_apart,
)
from orchestrator.adapters.kafka.records import records_of
from orchestrator.adapters.kafka.settings import BROKER_ERRORS, KafkaSettings, reach, within
from orchestrator.adapters.kafka.topic import ensure_topics
from orchestrator.errors import FencedError, PublishError
from orchestrator.ports import FeedEvent, Mark

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""A topic and one of its partitions."""

Runs = Mapping[Place, Sequence[Outgoing]]
"""The records for each partition, in order."""

_partition_of_key = DefaultPartitioner()


@lru_cache(maxsize=16_384)
def partition_of(key: bytes | None, partitions: int) -> int:
    """Kafka's own default (murmur2 of the key), over a pinned number of partitions."""
    chosen: int = _partition_of_key(key, range(partitions), [])
    return chosen


class _Batch:
    """Records of one partition that the broker takes or refuses as a whole."""

    def __init__(self, builder: Any, limit: int) -> None:
        self.builder = builder
        self._limit = limit
        self._largest = 0
        self._largest_name = ""

    def add(self, record: Outgoing) -> bool:
        """False when the batch is full; the first record always fits."""
        added = self.builder.append(
            timestamp=None, key=record.key, value=record.value, headers=record.headers
        )
        if added is None:
            return False
        if added.size > self._largest:
            self._largest = added.size
            self._largest_name = record.told
        if added.size > self._limit:
            raise self.too_large(f"the limit is {self._limit} bytes")
        return True

    def too_large(self, why: str) -> PublishError:
        return PublishError(f"the record of {self._largest_name} has {self._largest} bytes; {why}")


class KafkaPublisher:
    """Publishes with acks=all and idempotence. Of no use after its first failure."""

    def __init__(self, producer: AIOKafkaProducer, settings: KafkaSettings) -> None:
        self._producer: Any = producer
        self._settings = settings
        self._failed = False
        self._prepared: set[str] = set(settings.fixed_topics)
        self._others: dict[str, int] = {}

    async def mark(self) -> Mark | None:
        """None: nothing is stored but the events."""
        return None

    async def publish(self, events: Sequence[FeedEvent], mark: Mark) -> None:
        """Hand events over in order; return when all replicas in sync have all of them."""
        if self._failed:
            raise PublishError("this publisher has failed before; open a new one")
        by_partition: defaultdict[Place, list[Outgoing]] = defaultdict(list)
        for event in events:
            for record in records_of(event, self._settings):
                partition = partition_of(record.key, await self._partitions_of(record.topic))
                by_partition[record.topic, partition].append(record)
        self._failed = True  # until all is acknowledged: a cancelled publish has failed too
        if fresh := {topic for topic, _ in by_partition} - self._prepared - self._others.keys():
            await reach(self._settings, prepare(self._producer, self._settings, fresh))
            self._prepared |= fresh
        await self._deliver(by_partition, mark)
        self._failed = False

    async def close(self) -> None:
        """Let go of the broker within `close_timeout`, whatever it does."""
        limit = self._settings.close_timeout / 2
        try:
            if not self._failed:
                await within(limit, self._producer.stop())
                return
        except BROKER_ERRORS as error:
            logger.warning("a Kafka producer did not stop by itself: %r", error)
        try:
            await within(limit, take_apart(self._producer))
        except BROKER_ERRORS as error:
            logger.warning("a Kafka producer could not be taken apart: %r", error)

    async def _partitions_of(self, topic: str) -> int:
        """How many the topic has; one that a command goes to is made when it is missing."""
        settings = self._settings
        if topic == settings.state_topic or settings.carries_events(topic):
            return settings.partitions
        if topic not in self._others:
            if settings.create_topic and await ensure_topics(settings, [topic]):
                logger.warning("created topic %s", topic)
            found = await reach(self._settings, self._producer.partitions_for(topic))
            self._others[topic] = len(found)
        return self._others[topic]

    async def _deliver(self, by_partition: Runs, mark: Mark) -> None:
        """Send each partition its records, one unacknowledged batch at a time."""
        sends = [self._send(place, records) for place, records in by_partition.items()]
        await self._all_of(sends, self._settings.publish_timeout)

    async def _all_of(self, sends: Iterable[Coroutine[Any, Any, None]], limit: float) -> None:
        """Run all of *sends*; PublishError with the first failure, or after *limit*."""
        tasks = [asyncio.create_task(send) for send in sends]
        if not tasks:
            return
        try:
            done, late = await asyncio.wait(
                tasks, timeout=limit, return_when=asyncio.FIRST_EXCEPTION
            )
        finally:
            for task in tasks:
                task.cancel()
        if errors := [error for task in done if (error := task.exception())]:
            raise errors[0]
        if late:
            raise PublishError(f"{self._where} did not acknowledge within {limit:g} s")

    async def _send(self, place: Place, records: Sequence[Outgoing]) -> None:
        for batch in self._pack(records):
            await self._answer(await self._submit(place, batch), place, batch)

    async def _submit(self, place: Place, batch: _Batch) -> asyncio.Future[Any]:
        """Hand a batch to the producer; what the broker answers comes later."""
        topic, partition = place
        with self._in_our_words(topic, batch):
            answer: asyncio.Future[Any] = await self._producer.send_batch(
                batch.builder, topic, partition=partition
            )
            answer.add_done_callback(hear)
            return answer

    async def _answer(self, answer: asyncio.Future[Any], place: Place, batch: _Batch) -> None:
        """Wait until the broker has a batch."""
        with self._in_our_words(place[0], batch):
            await answer

    @contextmanager
    def _in_our_words(self, topic: str, batch: _Batch) -> Iterator[None]:
        try:
            yield
        except MessageSizeTooLargeError as error:
            raise batch.too_large(f"topic {topic} takes less (max.message.bytes)") from error
        except ProducerFenced as error:
            raise self._fenced() from error
        except BROKER_ERRORS as error:
            raise PublishError(f"{self._where} refused records: {error!r}") from error

    def _pack(self, records: Sequence[Outgoing]) -> Iterator[_Batch]:
        batch = self._new_batch()
        for record in records:
            if not batch.add(record):
                yield batch
                batch = self._new_batch()
                batch.add(record)
        yield batch

    def _new_batch(self) -> _Batch:
        return _Batch(self._producer.create_batch(), self._settings.max_record_bytes)

    def _fenced(self) -> FencedError:
        return FencedError(f"{self._where} takes nothing more from this producer: a later one came")

    @property
    def _where(self) -> str:
        return f"Kafka at {self._settings.bootstrap_servers}"


async def open_publisher(settings: KafkaSettings) -> KafkaPublisher:
    """Connect. UnavailableError when there is no broker, no topic, or another partition count."""
    producer = new_producer(settings)
    try:
        await start(producer, settings)
    except BaseException:
        await let_go(producer)
        raise
    return KafkaPublisher(producer, settings)
