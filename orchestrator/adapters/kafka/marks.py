"""The marks of the shards: a compacted topic with one partition a shard, written with each batch.

Not the offsets of a consumer group: a broker forgets those of a group without members after a
week (`offsets.retention.minutes`), and the relay would not know where it was.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.outgoing import Outgoing
from orchestrator.adapters.kafka.settings import KafkaSettings, reach
from orchestrator.domain.shards import Shard
from orchestrator.errors import UnavailableError
from orchestrator.ports import Mark

_FIRST_LOOK = 50
"""Records from the end that are read first: the last mark is among them, or aborted ones are."""


def record_of(mark: Mark, shard: Shard, settings: KafkaSettings) -> Outgoing:
    """A mark as it is sent."""
    key = f"{shard.index}".encode()
    told = f"the mark of shard {shard.index}"
    return Outgoing(settings.marks_topic, key, json.dumps(asdict(mark)).encode(), [], told)


async def last_mark(settings: KafkaSettings, shard: Shard) -> Mark:
    """The last committed mark of a shard whose producers are all fenced but one's own."""
    return await reach(settings, _read(settings, TopicPartition(settings.marks_topic, shard.index)))


async def _read(settings: KafkaSettings, place: Any) -> Mark:
    async with _consumer(settings) as consumer:
        consumer.assign([place])
        begin = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        look = _FIRST_LOOK
        while begin < end:
            start = max(begin, end - look)
            found = await _last_between(consumer, place, start, end)
            if found is not None:
                return _mark_of(found, place)
            if start == begin:
                break
            look *= 10
    return Mark(0, 0, 0)


def _mark_of(value: bytes, place: Any) -> Mark:
    try:
        mark = Mark(**json.loads(value))
    except (TypeError, ValueError) as error:
        raise UnavailableError(
            f"the last record of topic {place.topic}, partition {place.partition}, is no mark of a "
            f"relay ({error}); who else writes there? Only the relay may"
        ) from error
    return mark


async def _last_between(consumer: Any, place: Any, start: int, end: int) -> bytes | None:
    """The value of the last committed record from *start* on; None when all there is aborted."""
    consumer.seek(place, start)
    found: bytes | None = None
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(place, timeout_ms=50)).values():
            found = records[-1].value
    return found


@asynccontextmanager
async def _consumer(settings: KafkaSettings) -> AsyncIterator[Any]:
    consumer: Any = AIOKafkaConsumer(
        **settings.client(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=20,  # closing waits for it
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()
