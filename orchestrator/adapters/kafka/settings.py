"""Where Kafka is, and how long anybody waits for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.security import explain
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import MAX_RECORD_BYTES

T = TypeVar("T")

# A topic that shrinks under a producer shows as a failed assertion of aiokafka.
BROKER_ERRORS = (KafkaError, OSError, TimeoutError, AssertionError)


SAGA = "{saga}"
"""What stands in a topic's name for the name of the saga."""

_ALL_SAGAS = "-all-sagas"
"""What stands there for all of them together. No saga has such a name: none begins with '-'."""

_TOPIC = re.compile(r"[a-zA-Z0-9._-]+")
_LONGEST_TOPIC = 249
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the events go, and how. All times in seconds.

    `topic` may hold `{saga}`: then each saga has a topic of its own. Without `state_topic` no
    states are published. `partitions` is pinned for all of them: with another count the order per
    saga would break. A missing topic is made, unless `create_topic` is off; `replication_factor` is
    an upper bound: there are no more replicas than brokers. `security` is made by
    `security.arguments`.
    """

    bootstrap_servers: str
    topic: str = "saga.events"
    reply_topic: str = "saga.replies"
    partitions: int = 6
    create_topic: bool = True
    replication_factor: int = 3
    state_topic: str = ""
    max_record_bytes: int = MAX_RECORD_BYTES
    batch_bytes: int = 128 * 1024
    connect_timeout: float = 5.0
    publish_timeout: float = 5.0
    close_timeout: float = 3.0
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_topic("SAGA_KAFKA_TOPIC", self.topic)
        checked_topic("SAGA_KAFKA_REPLY_TOPIC", self.reply_topic)
        if self.reply_topic in (self.topic, self.state_topic, self.marks_topic):
            raise InvalidInputError(
                f"SAGA_KAFKA_REPLY_TOPIC {self.reply_topic!r} holds what the relay writes; "
                "name another"
            )
        if not self.state_topic:
            return
        if self.state_topic == self.marks_topic:
            raise InvalidInputError(
                f"SAGA_KAFKA_STATE_TOPIC {self.state_topic!r} is where the relay keeps its marks; "
                "name another"
            )
        if SAGA in self.state_topic:
            raise InvalidInputError(
                f"SAGA_KAFKA_STATE_TOPIC {self.state_topic!r}: there is one topic of states; "
                f"{SAGA} has no meaning here"
            )
        _check_topic("SAGA_KAFKA_STATE_TOPIC", self.state_topic)
        if self.carries_events(self.state_topic):
            raise InvalidInputError(
                f"SAGA_KAFKA_STATE_TOPIC {self.state_topic!r} could be a topic of events as well "
                f"(SAGA_KAFKA_TOPIC is {self.topic!r}); compaction would remove events: name another"
            )

    @property
    def routed(self) -> bool:
        """Whether each saga has a topic of its own."""
        return SAGA in self.topic

    @property
    def fixed_topics(self) -> tuple[str, ...]:
        """The topics that are known before any event is."""
        events = () if self.routed else (self.topic,)
        return (*events, self.state_topic) if self.state_topic else events

    @property
    def relay_prefix(self) -> str:
        """What the relay's own names at the broker begin with."""
        return self.topic.replace(SAGA, _ALL_SAGAS)

    @property
    def marks_topic(self) -> str:
        """Where the marks are: beside the events."""
        return f"{self.relay_prefix}.marks"

    def topic_of(self, saga_name: str) -> str:
        """Where the events of a saga go."""
        return self.topic.replace(SAGA, saga_name)

    def carries_events(self, topic: str) -> bool:
        """Whether events of some saga go to *topic*."""
        before, found, after = self.topic.partition(SAGA)
        if not found:
            return topic == self.topic
        fits = topic.startswith(before) and topic.endswith(after)
        return fits and len(topic) > len(before) + len(after)

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
        why = await explain(settings.bootstrap_servers, settings.security, limit)
        raise UnavailableError(
            f"Kafka at {settings.bootstrap_servers} cannot be used "
            f"(waited at most {limit:g} s): {why or repr(error)}"
        ) from error


def checked_topic(place: str, topic: str) -> str:
    """*topic*, which is one topic's name. InvalidInputError when no broker would take it."""
    if SAGA in topic:
        raise InvalidInputError(f"{place} {topic!r} is one topic; {SAGA} has no meaning here")
    _check_topic(place, topic)
    return topic


def _check_topic(variable: str, topic: str) -> None:
    named = topic.replace(SAGA, "x", 1)
    room = _LONGEST_TOPIC - (_LONGEST_NAME if SAGA in topic else 0)
    if _TOPIC.fullmatch(named) is None or len(named) > room or named in (".", ".."):
        raise InvalidInputError(
            f"{variable} {topic!r} is no name of a topic: use at most {room} letters, digits, "
            f"'.', '_' and '-', and {SAGA} at most once for the name of the saga"
        )


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
