"""What `saga doctor` finds wrong with topics, on a real broker, and by sight where one is too few."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.adapters.kafka import (
    KafkaSettings,
    TopicReport,
    check,
    ensure_topics,
    open_transactional,
)
from orchestrator.adapters.kafka.topic_checks import Look, examine
from orchestrator.catalogue import Catalogue
from orchestrator.diagnosis import diagnose
from orchestrator.domain.shards import Shard
from orchestrator.errors import UnavailableError
from orchestrator.ports import Finding, Verdict
from orchestrator.settings import Settings


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    name = f"test-{uuid.uuid4()}"
    return KafkaSettings(kafka, topic=name, state_topic=f"{name}-state")


def make(kafka: str, name: str, partitions: int = 6, **configs: str) -> None:
    dotted = {config.replace("_", "."): value for config, value in configs.items()}
    admin = AdminClient({"bootstrap.servers": kafka})
    [made] = admin.create_topics([NewTopic(name, partitions, 1, config=dotted)]).values()
    made.result(30)
    until = time.monotonic() + 10
    while name not in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < until, f"the broker does not know {name}"


ROOMY = {"max_message_bytes": "2098176"}


@pytest.mark.kafka
async def test_topics_are_made_with_what_each_of_them_needs(settings: KafkaSettings) -> None:
    made = await ensure_topics(settings, settings.fixed_topics)
    again = await ensure_topics(settings, settings.fixed_topics)
    report = await check(settings)

    assert (made, again) == (settings.fixed_topics, ())
    assert [(t.name, t.partitions, t.problems, t.warnings) for t in report.topics] == [
        (settings.topic, 6, (), ()),
        (settings.state_topic, 6, (), ()),
    ]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("which", "partitions", "configs", "said"),
    [
        (
            "topic",
            6,
            {**ROOMY, "cleanup_policy": "compact"},
            "cleanup.policy=compact, it needs del",
        ),
        ("topic", 6, {**ROOMY, "cleanup_policy": "compact,delete"}, "compaction would remove"),
        ("topic", 6, {}, "max.message.bytes=1048588; events may need 2098176"),
        ("topic", 5, ROOMY, "has 5 partitions, the settings say 6"),
        ("topic", 6, {**ROOMY, "min_insync_replicas": "2"}, "no record can be acknowledged"),
        ("state_topic", 6, ROOMY, "cleanup.policy=delete, it needs compact: the topic would grow"),
        ("state_topic", 6, {"cleanup_policy": "compact"}, "max.message.bytes=1048588"),
        ("state_topic", 7, {**ROOMY, "cleanup_policy": "compact"}, "has 7 partitions"),
    ],
)
async def test_what_is_wrong_with_a_topic_is_found(
    settings: KafkaSettings, which: str, partitions: int, configs: Mapping[str, str], said: str
) -> None:
    name = getattr(settings, which)
    make(settings.bootstrap_servers, name, partitions, **configs)
    await ensure_topics(settings, settings.fixed_topics)

    report = await check(settings)

    assert len(report.problems) == 1, report.problems
    [problem] = report.problems
    assert said in problem
    assert problem.startswith(f"topic {name} has ")


@pytest.mark.kafka
async def test_of_sagas_with_topics_of_their_own_each_topic_is_looked_at(
    settings: KafkaSettings,
) -> None:
    name = settings.topic
    routed = replace(settings, topic=f"{name}.{{saga}}")
    make(settings.bootstrap_servers, f"{name}.order", **ROOMY)
    make(settings.bootstrap_servers, f"{name}.trip", 3, **ROOMY)
    make(settings.bootstrap_servers, f"{name}-other", 3)

    report = await check(routed)

    names = [(t.name, len(t.problems)) for t in report.topics]
    assert names == [(f"{name}.order", 0), (f"{name}.trip", 1), (settings.state_topic, 1)]


@pytest.mark.kafka
async def test_a_name_that_the_broker_refuses_is_told_with_its_reason(
    settings: KafkaSettings,
) -> None:
    make(settings.bootstrap_servers, f"{settings.topic}.a", **ROOMY)
    with pytest.raises(UnavailableError, match="could not be created: InvalidTopic"):
        await ensure_topics(settings, [f"{settings.topic}_a"])


def findings(found: list[Finding]) -> list[tuple[str, Verdict, str]]:
    return [(f.subject, f.verdict, f.text) for f in found if f.subject in ("broker", "topic")]


@pytest.mark.kafka
async def test_doctor_has_a_finding_for_each_topic(settings: KafkaSettings) -> None:
    servers, name = settings.bootstrap_servers, settings.topic
    wanted = Settings(
        kafka_bootstrap_servers=servers, kafka_topic=name, kafka_state_topic=settings.state_topic
    )
    broker = ("broker", Verdict.FINE, f"{servers} over PLAINTEXT, brokers: 1")
    will_be = "topic {} will be made by the relay"
    assert findings(await diagnose(wanted, Catalogue(()))) == [
        broker,
        ("topic", Verdict.FINE, will_be.format(name)),
        ("topic", Verdict.FINE, will_be.format(settings.state_topic)),
        ("topic", Verdict.FINE, will_be.format(settings.marks_topic)),
    ]

    make(servers, name, 3, **ROOMY, cleanup_policy="compact")
    strict = wanted.model_copy(update={"kafka_create_topics": False})
    first, *topics = findings(await diagnose(strict, Catalogue(())))

    assert first == broker
    assert [verdict for _, verdict, _ in topics] == [Verdict.FAILED] * 4
    assert "has 3 partitions" in topics[0][2]
    assert "cleanup.policy=compact" in topics[1][2]
    assert topics[2][2] == f"there is no topic {settings.state_topic} at {servers}"
    assert topics[3][2] == f"there is no topic {settings.marks_topic} at {servers}"


@pytest.mark.kafka
async def test_the_topic_of_the_marks_is_found_as_the_relay_makes_it(
    settings: KafkaSettings,
) -> None:
    await (await open_transactional(settings, Shard(0, 4))).close()
    report = (await check(settings, shards=4)).topics[-1]
    assert report == TopicReport(settings.marks_topic, 4)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("partitions", "configs", "said"),
    [
        (4, {}, "cleanup.policy=delete, it needs compact: the marks of shards that rest"),
        (6, {"cleanup_policy": "compact"}, "has 6 partitions and the relay 4 shards"),
        (4, {"cleanup_policy": "compact", "min_insync_replicas": "2"}, "can be acknowledged"),
    ],
)
async def test_what_is_wrong_with_the_topic_of_the_marks_is_found(
    settings: KafkaSettings, partitions: int, configs: Mapping[str, str], said: str
) -> None:
    make(settings.bootstrap_servers, settings.marks_topic, partitions, **configs)
    await ensure_topics(settings, settings.fixed_topics)

    [problem] = (await check(settings, shards=4)).problems

    assert said in problem
    assert problem.startswith(f"topic {settings.marks_topic} has ")


@pytest.mark.kafka
async def test_without_transactions_doctor_asks_for_no_marks(settings: KafkaSettings) -> None:
    wanted = Settings(
        kafka_bootstrap_servers=settings.bootstrap_servers, kafka_topic=settings.topic,
        kafka_state_topic="", kafka_transactions=False,
    )  # fmt: skip
    _, *topics = findings(await diagnose(wanted, Catalogue(())))
    assert [text for _, _, text in topics] == [f"topic {settings.topic} will be made by the relay"]


def look(replicas: int, in_sync: int, brokers: int = 3, **configs: str) -> Look:
    partition = {"replicas": list(range(replicas)), "isr": list(range(in_sync))}
    full = {"replicas": [1, 2, 3], "isr": [1, 2, 3]}
    dotted = {config.replace("_", "."): value for config, value in configs.items()}
    return Look("saga.events", [full] * 5 + [partition], dotted, brokers)


@pytest.mark.parametrize(
    ("given", "problem", "risk"),
    [
        (look(3, 3, min_insync_replicas="2"), "", ""),
        (look(3, 2, min_insync_replicas="2"), "", ""),
        (look(3, 1, min_insync_replicas="2"), "only 1 of its 3 replicas in sync", ""),
        (look(3, 3, min_insync_replicas="1"), "", "acknowledged by one broker alone"),
        (look(1, 1, min_insync_replicas="1"), "", "has 1 replicas, there are brokers for 3"),
        (look(1, 1, brokers=1, min_insync_replicas="1"), "", ""),
        (look(3, 3), "", ""),
    ],
)
def test_replicas_that_are_too_few_or_not_in_sync_are_told(
    given: Look, problem: str, risk: str
) -> None:
    report = examine(KafkaSettings("x:1", state_topic="saga.state"), given)

    for found, said in ((report.problems, problem), (report.warnings, risk)):
        assert [said in text for text in found] == ([True] if said else [])
