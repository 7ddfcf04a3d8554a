"""Commands to participants: published beside their event, to topics that are not ours alone."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.adapters.kafka import KafkaSettings, open_publisher
from orchestrator.adapters.kafka.commands import read_command, read_reply
from orchestrator.errors import InvalidInputError
from orchestrator.ports import FeedEvent, Mark
from tests.feed_events import feed_event
from tests.kafka_reader import read_topic

SAGA = "0190aaaa-0000-7000-8000-000000000000"


def asked(topic: str, version: int, text: str = "1.10") -> FeedEvent:
    data = (
        f'{{"step":"pay","intent":"do","command":"payments.charge","topic":"{topic}",'
        f'"command_id":"{SAGA}/order/0","payload":{text}}}'
    )
    return feed_event(SAGA, version, data=data, type_="RemoteRequested")


@pytest.mark.kafka
@pytest.mark.parametrize("partitions", [0, 2, 9])
async def test_a_command_goes_to_its_topic_however_many_partitions_that_has(
    kafka: str, partitions: int
) -> None:
    topic = f"commands-{uuid.uuid4()}"
    settings = KafkaSettings(kafka, topic=f"events-{uuid.uuid4()}")
    if partitions:
        admin = AdminClient({"bootstrap.servers": kafka})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
    publisher = await open_publisher(settings)
    try:
        events = [asked(topic, 1), feed_event(SAGA, 2), asked(topic, 3)]
        await publisher.publish(events, Mark(0, 0, 0))
    finally:
        await publisher.close()
    published = read_topic(kafka, settings.topic)
    commands = read_topic(kafka, topic)
    assert [read.version for read in published] == [1, 2, 3]
    assert [read.value for read in commands] == [b"1.10", b"1.10"], "exactly as it is stored"
    assert len({read.partition for read in commands}) == 1, "one saga, one partition"
    assert commands[0].header["reply_to"] == "saga.replies"
    assert commands[0].header["ce_type"] == "payments.charge"


@pytest.mark.parametrize(
    ("headers", "value", "words"),
    [
        ({}, b"1", "it has no header 'command_id'"),
        ({"command_id": "x"}, b"1", "it has no header 'intent'"),
        ({"command_id": "x", "intent": "do", "ce_type": "a", "reply_to": "r"}, b"{", "Expecting"),
        ({"command_id": "x", "intent": "do", "ce_type": "a", "reply_to": "r", "number": "one"},
         b"1", "invalid literal"),
    ],
)  # fmt: skip
def test_a_record_that_is_no_command_says_what_is_missing(
    headers: dict[str, str], value: bytes, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        read_command(value, [(name, text.encode()) for name, text in headers.items()])


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"command_id": "x"}, "it has no header 'answer'"),
        ({"command_id": "x", "answer": "perhaps"}, "there is no answer 'perhaps'"),
    ],
)
def test_a_record_that_is_no_reply_says_what_is_missing(
    headers: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        read_reply(b"1", [(name, text.encode()) for name, text in headers.items()])
