"""What a reader finds on the topics, read by clients that share no code with the publisher."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.formats.json import JSONFormat

from orchestrator import Orchestrator, Saga, WorkflowContext, step
from orchestrator.adapters.codec import PAYLOAD_LIMIT, JsonCodec
from orchestrator.adapters.kafka import KafkaSettings, open_publisher
from orchestrator.adapters.memory import MemoryDatabase
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain import events as ev
from orchestrator.errors import (
    InvalidInputError,
    PayloadTooLargeError,
    PublishError,
    UnavailableError,
)
from orchestrator.ports import EVENT_DATA_LIMIT, MAX_RECORD_BYTES, EventRow, FeedEvent, Mark
from orchestrator.runtime.asking import CONTEXT_LIMIT, KEY_LIMIT
from orchestrator.runtime.journal import meta_of
from tests.feed_events import NOON, feed_event
from tests.kafka_reader import Read, read_topic

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    name = uuid.uuid4()
    return KafkaSettings(kafka, topic=f"test-{name}", state_topic=f"test-{name}-state")


async def publish(settings: KafkaSettings, *events: FeedEvent) -> None:
    publisher = await open_publisher(settings)
    try:
        await publisher.publish(events, Mark(0, 0, 0))
    finally:
        await publisher.close()


def events(settings: KafkaSettings) -> list[Read]:
    return read_topic(settings.bootstrap_servers, settings.topic)


def states(settings: KafkaSettings) -> list[Read]:
    return read_topic(settings.bootstrap_servers, settings.state_topic)


def life(saga_id: str) -> list[FeedEvent]:
    """A saga that is stuck, mended, and taken back."""
    facts = [
        ("SagaStarted", '{"saga":"order","input":1}'),
        ("StepSucceeded", '{"step":"pay","output":1}'),
        ("SagaStuck", '{"step":"pay","reason":"the bank does not answer"}'),
        ("SagaResumed", '{"actor":"ann","reason":"it does now","inbox_seq":1}'),
        ("CompensationStarted", '{"reason":"refused","failure":{"type":"No","message":"no"}}'),
        ("StepCompensated", '{"step":"pay"}'),
        ("SagaCompensated", '{"reason":"refused"}'),
    ]
    made = [
        feed_event(saga_id, version, position=version, type_=type_, data=data)
        for version, (type_, data) in enumerate(facts, start=1)
    ]
    return [replace(e, turn="SagaStarted") if e.row.type == "SagaResumed" else e for e in made]


# ---------------------------------------------------------------------------- CloudEvents


async def test_the_cloudevents_sdk_reads_our_records(settings: KafkaSettings) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = feed_event("s1", 4, position=17, meta=json.dumps({"traceparent": trace}))
    await publish(settings, replace(given, saga_name="bücher.v2"))
    [record] = events(settings)

    message = KafkaMessage(dict(record.headers), record.key, record.value)
    event = from_binary(message, JSONFormat())

    assert event.get_specversion() == "1.0"
    assert event.get_id() == "s1/4"
    assert event.get_source() == "/sagas/b%C3%BCcher.v2"
    assert event.get_type() == "saga.StepSucceeded"
    assert event.get_time() == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert event.get_subject() == "s1"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_dataschema() == "urn:saga-orchestrator:event:StepSucceeded:1"
    assert event.get_extension("partitionkey") == "s1" == record.key
    assert event.get_data() == json.loads(record.value)


async def test_the_cloudevents_sdk_would_write_the_same_headers(settings: KafkaSettings) -> None:
    await publish(settings, *life("s1"))
    for record in (*events(settings), *states(settings)):
        ours = dict(record.headers)
        event = from_binary(KafkaMessage(ours, record.key, record.value), JSONFormat())
        theirs = to_binary(event, JSONFormat())
        standard = {name for name in ours if name.startswith("ce_")} | {"content-type"}
        assert theirs.headers == {name: ours[name] for name in standard}


async def test_source_and_id_name_one_record_only(settings: KafkaSettings) -> None:
    await publish(settings, *life("s1"), *life("s2"))
    records = [*events(settings), *states(settings)]
    assert len({(r.header["ce_source"], r.header["ce_id"]) for r in records}) == len(records)


# ---------------------------------------------------------------------------- states


async def test_each_change_of_where_an_instance_stands_is_a_state(settings: KafkaSettings) -> None:
    await publish(settings, *life("s1"))

    found = [(r.version, json.loads(r.value)) for r in states(settings)]

    shown = [(version, state["status"], state.get("reason")) for version, state in found]
    assert shown == [
        (1, "running", None),
        (3, "stuck", "the bank does not answer"),
        (4, "running", None),
        (5, "compensating", "refused"),
        (7, "compensated", "refused"),
    ]
    assert found[1][1]["step"] == "pay"
    assert found[3][1]["failure"] == {"type": "No", "message": "no"}
    assert {r.key for r in states(settings)} == {"s1"}
    assert {r.partition for r in states(settings)} == {r.partition for r in events(settings)}


async def test_a_state_tells_who_the_instance_is_and_its_output_exactly(
    settings: KafkaSettings,
) -> None:
    data = '{"output":{"amount": 1.10, "name": "Zoë \\u0000"}}'
    ended = feed_event("s1", 9, position=40, type_="SagaCompleted", data=data)
    tags = {"country": "CH"}
    await publish(settings, replace(ended, key="order-7", parent="s0", tags=tags))

    [record] = states(settings)

    assert json.loads(record.value) == {
        "saga_id": "s1",
        "saga": "order",
        "saga_version": 3,
        "version": 9,
        "key": "order-7",
        "status": "completed",
        "since": "2026-03-01T12:00:00Z",
        "correlation_id": "request-7",
        "parent": "s0",
        "tags": tags,
        "position": 40,
        "output": json.loads(data)["output"],
    }
    assert b'{"amount": 1.10, "name": "Zo\xc3\xab \\u0000"}' in record.value
    assert record.header["ce_type"] == "saga.StateChanged"


async def test_without_a_state_topic_only_events_are_published(kafka: str) -> None:
    settings = KafkaSettings(kafka, topic=f"test-{uuid.uuid4()}")
    await publish(settings, *life("s1"))
    assert len(events(settings)) == 7


async def test_an_event_of_a_type_from_the_future_changes_no_state(settings: KafkaSettings) -> None:
    await publish(settings, feed_event("s1", 1, type_="SagaSublimated", data="{}"))
    assert [r.header["ce_type"] for r in events(settings)] == ["saga.SagaSublimated"]
    assert states(settings) == []


# ---------------------------------------------------------------------------- topics by saga


async def test_each_saga_may_have_a_topic_of_its_own(kafka: str) -> None:
    name = uuid.uuid4()
    settings = KafkaSettings(kafka, topic=f"test-{name}.{{saga}}", state_topic=f"test-{name}-state")
    sagas = [str(uuid.uuid4()) for _ in range(6)]
    given = [
        replace(feed_event(saga, version), saga_name="order" if saga in sagas[:3] else "trip")
        for version in range(1, 30)
        for saga in sagas
    ]
    await publish(settings, *given)

    for saga_name, own in (("order", sagas[:3]), ("trip", sagas[3:])):
        records = read_topic(kafka, settings.topic_of(saga_name))
        assert {r.key for r in records} == set(own)
        for saga in own:
            assert [r.version for r in records if r.key == saga] == list(range(1, 30))


async def test_a_topic_of_a_saga_with_another_partition_count_is_refused(kafka: str) -> None:
    topic = f"test-{uuid.uuid4()}.{{saga}}"
    await publish(KafkaSettings(kafka, topic, partitions=3), feed_event("s1", 1))
    with pytest.raises(UnavailableError, match=r"\.order has 3 partitions, the settings say 6"):
        await publish(KafkaSettings(kafka, topic), feed_event("s1", 1))


async def test_a_topic_of_a_saga_that_may_not_be_made_is_named(kafka: str) -> None:
    settings = KafkaSettings(kafka, f"test-{uuid.uuid4()}.{{saga}}", create_topic=False)
    with pytest.raises(UnavailableError, match=rf"there is no topic {settings.topic_of('order')}"):
        await publish(settings, feed_event("s1", 1))


@pytest.mark.parametrize(
    ("topic", "state_topic", "said"),
    [
        ("saga events", "", "SAGA_KAFKA_TOPIC 'saga events' is no name of a topic"),
        ("{saga}.{saga}", "", "at most once"),
        ("{name}", "", "no name of a topic"),
        ("x" * 250, "", "at most 249"),
        ("x" * 150 + "{saga}", "", "at most 149"),
        ("saga.events", "saga.{saga}", "there is one topic of states"),
        ("saga.events", "saga.events", "could be a topic of events as well"),
        ("saga.{saga}", "saga.state", "could be a topic of events as well"),
        ("saga.events", "saga.events.marks", "where the relay keeps its marks; name another"),
        ("saga.events", "saga state", "SAGA_KAFKA_STATE_TOPIC 'saga state' is no name"),
    ],
)
def test_names_of_topics_that_cannot_be_are_refused(
    topic: str, state_topic: str, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        KafkaSettings("127.0.0.1:9092", topic, state_topic=state_topic)


# ---------------------------------------------------------------------------- size


NASTY = ("\x01", '"', "\\", "é", "😀", "\u2028", "\x7f")


def worst(character: str, *, type_: str, name: str) -> FeedEvent:
    """The largest event that there can be: all that goes along is at its limit too."""
    room = CONTEXT_LIMIT // 4 - 100
    text = character * (room // len(spelled(character)))
    context = WorkflowContext(
        correlation_id=text, causation_id=text, user_id=text[: len(text) // 2],
        trace_id=text[: len(text) // 2], span_id="b7ad6b7169203331", tags={"tag": text},
    )  # fmt: skip
    service = Orchestrator(MemoryDatabase().store(), JsonCodec(), SilentTelemetry())
    key = "ü" * KEY_LIMIT
    request = service.request(Saga(name, version=1, body=idle), 1, key=key, context=context)
    assert len(request.context.encode()) > CONTEXT_LIMIT * 0.9
    shell = len(json.dumps({"output": ""}))
    inside = character * ((EVENT_DATA_LIMIT - shell) // len(spelled(character)))
    data = json.dumps({"output": inside}, ensure_ascii=False)
    data += " " * (EVENT_DATA_LIMIT - len(data.encode()))
    row = EventRow(
        request.saga_id, 2**31 - 1, type_, "n" * 100 + "/9999@999#999" * 50, 2**31 - 1, 2**31 - 1,
        data, meta_of(json.loads(request.context)), NOON, b"", 2**63 - 1,
    )  # fmt: skip
    assert len(data.encode()) == EVENT_DATA_LIMIT
    return FeedEvent(
        row, name, 2**31 - 1, request.correlation_id, key, request.saga_id, request.tags
    )


def spelled(character: str) -> bytes:
    return json.dumps(character, ensure_ascii=False).encode()[1:-1]


@step
async def idle(value: int, ctx: WorkflowContext) -> int:
    return value


@pytest.mark.parametrize("character", NASTY, ids=ascii)
async def test_the_largest_event_that_can_be_recorded_is_published_and_read(
    settings: KafkaSettings, character: str
) -> None:
    event = worst(character, type_="SagaCompleted", name="n" * 100)
    await publish(settings, event)

    [record], [state] = events(settings), states(settings)

    assert json.loads(record.value)["data"] == json.loads(event.row.data)
    assert json.loads(state.value)["output"] == json.loads(event.row.data)["output"]
    head = sum(len(name) + len(text) for name, text in record.headers)
    assert len(record.value) + head < MAX_RECORD_BYTES - 64 * 1024, "room to spare"


def test_a_payload_that_is_accepted_leaves_room_for_the_rest_of_its_event() -> None:
    for character in NASTY:
        count = (PAYLOAD_LIMIT - 2) // len(spelled(character))
        output = JsonCodec().encode(character * count, str)
        event = ev.StepSucceeded("n" * 2_000, "s" * 100, 1, output, 1e15)
        assert len(output.encode()) > PAYLOAD_LIMIT - 12
        assert len(JsonCodec().encode_event(event)[3].encode()) < EVENT_DATA_LIMIT - 512 * 1024
        with pytest.raises(PayloadTooLargeError):
            JsonCodec().encode(character * (count + 1), str)


async def test_a_refused_size_names_the_record_that_is_too_large(kafka: str) -> None:
    settings = KafkaSettings(kafka, f"test-{uuid.uuid4()}", max_record_bytes=10_000)
    large = feed_event("s1", 2, data=json.dumps("x" * 20_000))
    with pytest.raises(PublishError, match=r"saga s1 version 2 has 20\d\d\d bytes"):
        await publish(settings, large)
