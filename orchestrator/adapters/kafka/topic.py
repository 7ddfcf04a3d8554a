"""The topics: made when missing, looked at by `saga doctor`, never changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # ships no types
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.settings import KafkaSettings, reach
from orchestrator.adapters.kafka.topic_checks import Look, TopicReport, configs_of, examine
from orchestrator.errors import UnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found: how many brokers, and a report for each topic."""

    brokers: int
    topics: tuple[TopicReport, ...]

    @property
    def partitions(self) -> int:
        """Those of the first topic; 0 when it is missing."""
        return self.topics[0].partitions if self.topics else 0

    @property
    def problems(self) -> tuple[str, ...]:
        """All that keeps events from being published as promised."""
        return tuple(problem for topic in self.topics for problem in topic.problems)


async def ensure_topic(settings: KafkaSettings) -> bool:
    """Create the topics that are missing; True when this call did. Changes nothing otherwise."""
    return bool(await ensure_topics(settings, settings.fixed_topics))


async def ensure_topics(
    settings: KafkaSettings, names: Iterable[str], shards: int = 0
) -> tuple[str, ...]:
    """Create those of *names* that are missing; the ones that this call made.

    That of the marks has a partition for each of *shards*. When it returns the broker knows all
    of them, whoever made them: it answers a little before that.
    """

    async def create(admin: Any, settings: KafkaSettings) -> tuple[str, ...]:
        wanted = tuple(names)
        made = tuple([name for name in wanted if await _create(admin, settings, name, shards)])
        while not {t["topic"] for t in await admin.describe_topics()}.issuperset(wanted):  # noqa: ASYNC110 - a broker tells nobody
            await asyncio.sleep(0.05)
        return made

    return await _with_admin(settings, create)


async def check(settings: KafkaSettings, shards: int = 0) -> Report:
    """Look at the brokers and the topics, with *shards* at that of the marks too.

    UnavailableError when no broker answers.
    """
    return await _with_admin(settings, partial(_inspect, shards=shards))


async def count_partitions(settings: KafkaSettings, topics: Sequence[str]) -> dict[str, int]:
    """The partitions of those *topics* that there are. UnavailableError when no broker answers."""

    async def count(admin: Any, _: KafkaSettings) -> dict[str, int]:
        found = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics()}
        return {topic: found[topic] for topic in topics if topic in found}

    return await _with_admin(settings, count)


def wanted_configs(settings: KafkaSettings, name: str, replicas: int) -> Mapping[str, str]:
    """What a topic is made with."""
    quorum = {"min.insync.replicas": str(max(1, replicas - 1))}
    if name == settings.marks_topic:
        return quorum | {"cleanup.policy": "compact", "segment.bytes": str(16 * 1024 * 1024)}
    return quorum | {
        "cleanup.policy": "compact" if name == settings.state_topic else "delete",
        "max.message.bytes": str(settings.max_message_bytes),
    }


async def _create(admin: Any, settings: KafkaSettings, name: str, shards: int) -> bool:
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = max(1, min(settings.replication_factor, brokers))
    configs = dict(wanted_configs(settings, name, replicas))
    partitions = shards if name == settings.marks_topic else settings.partitions
    topic = NewTopic(name, partitions, replicas, topic_configs=configs)
    code, *texts = (await admin.create_topics([topic])).topic_errors[0][1:]
    error = for_code(code)
    if error not in (NoError, TopicAlreadyExistsError):
        why = next((f" ({text})" for text in texts if text), "")
        raise UnavailableError(f"topic {name} could not be created: {error.__name__}{why}")
    return error is NoError


async def _inspect(admin: Any, settings: KafkaSettings, *, shards: int) -> Report:
    brokers = len((await admin.describe_cluster())["brokers"])
    found = {topic["topic"]: topic for topic in await admin.describe_topics()}
    names = list(settings.fixed_topics)
    if settings.routed:
        names[:0] = sorted(filter(settings.carries_events, found.keys() - {settings.marks_topic}))
    if shards:
        names.append(settings.marks_topic)
    reports = []
    for name in names:
        partitions = found[name]["partitions"] if name in found else ()
        configs = await configs_of(admin, name) if partitions else {}
        marks = shards if name == settings.marks_topic else 0
        reports.append(examine(settings, Look(name, partitions, configs, brokers, marks)))
    return Report(brokers, tuple(reports))


def require_count(settings: KafkaSettings, partitions: int, name: str | None = None) -> None:
    """UnavailableError when a topic has not the pinned number of *partitions*."""
    look = Look(name or settings.topic, (None,) * partitions)
    if (problem := look.wrong_count(settings)) is not None:
        raise UnavailableError(problem)


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
