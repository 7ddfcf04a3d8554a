"""What is wrong with a topic, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.settings import KafkaSettings

_CONFIGS = ("cleanup.policy", "max.message.bytes", "min.insync.replicas")


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic; no problems means ready to publish. No partitions: no such topic."""

    name: str
    partitions: int
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """A topic as the brokers describe it; a config that they do not tell is missing.

    That of the marks has `shards`.
    """

    name: str
    partitions: Sequence[Any]
    configs: Mapping[str, str] = field(default_factory=dict)
    brokers: int = 1
    shards: int = 0

    @property
    def replicas(self) -> int:
        """Of the partition that has the fewest."""
        return min((len(each["replicas"]) for each in self.partitions), default=0)

    @property
    def in_sync(self) -> int:
        """Replicas in sync, of the partition that has the fewest."""
        return min((len(each["isr"]) for each in self.partitions), default=0)

    def number(self, config: str) -> int | None:
        """A config as a number; None when the brokers do not tell it."""
        text = self.configs.get(config, "")
        return int(text) if text.isdigit() else None

    def wrong_count(self, settings: KafkaSettings) -> str | None:
        """What to say of a topic without the pinned number of partitions."""
        count = len(self.partitions)
        if not count:
            return f"there is no topic {self.name} at {settings.bootstrap_servers}"
        if self.shards:
            return self._wrong_marks(count)
        if count == settings.partitions:
            return None
        return (
            f"topic {self.name} has {count} partitions, the settings say "
            f"{settings.partitions}; another count would break the order per saga"
        )

    def _wrong_marks(self, count: int) -> str | None:
        if count == self.shards:
            return None
        return (
            f"topic {self.name} has {count} partitions and the relay {self.shards} shards; they "
            "must be as many, or marks would be missed"
        )


async def configs_of(admin: Any, name: str) -> dict[str, str]:
    """Those configs of a topic that matter here, and that the broker tells."""
    wanted = ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(_CONFIGS, ""))
    answers = await admin.describe_configs([wanted])
    entries = [entry for answer in answers for found in answer.resources for entry in found[4]]
    return {entry[0]: entry[1] for entry in entries if entry[0] in _CONFIGS and entry[1]}


def examine(settings: KafkaSettings, look: Look) -> TopicReport:
    """Everything that is wrong with a topic, and everything that is risky."""
    count = look.wrong_count(settings)
    if not look.partitions:
        return TopicReport(look.name, 0, (count or "",))
    problems = [count, _too_small(settings, look), _wrong_cleanup(settings, look), _no_quorum(look)]
    return TopicReport(
        look.name,
        len(look.partitions),
        tuple(problem for problem in problems if problem),
        tuple(risk for risk in (_few_replicas(settings, look), _few_in_sync(look)) if risk),
    )


def _too_small(settings: KafkaSettings, look: Look) -> str | None:
    limit = look.number("max.message.bytes")
    if look.shards or limit is None or limit >= settings.max_message_bytes:
        return None
    return (
        f"topic {look.name} has max.message.bytes={limit}; "
        f"events may need {settings.max_message_bytes}"
    )


def _wrong_cleanup(settings: KafkaSettings, look: Look) -> str | None:
    compacted = look.shards or look.name == settings.state_topic
    wanted = "compact" if compacted else "delete"
    found = look.configs.get("cleanup.policy", wanted)
    if found == wanted:
        return None
    why = (
        "the marks of shards that rest would be removed, and their relay would stop"
        if look.shards
        else "the topic would grow for ever, or lose the states of old sagas"
        if wanted == "compact"
        else "compaction would remove events, because their key is the saga"
    )
    return f"topic {look.name} has cleanup.policy={found}, it needs {wanted}: {why}"


def _no_quorum(look: Look) -> str | None:
    least = look.number("min.insync.replicas")
    if least is None or look.in_sync >= least:
        return None
    return (
        f"topic {look.name} has min.insync.replicas={least}, but a partition with only "
        f"{look.in_sync} of its {look.replicas} replicas in sync: no record can be acknowledged there"
    )


def _few_replicas(settings: KafkaSettings, look: Look) -> str | None:
    wanted = min(settings.replication_factor, look.brokers)
    if look.replicas >= wanted:
        return None
    return (
        f"topic {look.name} has {look.replicas} replicas, there are brokers for {wanted}: "
        "the loss of a broker may lose records"
    )


def _few_in_sync(look: Look) -> str | None:
    least = look.number("min.insync.replicas")
    if least is None or least > 1 or look.replicas < 3:
        return None
    return (
        f"topic {look.name} has min.insync.replicas={least}: a record may be acknowledged by one "
        f"broker alone and lost with it; with {look.replicas} replicas set it to 2"
    )
