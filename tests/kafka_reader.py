"""What a topic holds, read by a client that shares no code with the publisher."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition


@dataclass(frozen=True)
class Read:
    """One record as it lies in the topic."""

    partition: int
    offset: int
    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def header(self) -> dict[str, str]:
        return {name: text.decode() for name, text in self.headers}

    @property
    def version(self) -> int:
        return int(self.header["version"])


def read_topic(servers: str, topic: str, *, within: float = 30) -> list[Read]:
    """Every committed record in *topic* now, partition by partition in offset order."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"test-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        return _read(consumer, topic, time.monotonic() + within)
    finally:
        consumer.close()


_LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def _read(consumer: Consumer, topic: str, until: float) -> list[Read]:
    """Each partition to its end: the last record may be one that no reader sees."""
    left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    found: list[Read] = []
    while left:
        if time.monotonic() > until:
            raise TimeoutError(f"{topic} was not read to its end: {left} are left")
        message: Any = consumer.poll(0.1)
        if message is None:
            continue
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition())
            elif error.code() not in _LEADERLESS:
                raise KafkaException(error)
            continue
        found.append(
            Read(
                message.partition(),
                message.offset(),
                (message.key() or b"").decode(),
                message.value(),
                tuple(message.headers()),
            )
        )
    return sorted(found, key=lambda record: (record.partition, record.offset))
