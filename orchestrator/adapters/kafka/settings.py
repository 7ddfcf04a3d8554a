"""Where Kafka is, and how long anybody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # ships no types

from orchestrator.errors import UnavailableError

T = TypeVar("T")

# A topic that shrinks under a producer shows as a failed assertion of aiokafka.
BROKER_ERRORS = (KafkaError, OSError, TimeoutError, AssertionError)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the events go, and how. All times in seconds.

    `partitions` is pinned: with another count the order per saga would break. A missing topic is
    made, unless `create_topic` is off; `replication_factor` is an upper bound: there are no more
    replicas than brokers. `security` is handed to aiokafka as it is: `security_protocol`,
    `ssl_context`, `sasl_...`.
    """

    bootstrap_servers: str
    topic: str = "saga.events"
    reply_topic: str = "saga.replies"
    partitions: int = 6
    create_topic: bool = True
    replication_factor: int = 3
    max_record_bytes: int = 2 * 1024 * 1024
    batch_bytes: int = 128 * 1024
    connect_timeout: float = 5.0
    publish_timeout: float = 5.0
    close_timeout: float = 3.0
    security: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_message_bytes(self) -> int:
        """What the topic must take: the largest batch with its head."""
        return max(self.max_record_bytes, self.batch_bytes) + 1024

    def client(self) -> dict[str, Any]:
        """What every aiokafka client is made with."""
        millis = int(self.publish_timeout * 1000)
        servers = self.bootstrap_servers.split(",")
        return {"bootstrap_servers": servers, "request_timeout_ms": millis, **self.security}


async def reach(settings: KafkaSettings, work: Coroutine[Any, Any, T]) -> T:
    """UnavailableError, with the address, when *work* does not end within `connect_timeout`."""
    limit = settings.connect_timeout
    try:
        return await within(limit, work)
    except BROKER_ERRORS as error:
        raise UnavailableError(
            f"Kafka at {settings.bootstrap_servers} cannot be used "
            f"(waited at most {limit:g} s): {error!r}"
        ) from error


async def within(limit: float, work: Coroutine[Any, Any, T]) -> T:
    """TimeoutError after *limit*, also when *work* does not let itself be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError(f"no answer within {limit:g} s")
    return task.result()
