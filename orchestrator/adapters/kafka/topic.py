"""The topic: made when missing, looked at by `saga doctor`, never changed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # ships no types
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]  # ships no types
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.settings import KafkaSettings, reach
from orchestrator.errors import UnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What `check` found; no problems means ready to publish. No partitions: no such topic."""

    brokers: int
    partitions: int
    problems: tuple[str, ...]


async def ensure_topic(settings: KafkaSettings) -> bool:
    """Create the topic when it is missing; True when this call did. Changes nothing otherwise."""
    return await _with_admin(settings, _create_topic)


async def check(settings: KafkaSettings) -> TopicReport:
    """Look at the brokers and the topic. UnavailableError when no broker answers."""
    return await _with_admin(settings, _inspect)


async def count_partitions(settings: KafkaSettings, topics: Sequence[str]) -> dict[str, int]:
    """The partitions of those *topics* that there are. UnavailableError when no broker answers."""

    async def count(admin: Any, _: KafkaSettings) -> dict[str, int]:
        found = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics()}
        return {topic: found[topic] for topic in topics if topic in found}

    return await _with_admin(settings, count)


async def _create_topic(admin: Any, settings: KafkaSettings) -> bool:
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = max(1, min(settings.replication_factor, brokers))
    configs = {
        "max.message.bytes": str(settings.max_message_bytes),
        "min.insync.replicas": str(max(1, replicas - 1)),
    }
    topic = NewTopic(settings.topic, settings.partitions, replicas, topic_configs=configs)
    answer = await admin.create_topics([topic])
    error = for_code(answer.topic_errors[0][1])
    if error not in (NoError, TopicAlreadyExistsError):
        raise UnavailableError(f"topic {settings.topic} could not be created: {error.__name__}")
    return error is NoError


async def _inspect(admin: Any, settings: KafkaSettings) -> TopicReport:
    brokers = len((await admin.describe_cluster())["brokers"])
    found = {topic["topic"]: topic for topic in await admin.describe_topics()}
    if settings.topic not in found:
        return TopicReport(brokers, 0, (_wrong_count(settings, 0),))
    partitions, problems = len(found[settings.topic]["partitions"]), []
    if partitions != settings.partitions:
        problems.append(_wrong_count(settings, partitions))
    limit = await _max_message_bytes(admin, settings.topic)
    if limit is not None and limit < settings.max_message_bytes:
        problems.append(
            f"topic {settings.topic} has max.message.bytes={limit}; "
            f"events may need {settings.max_message_bytes}"
        )
    return TopicReport(brokers, partitions, tuple(problems))


async def _max_message_bytes(admin: Any, topic: str) -> int | None:
    """None when the broker does not tell."""
    wanted = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": ""})
    answers = await admin.describe_configs([wanted])
    entries = [entry for answer in answers for found in answer.resources for entry in found[4]]
    return next((int(entry[1]) for entry in entries if entry[0] == "max.message.bytes"), None)


def require_count(settings: KafkaSettings, partitions: int) -> None:
    """UnavailableError when the topic has not the pinned number of *partitions*."""
    if partitions != settings.partitions:
        raise UnavailableError(_wrong_count(settings, partitions))


def _wrong_count(settings: KafkaSettings, partitions: int) -> str:
    if not partitions:
        return f"there is no topic {settings.topic} at {settings.bootstrap_servers}"
    return (
        f"topic {settings.topic} has {partitions} partitions, the settings say "
        f"{settings.partitions}; another count would break the order per saga"
    )


async def _with_admin(
    settings: KafkaSettings, use: Callable[[Any, KafkaSettings], Coroutine[Any, Any, T]]
) -> T:
    async def visit() -> T:
        admin = AIOKafkaAdminClient(**settings.client())
        try:
            await admin.start()
            return await use(admin, settings)
        finally:
            await admin.close()

    return await reach(settings, visit())
