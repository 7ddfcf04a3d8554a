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
    """Every record that is in *topic* now, partition by partition in offset order."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"test-{uuid.uuid4()}",
            "enable.auto.commit": False,
        }
    )
    try:
        return _read(consumer, topic, time.monotonic() + within)
    finally:
        consumer.close()


_LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def _end(consumer: Consumer, partition: TopicPartition, until: float) -> int:
    """Where *partition* ends. A topic made a moment ago may still be without leaders."""
    while True:
        try:
            _, end = consumer.get_watermark_offsets(partition, timeout=10)
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > until:
                raise
            consumer.poll(0.05)
        else:
            return int(end)


def _read(consumer: Consumer, topic: str, until: float) -> list[Read]:
    ends = {}
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        if end := _end(consumer, TopicPartition(topic, partition), until):
            ends[partition] = end
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    found: list[Read] = []
    while ends:
        if time.monotonic() > until:
            raise TimeoutError(f"{topic} was not read to its end: {ends} are left")
        message: Any = consumer.poll(0.1)
        if message is None:
            continue
        if (error := message.error()) is not None:
            raise KafkaException(error)
        found.append(
            Read(
                message.partition(),
                message.offset(),
                message.key().decode(),
                message.value(),
                tuple(message.headers()),
            )
        )
        if message.offset() + 1 >= ends[message.partition()]:
            del ends[message.partition()]
    return sorted(found, key=lambda record: (record.partition, record.offset))
