"""Producers: made, started beside the topics that they need, and taken apart when they are of no use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.settings import KafkaSettings, reach
from orchestrator.adapters.kafka.topic import ensure_topics, require_count

logger = logging.getLogger(__name__)


def new_producer(settings: KafkaSettings, **more: Any) -> Any:
    """A producer that was not started yet."""
    return AIOKafkaProducer(
        **settings.client(),
        acks="all",
        enable_idempotence=True,
        max_batch_size=settings.batch_bytes,
        max_request_size=settings.max_record_bytes,
        **more,
    )


async def start(producer: Any, settings: KafkaSettings) -> None:
    """Connect, and have the topics there that are known before any event is."""
    await reach(settings, producer.start())
    await reach(settings, prepare(producer, settings, settings.fixed_topics))


async def prepare(producer: Any, settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Have *topics* there with the pinned count. UnavailableError when they are not."""
    cluster = await topics_at(producer)
    counts = {topic: partitions_of(cluster, topic) for topic in topics}
    missing = [topic for topic, count in counts.items() if not count]
    if missing and settings.create_topic:
        made = await ensure_topics(settings, missing)
        for topic in made:
            logger.warning("created topic %s", topic)
        cluster = await topics_at(producer)  # another may have made some, a moment before
        counts |= {topic: partitions_of(cluster, topic) for topic in missing}
        counts |= dict.fromkeys(made, settings.partitions)
    for topic, count in counts.items():
        require_count(settings, count, topic)


async def topics_at(producer: Any) -> Any:
    """What the broker knows of all topics: asking for one by name would create it on some."""
    return await producer.client.fetch_all_metadata()


def partitions_of(cluster: Any, topic: str) -> int:
    """How many partitions *topic* has; 0 when there is none."""
    return len(cluster.partitions_for_topic(topic) or ())


async def let_go(producer: Any) -> None:
    """Take a producer apart that is of no use, without waiting long."""
    await asyncio.wait({asyncio.ensure_future(take_apart(producer))}, timeout=1)


def hear(answer: asyncio.Future[Any]) -> None:
    """Take note of an answer, so that asyncio does not complain where an earlier one failed."""
    if not answer.cancelled():
        answer.exception()


async def take_apart(producer: Any) -> None:
    """End a producer that holds batches nobody waits for; `stop` would wait for them for ever."""
    sender = producer._sender.sender_task  # noqa: SLF001 - no public way to end it
    while sender is not None and not sender.done():
        sender.cancel()  # the first lets a request in flight end, the next ends that too
        await asyncio.wait({sender}, timeout=0.1)
    waiter = producer._txn_manager._transaction_waiter  # noqa: SLF001 - nobody waits for it now
    if waiter is not None and waiter.done():
        hear(waiter)
    producer._closed = True  # noqa: SLF001 - or its finalizer complains
    await producer.client.close()
