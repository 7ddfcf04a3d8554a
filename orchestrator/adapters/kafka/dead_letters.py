"""Records that cannot be taken in: kept as they were in a topic of their own, with the reason."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.adapters.kafka.outgoing import Outgoing
from orchestrator.adapters.kafka.sending import Sender, TooLargeError
from orchestrator.adapters.kafka.settings import KafkaSettings, checked_topic
from orchestrator.ports import Record

log = logging.getLogger(__name__)

_KEY_LIMIT = 10_000
REASON_LIMIT = 2_000
"""Characters of the reason that are kept: it stands in a header."""


class KafkaDeadLetters:
    """orchestrator.ports.DeadLetters. The topic is made when the first record needs it."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self.topic = checked_topic("the topic of dead letters", topic)
        self._group = group
        # The reason comes on top of the largest record that a topic may hold.
        room = settings.max_message_bytes + 8 * REASON_LIMIT
        self._sender = Sender(replace(settings, max_record_bytes=room))

    async def put(self, record: Record, error: Exception) -> None:
        """As the port says: same key, value and headers, and headers that say where and why."""
        told = _told(record, error, self._group)
        value = b"" if record.key is None and record.value is None else record.value
        name = f"the dead letter of record {record.place}"
        kept = Outgoing(self.topic, record.key, value, [*record.headers, *told], name)
        try:
            await self._sender.send(kept)
        except TooLargeError as large:
            # It would hold up all that comes behind it for ever. Where it lies is said.
            log.warning("%s; it is kept without its value and headers", large)
            left_out = ("dead_letter_left_out", str(len(record.value or b"")).encode())
            key = None if len(record.key or b"") > _KEY_LIMIT else record.key
            await self._sender.send(replace(kept, key=key, value=b"", headers=[*told, left_out]))

    async def close(self) -> None:
        """Let go of the broker, within `close_timeout`."""
        await self._sender.close()


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
