"""Send single records, each acknowledged before the next step is taken."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiokafka.errors import MessageSizeTooLargeError  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.outgoing import Outgoing
from orchestrator.adapters.kafka.producer import let_go, new_producer
from orchestrator.adapters.kafka.settings import BROKER_ERRORS, KafkaSettings, reach, within
from orchestrator.adapters.kafka.topic import ensure_topics
from orchestrator.errors import PublishError

log = logging.getLogger(__name__)


class TooLargeError(PublishError):
    """The broker takes no record of this size; it will not take it later either."""


class Sender:
    """Sends with acks=all and idempotence; a producer that has failed once is thrown away."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._known: set[str] = set()
        self._making = asyncio.Lock()

    async def send(self, record: Outgoing) -> None:
        """Return when all replicas in sync have it. PublishError when that is not known.

        TooLargeError for one that can never be sent.
        """
        producer = await self._ready(record.topic)
        try:
            await within(
                self._settings.publish_timeout,
                producer.send_and_wait(
                    record.topic, record.value, key=record.key, headers=record.headers
                ),
            )
        except BROKER_ERRORS as error:
            await self._throw_away(producer)
            large = isinstance(error, MessageSizeTooLargeError)
            kind = TooLargeError if large else PublishError
            told = f"{record.told} was not acknowledged by topic {record.topic}: {error!r}"
            raise kind(told) from error

    async def close(self) -> None:
        """Let go of the broker; a producer that is being made is waited for."""
        async with self._making:
            if self._producer is not None:
                await self._throw_away(self._producer)

    async def _ready(self, topic: str) -> Any:
        async with self._making:
            if topic not in self._known and self._settings.create_topic:
                await ensure_topics(self._settings, [topic])
                self._known.add(topic)
            if self._producer is None:
                producer = new_producer(self._settings)
                try:
                    await reach(self._settings, producer.start())
                except BaseException:
                    await self._stop(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _throw_away(self, producer: Any) -> None:
        if self._producer is producer:
            self._producer = None
        await self._stop(producer)

    async def _stop(self, producer: Any) -> None:
        try:
            await within(self._settings.close_timeout, producer.stop())
        except BROKER_ERRORS as error:
            log.warning("a Kafka producer did not stop by itself: %r", error)
            await let_go(producer)
