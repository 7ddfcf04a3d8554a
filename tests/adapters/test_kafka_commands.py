"""Commands to participants: published beside their event, to topics that are not ours alone."""

from __future__ import annotations

import json
import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.adapters.kafka import KafkaDeadLetters, KafkaSettings, open_publisher
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


DEEP = b"[" * 5_000 + b"]" * 5_000
COMMAND = {"command_id": f"{SAGA}/order/0", "intent": "do", "ce_type": "a", "reply_to": "r"}
REPLY = {"command_id": f"{SAGA}/order/0", "answer": "failed"}


@pytest.mark.parametrize(
    "value", [DEEP, b"[" * 600 + b"]" * 600, b"NaN", b'{"a": -Infinity}', b"\xff"]
)
def test_a_value_that_cannot_be_recorded_is_no_command_and_no_reply(value: bytes) -> None:
    for read, told in ((read_command, COMMAND), (read_reply, REPLY)):
        with pytest.raises(InvalidInputError, match="this record is no"):
            read(value, [(name, text.encode()) for name, text in told.items()])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command_id": "a\0b"}, "no NUL"),
        ({"command_id": "x" * 3_000}, "at most 2000 characters"),
        ({"undoes": "x" * 3_000}, "at most 2000 characters"),
        ({"intent": "redo"}, "there is no intent 'redo'"),
        ({"number": str(2**31)}, "there is no number"),
        ({"number": "-1"}, "there is no number"),
        ({"reply_to": "no topic"}, "is no name of a topic"),
        ({"reply_to": "{saga}"}, "is one topic"),
    ],
)
def test_what_no_book_and_no_topic_can_hold_is_no_command(
    change: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        read_command(b"1", [(name, text.encode()) for name, text in (COMMAND | change).items()])


def test_half_a_character_in_a_failure_is_no_reason_to_drop_it() -> None:
    """As a service writes it that cuts a message after so many units of UTF-16."""
    value = b'{"type": "Declined", "message": "no \\ud83d"}'
    reply = read_reply(value, [(name, text.encode()) for name, text in REPLY.items()])
    assert reply.failure is not None
    assert reply.failure.message == "no \ud83d"


def test_what_a_reply_tells_of_a_failure_is_bounded() -> None:
    headers = {**REPLY, "participant": "p" * 10_000}
    told = {"type": "T" * 10_000, "message": "m" * 10_000, "kinds": ["k" * 10_000] * 1_000}
    value = json.dumps(told)[:-1] + f', "retry_after": {10**400}}}'
    reply = read_reply(value.encode(), [(name, text.encode()) for name, text in headers.items()])
    assert len(reply.participant) == 100
    assert reply.failure is not None
    assert reply.failure.retry_after == 1e9
    assert len(json.dumps(reply.message())) < 20_000


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("my replies", "SAGA_KAFKA_REPLY_TOPIC 'my replies' is no name of a topic"),
        ("{saga}.replies", "is one topic"),
        ("saga.events", "holds what the relay writes"),
        ("saga.events.marks", "holds what the relay writes"),
    ],
)
def test_a_topic_of_replies_that_can_never_work_is_refused(topic: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        KafkaSettings("k:1", reply_topic=topic)


@pytest.mark.parametrize("topic", ["a b", "", "x" * 300])
def test_a_topic_of_dead_letters_that_can_never_work_is_refused(topic: str) -> None:
    """Else the first record that is rejected would be waited for, without end."""
    with pytest.raises(InvalidInputError, match="is no name of a topic"):
        KafkaDeadLetters(KafkaSettings("k:1"), topic, "group")
