"""Records in: handed out once each while nothing fails, committed after they are in, never lost."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.adapters.kafka import (
    ConsumerSettings,
    KafkaConsumer,
    KafkaDeadLetters,
    KafkaSettings,
)
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import (
    InvalidInputError,
    NotYetError,
    RejectedRecordError,
    UnavailableError,
)
from orchestrator.ports import Record, Telemetry
from tests.kafka_reader import read_topic

pytestmark = pytest.mark.kafka

OPTIONS = ConsumerSettings(
    commit_every=0.05, backoff=0.02, backoff_limit=0.1, session_timeout=6.0, look_for_topics=0.3,
    drain_timeout=5.0,
)  # fmt: skip

Behave = Callable[[Record, int], Awaitable[None]]


async def _fine(record: Record, attempt: int) -> None:
    del record, attempt


@dataclass
class Intake:
    """Remembers what it was brought; *behave* may raise or wait."""

    behave: Behave = _fine
    began: list[tuple[str, int]] = field(default_factory=list)
    done: list[Record] = field(default_factory=list)

    async def take(self, record: Record, attempt: int) -> None:
        self.began.append((record.place, attempt))
        await self.behave(record, attempt)
        self.done.append(record)

    @property
    def values(self) -> list[str]:
        return [(record.value or b"").decode() for record in self.done]


@dataclass
class Topic:
    """A topic of the test's own, its dead letters, and one group that reads it."""

    servers: str
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4()}")
    group: str = field(default_factory=lambda: f"group-{uuid.uuid4()}")

    @property
    def dead(self) -> str:
        return f"{self.name}.dead"

    def create(self, partitions: int = 3) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers})
        for made in admin.create_topics([NewTopic(self.name, partitions)]).values():
            made.result(30)

    def send(self, *pairs: tuple[str | None, str], partition: int | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 5})
        where = {} if partition is None else {"partition": partition}
        for key, value in pairs:
            producer.produce(self.name, value.encode(), key, headers={"kind": b"test"}, **where)
        assert producer.flush(30) == 0

    def committed(self, partition: int = 0) -> int:
        """The offset that the group committed."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.group})
        try:
            [found] = consumer.committed([TopicPartition(self.name, partition)], timeout=20)
            return int(found.offset)
        finally:
            consumer.close()

    @asynccontextmanager
    async def reading(
        self,
        intake: Intake,
        options: ConsumerSettings = OPTIONS,
        telemetry: Telemetry | None = None,
    ) -> AsyncIterator[KafkaConsumer]:
        settings = KafkaSettings(self.servers)
        dead = KafkaDeadLetters(settings, self.dead, self.group)
        consumer = KafkaConsumer(
            settings, [self.name], self.group, intake, dead, telemetry or SilentTelemetry(),
            options,
        )  # fmt: skip
        stop = asyncio.Event()
        task = asyncio.create_task(consumer.run(stop))
        try:
            yield consumer
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)
            await dead.close()


@pytest.fixture
def topic(kafka: str) -> Topic:
    topic = Topic(kafka)
    topic.create()
    return topic


async def until(holds: Callable[[], bool], within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


async def test_records_of_one_key_come_one_after_the_other_and_in_order(topic: Topic) -> None:
    topic.send(*[(f"k{n % 7}", str(n)) for n in range(200)])
    at_once: defaultdict[bytes | None, int] = defaultdict(int)

    async def alone(record: Record, _: int) -> None:
        at_once[record.key] += 1
        await asyncio.sleep(0)
        assert at_once[record.key] == 1
        at_once[record.key] -= 1

    intake = Intake(alone)
    async with topic.reading(intake) as consumer:
        await until(lambda: len(intake.done) == 200)
        assert consumer.stopped == {}

    for key in range(7):
        mine = [int(value) for value in intake.values if int(value) % 7 == key]
        assert mine == sorted(mine)
    assert intake.done[0].header("kind") == "test"
    assert intake.done[0].header("other") is None


async def test_what_was_taken_in_does_not_come_again_after_a_restart(topic: Topic) -> None:
    first, second = Intake(), Intake()
    topic.send(*[(str(n), str(n)) for n in range(50)])
    async with topic.reading(first):
        await until(lambda: len(first.done) == 50)
    topic.send(("new", "new"))
    async with topic.reading(second):
        await until(lambda: bool(second.done))

    assert second.values == ["new"]


async def test_no_offset_is_committed_past_a_record_that_is_not_in(topic: Topic) -> None:
    """One key hangs; what came behind it in the partition is done, and still comes again."""

    async def hang(record: Record, _: int) -> None:
        if record.key == b"hangs":
            await asyncio.Event().wait()

    topic.send(("a", "1"), ("hangs", "2"), ("b", "3"), ("c", "4"), partition=0)
    first, second = Intake(hang), Intake()
    async with topic.reading(first, replace(OPTIONS, drain_timeout=0.1)):
        await until(lambda: len(first.done) == 3)
    async with topic.reading(second):
        await until(lambda: len(second.done) == 3)

    assert first.values == ["1", "3", "4"]
    assert second.values == ["2", "3", "4"]


async def test_a_rejected_record_is_kept_with_the_reason_and_the_others_go_on(
    topic: Topic,
) -> None:
    async def refuse(record: Record, _: int) -> None:
        if record.value == b"bad":
            raise RejectedRecordError("no such thing")

    topic.send(("a", "1"), ("a", "bad"), ("a", "2"), partition=1)
    intake = Intake(refuse)
    async with topic.reading(intake):
        await until(lambda: len(intake.done) == 2)

    (dead,) = read_topic(topic.servers, topic.dead)
    assert intake.values == ["1", "2"]
    assert (dead.key, dead.value) == ("a", b"bad")
    told = dead.header
    assert told.pop("dead_letter_rejected_at")
    assert told.pop("dead_letter_original_timestamp")
    assert told == {
        "kind": "test",
        "dead_letter_original_topic": topic.name,
        "dead_letter_original_partition": "1",
        "dead_letter_original_offset": "1",
        "dead_letter_error": "RejectedRecordError",
        "dead_letter_reason": "no such thing",
        "dead_letter_consumer_group": topic.group,
    }


async def test_what_is_not_yet_possible_is_tried_for_its_patience_and_holds_up_its_key_only(
    topic: Topic,
) -> None:
    async def later(record: Record, attempt: int) -> None:
        if record.value == b"soon" and attempt < 4:
            raise NotYetError("not there yet", patience=60)
        if record.value == b"never":
            raise NotYetError("not there yet", patience=0.2)

    topic.send(("a", "soon"), ("a", "behind"), ("b", "free"), ("c", "never"), partition=0)
    intake = Intake(later)
    async with topic.reading(intake):
        await until(lambda: len(intake.done) == 3)
        assert intake.values[0] == "free"
        assert intake.values[-2:] == ["soon", "behind"]
        await until(lambda: len(read_topic(topic.servers, topic.dead)) == 1)

    assert [attempt for _, attempt in intake.began[:1]] == [1]
    (dead,) = read_topic(topic.servers, topic.dead)
    assert dead.header["dead_letter_reason"] == "not there yet"


async def test_a_store_that_is_away_is_waited_for_and_counts_as_no_attempt(topic: Topic) -> None:
    away = 5

    async def be_away(record: Record, attempt: int) -> None:
        nonlocal away
        assert attempt == 1
        if away:
            away -= 1
            raise UnavailableError("gone fishing")

    topic.send(("a", "1"))
    intake = Intake(be_away)
    async with topic.reading(intake):
        await until(lambda: bool(intake.done))

    assert len(intake.began) == 6


async def test_an_error_stops_its_partition_which_is_tried_again_and_not_the_others(
    topic: Topic,
) -> None:
    broken = True

    async def break_(record: Record, _: int) -> None:
        if broken and record.value == b"bug":
            raise ZeroDivisionError("a bug")

    topic.send(("a", "1"), ("a", "bug"), ("a", "2"), partition=0)
    topic.send(("b", "other"), partition=1)
    intake = Intake(break_)
    async with topic.reading(intake, replace(OPTIONS, stopped_for=0.3)) as consumer:
        await until(lambda: len(intake.done) == 2 and bool(consumer.stopped))
        assert [str(error) for error in consumer.stopped.values()] == ["a bug"]
        assert list(consumer.stopped) == [(topic.name, 0)]
        topic.send(("b", "more"), partition=1)
        await until(lambda: "more" in intake.values)
        broken = False
        await until(lambda: "2" in intake.values)

    assert sorted(intake.values) == ["1", "2", "bug", "more", "other"]


async def test_a_full_partition_is_not_read_on_until_there_is_room(topic: Topic) -> None:
    gate = asyncio.Event()

    async def wait(record: Record, _: int) -> None:
        await gate.wait()

    topic.send(*[(str(n), str(n)) for n in range(500)], partition=0)
    intake = Intake(wait)
    async with topic.reading(intake, replace(OPTIONS, window=20)) as consumer:
        await until(lambda: len(intake.began) >= 20)
        topic.send(("x", "x"), partition=1)
        await until(lambda: any(place.startswith(f"{topic.name}/1") for place, _ in intake.began))
        held = sum(len(lanes._order) for lanes in consumer._held.values())
        assert held <= 2 * 20 + 1
        gate.set()
        await until(lambda: len(intake.done) == 501)


async def test_a_record_that_waits_holds_up_its_key_only_however_many_come_behind_it(
    topic: Topic,
) -> None:
    """The window counts what is not done: else one that waits would fill it and stop them all."""
    go = asyncio.Event()

    async def wait(record: Record, _: int) -> None:
        if record.key == b"waits":
            await go.wait()

    topic.send(("waits", "w"), *[(str(n), str(n)) for n in range(500)], partition=0)
    intake = Intake(wait)
    async with topic.reading(intake, replace(OPTIONS, window=20)) as consumer:
        await until(lambda: len(intake.done) == 500)
        [lanes] = [one for one in consumer._held.values() if one._order]
        assert lanes.reached <= 0
        go.set()
        await until(lambda: lanes.reached == 501)


async def test_what_is_done_behind_a_record_that_waits_is_bounded(topic: Topic) -> None:
    go = asyncio.Event()

    async def wait(record: Record, _: int) -> None:
        if record.key == b"waits":
            await go.wait()

    topic.send(("waits", "w"), *[(str(n), str(n)) for n in range(500)], partition=0)
    intake = Intake(wait)
    async with topic.reading(intake, replace(OPTIONS, window=20, ahead=100)) as consumer:
        await until(lambda: len(intake.done) >= 99)
        await until(lambda: any(one.full for one in consumer._held.values()))
        topic.send(("x", "x"), partition=1)
        await until(lambda: "x" in intake.values)
        assert len(intake.done) <= 100 + 2 * 20 + 1
        go.set()
        await until(lambda: len(intake.done) == 502)


async def test_a_header_without_a_value_is_an_empty_one(topic: Topic) -> None:
    async def look(record: Record, _: int) -> None:
        if record.header("empty") == "":
            raise RejectedRecordError("seen")

    producer = Producer({"bootstrap.servers": topic.servers})
    producer.produce(topic.name, b"1", "a", headers=[("empty", None)])
    producer.flush(30)
    topic.send(("a", "2"))
    intake = Intake(look)
    async with topic.reading(intake) as consumer:
        await until(lambda: intake.values == ["2"])
        assert consumer.stopped == {}

    [dead] = read_topic(topic.servers, topic.dead)
    assert dead.header["empty"] == ""


async def test_an_intake_that_is_cancelled_from_inside_stops_its_partition_and_is_tried_again(
    topic: Topic,
) -> None:
    broken = True

    async def awaits_what_was_cancelled(record: Record, _: int) -> None:
        if broken:
            work = asyncio.ensure_future(asyncio.sleep(60))
            work.cancel()
            await work

    topic.send(("a", "1"), ("a", "2"), partition=0)
    intake = Intake(awaits_what_was_cancelled)
    async with topic.reading(intake, replace(OPTIONS, stopped_for=0.3)) as consumer:
        await until(lambda: list(consumer.stopped) == [(topic.name, 0)])
        broken = False
        await until(lambda: intake.values == ["1", "2"])


@dataclass
class Counted(SilentTelemetry):
    """Remembers what was counted."""

    counted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def count(self, name: str, by: int = 1) -> None:
        self.counted[name] += by


async def test_records_that_were_removed_before_they_were_read_are_counted_and_told(
    topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    topic.send(*[("a", str(n)) for n in range(10)], partition=0)
    first, second, telemetry = Intake(), Intake(), Counted()
    async with topic.reading(first, telemetry=telemetry):
        await until(lambda: len(first.done) == 10)
    assert telemetry.counted["lost_records"] == 0

    topic.send(*[("a", str(n)) for n in range(10, 20)], partition=0)
    admin = AdminClient({"bootstrap.servers": topic.servers})
    for done in admin.delete_records([TopicPartition(topic.name, 0, 14)]).values():
        done.result(30)
    async with topic.reading(second, telemetry=telemetry):
        await until(lambda: len(second.done) == 6)

    assert second.values == [str(n) for n in range(14, 20)]
    assert telemetry.counted["lost_records"] == 4
    assert f"{topic.name}/0: 4 records, from offset 10 on, are gone" in caplog.text


async def test_a_new_group_begins_at_the_beginning_and_misses_nothing(topic: Topic) -> None:
    topic.send(*[("a", str(n)) for n in range(10)], partition=0)
    admin = AdminClient({"bootstrap.servers": topic.servers})
    for done in admin.delete_records([TopicPartition(topic.name, 0, 4)]).values():
        done.result(30)
    intake, telemetry = Intake(), Counted()
    async with topic.reading(intake, telemetry=telemetry):
        await until(lambda: len(intake.done) == 6)

    assert intake.values == [str(n) for n in range(4, 10)]
    assert telemetry.counted["lost_records"] == 0


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(topic: Topic) -> None:
    topic.send(*[("a", str(n)) for n in range(10)], partition=0)
    first, second = Intake(), Intake()
    async with topic.reading(first):
        await until(lambda: len(first.done) == 10)
    admin = AdminClient({"bootstrap.servers": topic.servers})
    for gone in admin.delete_topics([topic.name]).values():
        gone.result(30)
    await until(lambda: topic.name not in admin.list_topics(timeout=10).topics)
    topic.create()
    topic.send(("a", "new"), partition=0)
    async with topic.reading(second):
        await until(lambda: second.values == ["new"])


async def test_what_a_transaction_leaves_behind_is_committed_and_no_lag(topic: Topic) -> None:
    """Control records hold an offset each: without theirs, retention would seem to lose them."""
    producer = Producer({"bootstrap.servers": topic.servers, "transactional.id": str(uuid.uuid4())})
    producer.init_transactions(20)
    for value, good in (("1", True), ("aborted", False), ("2", True), ("aborted", False)):
        producer.begin_transaction()
        producer.produce(topic.name, value.encode(), "a", 0)
        producer.flush(10)
        (producer.commit_transaction if good else producer.abort_transaction)(20)
    intake = Intake()
    async with topic.reading(intake):
        await until(lambda: intake.values == ["1", "2"])
        await until(lambda: topic.committed() == 8)


async def test_a_second_member_gets_its_share_and_nothing_comes_twice(topic: Topic) -> None:
    slow: Behave = lambda *_: asyncio.sleep(0.005)  # noqa: E731 - shorter than a function
    one, two = Intake(slow), Intake(slow)
    sent = 0

    async def send_until(holds: Callable[[], bool]) -> None:
        nonlocal sent
        async with asyncio.timeout(60):
            while not holds():
                topic.send(*[(str(n), str(n)) for n in range(sent, sent + 20)])
                sent += 20
                await asyncio.sleep(0.02)

    async with topic.reading(one):
        await send_until(lambda: bool(one.done))
        async with topic.reading(two):
            await send_until(lambda: bool(two.done))
        await send_until(lambda: len(one.done) + len(two.done) >= 500)
        await until(lambda: len(one.done) + len(two.done) >= sent)

    assert sorted(map(int, one.values + two.values)) == list(range(sent))


async def test_a_record_without_key_and_value_becomes_a_dead_letter(topic: Topic) -> None:
    async def refuse(record: Record, _: int) -> None:
        if record.value is None:
            raise RejectedRecordError("it is empty")

    producer = Producer({"bootstrap.servers": topic.servers})
    producer.produce(topic.name, None, None, partition=0)
    assert producer.flush(30) == 0
    topic.send((None, "after"), partition=0)
    intake = Intake(refuse)
    async with topic.reading(intake):
        await until(lambda: intake.values == ["after"])
    (dead,) = read_topic(topic.servers, topic.dead)
    assert dead.header["dead_letter_reason"] == "it is empty"


async def test_a_rejected_record_larger_than_we_may_write_holds_up_nobody(topic: Topic) -> None:
    """What is written compressed may be large: where it lies is kept, and its value is not."""

    async def refuse(record: Record, _: int) -> None:
        if len(record.value or b"") > 100:
            raise RejectedRecordError("no such thing")

    producer = Producer(
        {"bootstrap.servers": topic.servers, "compression.type": "gzip",
         "message.max.bytes": 10_000_000}
    )  # fmt: skip
    producer.produce(topic.name, b"0" * 5_000_000, b"a", partition=0)
    assert producer.flush(30) == 0
    topic.send(("a", "after"), partition=0)
    intake = Intake(refuse)
    async with topic.reading(intake):
        await until(lambda: intake.values == ["after"])
    (dead,) = read_topic(topic.servers, topic.dead)
    assert (dead.key, dead.value) == ("a", b"")
    assert dead.header["dead_letter_left_out"] == "5000000"
    assert dead.header["dead_letter_original_offset"] == "0"


async def test_a_topic_that_is_missing_is_waited_for_and_not_made(kafka: str) -> None:
    topic, intake = Topic(kafka), Intake()
    async with topic.reading(intake):
        await asyncio.sleep(0.5)
        there = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
        assert topic.name not in there
        topic.create()
        topic.send(("a", "1"))
        await until(lambda: intake.values == ["1"])


async def test_a_broker_that_is_away_is_waited_for_and_does_not_hold_up_the_end() -> None:
    settings = KafkaSettings("127.0.0.1:9", connect_timeout=0.3)
    dead = KafkaDeadLetters(settings, "dead", "group")
    consumer = KafkaConsumer(settings, ["t"], "group", Intake(), dead, SilentTelemetry(), OPTIONS)
    stop = asyncio.Event()
    task = asyncio.create_task(consumer.run(stop))
    await asyncio.sleep(0.5)
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_a_group_that_takes_long_to_divide_does_not_hold_up_the_end(topic: Topic) -> None:
    """Another member does not answer, and the group waits for it."""
    silent = Consumer(
        {"bootstrap.servers": topic.servers, "group.id": topic.group, "session.timeout.ms": 45_000,
         "max.poll.interval.ms": 60_000, "auto.offset.reset": "earliest"}
    )  # fmt: skip
    silent.subscribe([topic.name])
    topic.send(("a", "1"))
    assert silent.poll(20) is not None
    try:
        intake = Intake()
        async with topic.reading(intake):
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 8
        assert intake.began == []
    finally:
        silent.close()


def test_a_drain_that_outlasts_the_rebalance_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="keep it 5 s shorter"):
        ConsumerSettings(drain_timeout=28)
