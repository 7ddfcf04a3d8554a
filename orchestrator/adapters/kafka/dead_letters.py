"""Records that cannot be taken in: kept as they were in a topic of their own, with the reason."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.settings import BROKER_ERRORS, KafkaSettings, reach, within
from orchestrator.adapters.kafka.topic import ensure_topics
from orchestrator.errors import PublishError
from orchestrator.ports import Record

log = logging.getLogger(__name__)

REASON_LIMIT = 2_000
"""Characters of the reason that are kept: it stands in a header."""


class KafkaDeadLetters:
    """orchestrator.ports.DeadLetters. The topic is made when the first record needs it."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self.topic = topic
        self._settings = settings
        self._group = group
        self._producer: Any = None
        self._turn = asyncio.Lock()

    async def put(self, record: Record, error: Exception) -> None:
        """As the port says: same key, value and headers, and headers that say where and why."""
        async with self._turn:
            if self._producer is None:
                self._producer = await self._open()
            send = self._producer.send_and_wait(
                self.topic,
                value=record.value,
                key=record.key,
                headers=[*record.headers, *_told(record, error, self._group)],
            )
            try:
                await within(self._settings.publish_timeout, send)
            except BROKER_ERRORS as trouble:
                await self._drop()
                raise PublishError(
                    f"record {record.place} could not be put into {self.topic}: {trouble!r}"
                ) from trouble

    async def close(self) -> None:
        """Let go of the broker, within `close_timeout`."""
        async with self._turn:
            await self._drop()

    async def _open(self) -> Any:
        await ensure_topics(self._settings, [self.topic])
        producer = AIOKafkaProducer(
            **self._settings.client(),
            acks="all",
            enable_idempotence=True,
            # The reason comes on top of the largest record that a topic may hold.
            max_request_size=self._settings.max_message_bytes + 8 * REASON_LIMIT,
        )
        try:
            await reach(self._settings, producer.start())
        except BaseException:
            await asyncio.wait({asyncio.ensure_future(producer.client.close())}, timeout=1)
            raise
        return producer

    async def _drop(self) -> None:
        """Nothing is on its way when all goes well; after a failure nobody waits for it."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await within(self._settings.close_timeout, producer.stop())
        except BROKER_ERRORS as error:
            log.warning("the producer of dead letters did not stop by itself: %r", error)
            await asyncio.wait({asyncio.ensure_future(producer.client.close())}, timeout=1)


def _told(record: Record, error: Exception, group: str) -> list[tuple[str, bytes]]:
    told = {
        "original_topic": record.topic,
        "original_partition": str(record.partition),
        "original_offset": str(record.offset),
        "original_timestamp": str(record.timestamp),
        "error": type(error).__name__,
        "reason": str(error)[:REASON_LIMIT],
        "consumer_group": group,
        "rejected_at": datetime.now(UTC).isoformat(),
    }
    return [(f"dead_letter_{name}", text.encode("utf-8", "replace")) for name, text in told.items()]
