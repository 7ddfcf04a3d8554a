"""`saga consume` killed and rebalanced: each record counts once, none is lost, poison is kept."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.faces.cli.prompt import environment
from tests.kafka_reader import read_topic
from tests.servers import DurableServer

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

RECORDS = int(os.environ.get("INBOUND_RECORDS", "500"))
POISON_EVERY = 50
MEMBERS = 3
GROUP = "saga"


@dataclass
class Field:
    """A database and topics, and the processes that carry records from one to the other."""

    dsn: str
    servers: str
    logs: Path
    topic: str = field(default_factory=lambda: f"orders-{uuid.uuid4()}")
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    log_of: dict[int, Path] = field(default_factory=dict)
    poison: set[tuple[str, int, int]] = field(default_factory=set)

    @property
    def topics(self) -> list[str]:
        return [self.topic, f"{self.topic}.payments", f"{self.topic}.unkeyed"]

    @property
    def dead(self) -> str:
        return f"{self.topic}.dead"

    def create(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers})
        for made in admin.create_topics([NewTopic(one, 6) for one in self.topics]).values():
            made.result(30)

    def start(self) -> subprocess.Popen[bytes]:
        there = environment(
            SAGA_DATABASE_URL=self.dsn, SAGA_SAGAS="tests.crash.arrivals", TEST_TOPIC=self.topic,
            SAGA_KAFKA_BOOTSTRAP_SERVERS=self.servers, SAGA_KAFKA_GROUP=GROUP + self.topic,
            SAGA_KAFKA_DEAD_LETTERS=self.dead, SAGA_KAFKA_SESSION_TIMEOUT="1.5",
        )  # fmt: skip
        log = self.logs / f"consumer-{len(list(self.logs.iterdir()))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "consume"],
                env=there, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self.running.append(process)
        self.log_of[process.pid] = log
        return process

    def reading(self) -> list[subprocess.Popen[bytes]]:
        """The processes that the group gave a part to."""
        return [one for one in self.running if ": reads " in self.log_of[one.pid].read_text()]

    def end(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send a signal and see the process gone: at once, or in good order."""
        process.send_signal(number)
        code = process.wait(40)
        assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0), self.told()
        self.running.remove(process)

    def told(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.logs.iterdir()))

    def lag(self) -> int:
        """Records that the group has not committed."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": GROUP + self.topic})
        try:
            places = [TopicPartition(one, n) for one in self.topics for n in range(6)]
            left = 0
            for place in consumer.committed(places, timeout=20):
                low, high = consumer.get_watermark_offsets(place, timeout=20)
                left += high - max(place.offset, low)
            return left
        finally:
            consumer.close()


@pytest.fixture
def place(dsn: str, kafka: str, tmp_path: Path) -> Iterator[Field]:
    with opened(dsn, kafka, tmp_path) as found:
        yield found


@contextmanager
def opened(dsn: str, kafka: str, folder: Path) -> Iterator[Field]:
    found = Field(dsn, kafka, folder)
    found.create()
    try:
        yield found
    finally:
        for process in found.running:
            process.kill()
            process.wait()


class Sender:
    """Sends orders, their payments, orders without a key, and poison; remembers where poison lies."""

    def __init__(self, place: Field) -> None:
        self._place = place
        self._producer = Producer({"bootstrap.servers": place.servers, "linger.ms": 2})

    def send(self, numbers: range) -> None:
        for n in numbers:
            order = json.dumps({"order_id": f"o-{n}", "cents": n}).encode()
            # The payment first: its order is not there yet.
            self._producer.produce(f"{self._place.topic}.payments", order, f"o-{n}")
            self._producer.produce(self._place.topic, order, f"o-{n}")
            self._producer.produce(f"{self._place.topic}.unkeyed", order, None)
            if n % POISON_EVERY == 0:
                bad = b"{" if n % (2 * POISON_EVERY) else b'{"order_id": 1}'
                self._producer.produce(self._place.topic, bad, f"o-{n}", on_delivery=self._keep)
        assert self._producer.flush(60) == 0

    def _keep(self, error: object, message: object) -> None:
        assert error is None
        self._place.poison.add((message.topic(), message.partition(), message.offset()))  # type: ignore[attr-defined]  # has no type


async def counts(dsn: str) -> dict[str, int]:
    connection = await asyncpg.connect(dsn)
    try:
        return {
            name: await connection.fetchval(query)
            for name, query in {
                "keyed": "SELECT count(*) FROM saga WHERE key LIKE 'o-%'",
                "unkeyed": "SELECT count(*) FROM saga WHERE key NOT LIKE 'o-%'",
                "orders without a key": "SELECT count(DISTINCT input->>'order_id') FROM saga "
                "JOIN saga_input ON saga_id = id WHERE key NOT LIKE 'o-%'",
                "signals": "SELECT count(*) FROM inbox",
                "signalled": "SELECT count(DISTINCT i.saga_id) FROM inbox i JOIN saga s "
                "ON s.id = i.saga_id WHERE i.payload->>'data' LIKE '%\"' || s.key || '\"%'",
            }.items()
        }
    finally:
        await connection.close()


def caught_up(place: Field, within: float) -> None:
    limit = time.monotonic() + within
    while (left := place.lag()) > 0:
        assert time.monotonic() < limit, f"{left} records are left\n{place.told()}"
        assert all(one.poll() is None for one in place.running), place.told()
        time.sleep(0.1)


async def assert_each_counted_once(place: Field, records: int) -> None:
    assert await counts(place.dsn) == {
        "keyed": records, "unkeyed": records, "orders without a key": records,
        "signals": records, "signalled": records,
    }  # fmt: skip
    dead = read_topic(place.servers, place.dead) if place.poison else []
    found = {
        (
            one.header["dead_letter_original_topic"],
            int(one.header["dead_letter_original_partition"]),
            int(one.header["dead_letter_original_offset"]),
        )
        for one in dead
    }
    assert found == place.poison


@pytest.mark.timeout(900)
async def test_consumers_killed_and_rebalanced_start_each_saga_once_and_lose_none(
    place: Field,
) -> None:
    chance = random.Random(7)
    sender, batch = Sender(place), max(1, RECORDS // 50)
    for _ in range(MEMBERS):
        place.start()
    kills = 0
    for turn, first in enumerate(range(0, RECORDS, batch)):
        sender.send(range(first, min(first + batch, RECORDS)))
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        if turn % 8 == 7:
            number = signal.SIGKILL if kills % 3 != 2 else signal.SIGTERM
            until(lambda: bool(place.reading()))
            place.end(chance.choice(place.reading()), number)
            kills += 1
            place.start()
    caught_up(place, 120 + RECORDS / 20)
    until(lambda: len(place.reading()) == MEMBERS)
    for process in list(place.running):
        place.end(process, signal.SIGTERM)

    assert kills >= 5
    await assert_each_counted_once(place, RECORDS)


@pytest.mark.timeout(240)
async def test_a_database_that_is_away_is_waited_for_and_no_record_becomes_a_dead_letter(
    durable_pg: DurableServer, kafka: str, tmp_path: Path
) -> None:
    with opened(durable_pg.dsn, kafka, tmp_path) as place:
        sender = Sender(place)
        place.start()
        sender.send(range(1, 40))
        caught_up(place, 60)
        durable_pg.crash()
        sender.send(range(101, 140))
        until(lambda: "waits at record" in place.told() or "waits for the database" in place.told())
        durable_pg.start()
        caught_up(place, 60)
        for process in list(place.running):
            place.end(process, signal.SIGTERM)

        await assert_each_counted_once(place, 78)
        assert (
            place.dead
            not in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
        )


def until(holds: Callable[[], bool], within: float = 30) -> None:
    limit = time.monotonic() + within
    for _ in itertools.count():
        if holds():
            return
        assert time.monotonic() < limit
        time.sleep(0.05)
