"""The publisher against a broker, read back by another client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.kafka import (
    KafkaPublisher,
    KafkaSettings,
    check,
    ensure_topic,
    open_publisher,
)
from orchestrator.errors import PublishError, UnavailableError
from orchestrator.ports import FeedEvent, Mark
from tests.feed_events import feed_event
from tests.kafka_reader import read_topic

pytestmark = pytest.mark.kafka

NO_MARK = Mark(0, 0, 0)


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    return KafkaSettings(kafka, topic=f"test-{uuid.uuid4()}")


@asynccontextmanager
async def opened(settings: KafkaSettings) -> AsyncIterator[KafkaPublisher]:
    publisher = await open_publisher(settings)
    try:
        yield publisher
    finally:
        await publisher.close()


async def publish(settings: KafkaSettings, *events: FeedEvent) -> None:
    async with opened(settings) as publisher:
        await publisher.publish(events, NO_MARK)


# ---------------------------------------------------------------------------- records


async def test_the_value_holds_the_event_and_its_payload_exactly_as_stored(
    settings: KafkaSettings,
) -> None:
    data = '{"output": {"amount": 1.10, "name": "Zoë \\u0000"}}'
    await publish(settings, feed_event("s1", 4, position=17, data=data, meta='{"user_id":"ann"}'))

    (record,) = read_topic(settings.bootstrap_servers, settings.topic)

    assert json.loads(record.value) == {
        "saga_id": "s1",
        "saga": "order",
        "saga_version": 3,
        "version": 4,
        "type": "StepSucceeded",
        "node": "order/0",
        "attempt": 1,
        "epoch": 2,
        "recorded_at": "2026-03-01T12:00:00Z",
        "correlation_id": "request-7",
        "position": 17,
        "data": json.loads(data),
        "meta": {"user_id": "ann"},
    }
    assert data.encode() in record.value


async def test_the_headers_are_a_cloud_event_in_binary_mode(settings: KafkaSettings) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    meta = json.dumps({"traceparent": trace})
    await publish(settings, feed_event("s1", 4, position=17, meta=meta))

    (record,) = read_topic(settings.bootstrap_servers, settings.topic)

    assert record.key == "s1"
    assert record.header == {
        "ce_specversion": "1.0",
        "ce_id": "s1/4",
        "ce_source": "/sagas/order",
        "ce_type": "saga.StepSucceeded",
        "ce_time": "2026-03-01T12:00:00Z",
        "ce_subject": "s1",
        "ce_dataschema": "urn:saga-orchestrator:event:StepSucceeded:1",
        "ce_partitionkey": "s1",
        "content-type": "application/json",
        "saga_id": "s1",
        "saga_name": "order",
        "version": "4",
        "epoch": "2",
        "correlation_id": "request-7",
        "position": "17",
        "traceparent": trace,
    }


async def test_an_event_published_twice_is_the_same_to_the_byte(settings: KafkaSettings) -> None:
    await publish(settings, feed_event("s1", 1))
    await publish(settings, feed_event("s1", 1))

    first, second = read_topic(settings.bootstrap_servers, settings.topic)

    assert (first.value, first.headers) == (second.value, second.headers)


async def test_events_of_one_saga_keep_their_order_over_many_batches(
    settings: KafkaSettings,
) -> None:
    sagas = [str(uuid.uuid4()) for _ in range(20)]
    data = json.dumps("x" * 2_000)  # some 80 batches of a partition
    events = [feed_event(saga, version, data=data) for version in range(1, 101) for saga in sagas]
    await publish(settings, *events)

    records = read_topic(settings.bootstrap_servers, settings.topic)

    assert len({record.partition for record in records}) > 1
    for saga in sagas:
        mine = [record for record in records if record.key == saga]
        assert [record.version for record in mine] == list(range(1, 101))
        assert len({record.partition for record in mine}) == 1


async def test_keys_go_where_kafkas_own_partitioner_sends_them(settings: KafkaSettings) -> None:
    # Made with org.apache.kafka.common.utils.Utils.murmur2 over six partitions.
    known = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    await publish(settings, *(feed_event(key, 1) for key in known))

    records = read_topic(settings.bootstrap_servers, settings.topic)

    assert {record.key: record.partition for record in records} == {
        key: (murmur2 & 0x7FFFFFFF) % 6 for key, murmur2 in known.items()
    }


# ---------------------------------------------------------------------------- size


async def test_a_payload_of_the_largest_size_allowed_is_published(settings: KafkaSettings) -> None:
    await publish(settings, feed_event("s1", 1, data=json.dumps("x" * 2**20)))

    (record,) = read_topic(settings.bootstrap_servers, settings.topic)

    assert len(record.value) > 2**20


async def test_a_record_over_the_limit_names_the_saga_the_version_and_the_size(
    settings: KafkaSettings,
) -> None:
    large = feed_event("s1", 2, data=json.dumps("x" * 3_000_000))
    with pytest.raises(PublishError, match=r"saga s1 version 2 has 3000\d\d\d bytes"):
        await publish(settings, feed_event("s1", 1), large, feed_event("s1", 3))

    assert [r.version for r in read_topic(settings.bootstrap_servers, settings.topic)] in ([], [1])


async def test_a_publisher_that_has_failed_publishes_nothing_more(settings: KafkaSettings) -> None:
    async with opened(settings) as publisher:
        with pytest.raises(PublishError):
            await publisher.publish(
                [feed_event("s1", 1, data=json.dumps("x" * 3_000_000))], NO_MARK
            )
        with pytest.raises(PublishError, match="open a new one"):
            await publisher.publish([feed_event("s1", 2)], NO_MARK)

    assert read_topic(settings.bootstrap_servers, settings.topic) == []


# ---------------------------------------------------------------------------- the topic


async def test_the_topic_is_made_once_with_room_for_the_largest_record(
    settings: KafkaSettings,
) -> None:
    before = await check(settings)
    made = [await ensure_topic(settings), await ensure_topic(settings)]
    after = await check(settings)

    assert (before.partitions, before.problems) == (
        0,
        (f"there is no topic {settings.topic} at {settings.bootstrap_servers}",),
    )
    assert made == [True, False]
    assert (after.partitions, after.problems) == (6, ())


async def test_another_partition_count_is_refused(settings: KafkaSettings) -> None:
    await ensure_topic(settings)
    other = KafkaSettings(settings.bootstrap_servers, settings.topic, partitions=12)

    with pytest.raises(UnavailableError, match="has 6 partitions, the settings say 12"):
        await open_publisher(other)
    assert "has 6 partitions, the settings say 12" in (await check(other)).problems[0]


async def test_a_missing_topic_is_named_when_it_may_not_be_made(kafka: str) -> None:
    topic = f"test-{uuid.uuid4()}"
    with pytest.raises(UnavailableError, match=f"there is no topic {topic}"):
        await open_publisher(KafkaSettings(kafka, topic, create_topic=False))


# ---------------------------------------------------------------------------- no broker


async def test_no_broker_is_said_with_the_address(unused_tcp_port: int) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    for attempt in (open_publisher, check, ensure_topic):
        with pytest.raises(UnavailableError, match=address):
            await attempt(KafkaSettings(address))


async def test_a_broker_that_does_not_answer_is_given_up_at_the_limit() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    began = time.monotonic()
    async with server:
        with pytest.raises(UnavailableError, match=address):
            await open_publisher(KafkaSettings(address, connect_timeout=0.5))

    assert time.monotonic() - began < 2


@dataclass
class Broker:
    """A broker of our own, which may be frozen."""

    process: subprocess.Popen[bytes]
    address: str

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # the signal takes effect a moment later

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    noida = pytest.importorskip("noida_db", reason="no broker that a test may freeze")
    program = Path(noida.__file__).parent / "noida-db"
    program.chmod(program.stat().st_mode | 0o111)
    log = tmp_path / "log"
    options = ("--only", "kafka", "--kafka-port", "0", "--data-dir", str(tmp_path))
    command = [str(program), "start", *options]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield Broker(process, _address(log))
        finally:
            os.kill(process.pid, signal.SIGKILL)


def _address(log: Path) -> str:
    until = time.monotonic() + 10
    while (found := re.search(r"kafka\s+(127\.0\.0\.1:\d+)", log.read_text())) is None:
        assert time.monotonic() < until, f"the broker did not start: {log.read_text()}"
    return found[1]


async def test_a_frozen_broker_stops_neither_publish_nor_close(own_broker: Broker) -> None:
    settings = KafkaSettings(own_broker.address, publish_timeout=0.5, close_timeout=1.0)
    before = asyncio.all_tasks()
    async with opened(settings) as publisher:
        await publisher.publish([feed_event("s1", 1)], NO_MARK)
        own_broker.freeze()
        began = time.monotonic()
        with pytest.raises(PublishError, match=r"did not acknowledge within 0\.5 s"):
            await publisher.publish([feed_event("s1", 2)], NO_MARK)
        published = time.monotonic()
    closed = time.monotonic()

    assert published - began < 1
    assert closed - published < 1.5
    assert asyncio.all_tasks() == before, "a producer that was given up left tasks behind"


async def test_after_a_frozen_broker_a_new_publisher_begins_where_the_old_one_failed(
    own_broker: Broker,
) -> None:
    settings = KafkaSettings(own_broker.address, publish_timeout=0.5)
    async with opened(settings) as publisher:
        await publisher.publish([feed_event("s1", 1)], NO_MARK)
        own_broker.freeze()
        with pytest.raises(PublishError):
            await publisher.publish([feed_event("s1", 2), feed_event("s1", 3)], NO_MARK)
    own_broker.thaw()

    await publish(settings, *(feed_event("s1", version) for version in (2, 3, 4)))

    versions = [r.version for r in read_topic(settings.bootstrap_servers, settings.topic)]
    assert list(dict.fromkeys(versions)) == [1, 2, 3, 4]


async def test_an_idle_publisher_closes_though_the_broker_is_frozen(own_broker: Broker) -> None:
    async with opened(KafkaSettings(own_broker.address)):
        own_broker.freeze()
        began = time.monotonic()

    assert time.monotonic() - began < 3
