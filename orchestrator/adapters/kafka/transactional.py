"""A batch and its mark in one Kafka transaction: readers of committed records see each event once.

There is one transactional id for each shard. Opening a publisher fences every earlier one of the
shard at the broker, and ends what it left open; so what is read as the last mark then is the last
one for good, and nothing here depends on the time that anything takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.errors import ProducerFenced  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.marks import (
    last_mark,
    record_of,
)
from orchestrator.adapters.kafka.outgoing import Outgoing
from orchestrator.adapters.kafka.producer import (
    let_go,
    logger,
    new_producer,
    partitions_of,
    start,
    topics_at,
)
from orchestrator.adapters.kafka.publisher import KafkaPublisher, Place, Runs
from orchestrator.adapters.kafka.settings import BROKER_ERRORS, KafkaSettings, reach
from orchestrator.adapters.kafka.topic import ensure_topics
from orchestrator.adapters.kafka.topic_checks import Look
from orchestrator.domain.shards import Shard
from orchestrator.errors import PublishError, UnavailableError
from orchestrator.ports import Mark


class TransactionalPublisher(KafkaPublisher):
    """Publishes one shard; every batch is there with its mark, or not at all."""

    def __init__(self, producer: Any, settings: KafkaSettings, shard: Shard) -> None:
        super().__init__(producer, settings)
        self._shard = shard

    async def mark(self) -> Mark | None:
        """The last mark of the shard."""
        return await last_mark(self._settings, self._shard)

    async def _deliver(self, by_partition: Runs, mark: Mark) -> None:
        own = record_of(mark, self._shard, self._settings)
        runs = {**by_partition, (own.topic, self._shard.index): [own]}
        await self._all_of([self._in_transaction(runs)], self._settings.publish_timeout)

    async def _in_transaction(self, runs: Runs) -> None:
        """Commit once all is acknowledged. What is left open by a failure, the next one ends."""
        try:
            await self._producer.begin_transaction()
            sends = [self._send(place, records) for place, records in runs.items()]
            await self._all_of(sends, self._settings.publish_timeout)
            await self._producer.commit_transaction()
        except ProducerFenced as error:
            raise self._fenced() from error
        except BROKER_ERRORS as error:
            raise PublishError(f"{self._where} ended a transaction: {error!r}") from error

    async def _send(self, place: Place, records: Sequence[Outgoing]) -> None:
        """All batches before the first answer: what follows a failed one is never committed."""
        sent = [(await self._submit(place, batch), batch) for batch in self._pack(records)]
        for answer, batch in sent:
            await self._answer(answer, place, batch)


async def open_transactional(settings: KafkaSettings, shard: Shard) -> TransactionalPublisher:
    """Connect, and fence whoever published this shard before. UnavailableError as for others."""
    limit = 2 * settings.publish_timeout
    producer = new_producer(
        settings,
        transactional_id=f"{settings.relay_prefix}.relay-{shard.index}",
        transaction_timeout_ms=int(limit * 1000),
    )
    try:
        await start(producer, settings)
        cluster = await reach(settings, topics_at(producer))
        await _require_marks(settings, shard, partitions_of(cluster, settings.marks_topic))
    except BaseException:
        await let_go(producer)
        raise
    return TransactionalPublisher(producer, settings, shard)


async def _require_marks(settings: KafkaSettings, shard: Shard, partitions: int) -> None:
    topic = settings.marks_topic
    if not partitions:
        if not settings.create_topic:
            raise UnavailableError(
                f"there is no topic {topic} at {settings.bootstrap_servers}; create it with "
                f"{shard.of} partitions and cleanup.policy=compact"
            )
        for made in await ensure_topics(settings, [topic], shard.of):
            logger.warning("created topic %s", made)
        return
    marks = Look(topic, (None,) * partitions, shards=shard.of)
    if (problem := marks.wrong_count(settings)) is not None:
        raise UnavailableError(problem)
