"""Events of sagas as records, and what writes them to a topic by hand."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.adapters.kafka.records import headers_of, value_of
from orchestrator.ports import Record
from tests.feed_events import feed_event


def event_record(
    saga_id: str, version: int, *, type_: str = "StepSucceeded", offset: int | None = None,
    topic: str = "saga.events", data: str = '{"output":{"cents":100}}',
) -> Record:  # fmt: skip
    """The record that a relay makes of an event."""
    event = feed_event(saga_id, version, type_=type_, data=data)
    place = version - 1 if offset is None else offset
    return Record(
        topic, 0, place, 1_700_000_000_000, saga_id.encode(), value_of(event),
        tuple(headers_of(event)),
    )  # fmt: skip


def new_topic(servers: str, partitions: int = 3) -> str:
    """A topic of the test's own."""
    name = f"events-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": servers})
    for made in admin.create_topics([NewTopic(name, partitions)]).values():
        made.result(30)
    return name


def publish(
    servers: str, topic: str, events: Iterable[tuple[str, int]], *, partition: int | None = None
) -> None:
    """Write events (saga id, version), in this order."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 2})
    where = {} if partition is None else {"partition": partition}
    for saga_id, version in events:
        record = event_record(saga_id, version)
        producer.produce(topic, record.value, saga_id, headers=list(record.headers), **where)
    assert producer.flush(30) == 0
