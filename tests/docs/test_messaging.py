"""The programs of the pages for Kafka's two other directions are run as they stand there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.messaging import consumer_tables, create_tables
from tests.docs.pages import DOCS, Page
from tests.faces.cli.prompt import environment, process
from tests.kafka_reader import read_topic
from tests.messaging.records import event_record, new_topic
from tests.messaging.records import publish as publish_events

pytestmark = pytest.mark.kafka

INBOUND = Page(DOCS / "inbound.md")
CONSUMING = Page(DOCS / "consuming.md")


def write(page: Page, folder: Path) -> list[Path]:
    """Every program of a page, under the name that its first line says."""
    written = []
    for block in page.blocks("python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (folder / name).write_text(block, "utf-8")
        written.append(folder / name)
    return written


def create(servers: str, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    for topic in set(topics) & set(admin.list_topics(timeout=20).topics):
        admin.delete_topics([topic])[topic].result(30)
    for made in admin.create_topics([NewTopic(topic, 3) for topic in topics]).values():
        made.result(30)


def run(command: list[str], folder: Path, **variables: str) -> str:
    there = environment(**variables)
    there["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{there['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=there, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------- inbound


def test_the_page_for_inbound_does_what_it_says(dsn: str, kafka: str, tmp_path: Path) -> None:
    create(kafka, "shop.orders", "bank.lines")
    write(INBOUND, tmp_path)
    there = {
        "SAGA_DATABASE_URL": dsn, "SAGA_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "SAGA_KAFKA_TOPIC": f"events-{uuid.uuid4()}",
        "SAGA_KAFKA_DEAD_LETTERS": "shop.dead", "SAGA_KAFKA_GROUP": f"shop-{os.getpid()}",
    }  # fmt: skip
    [script] = INBOUND.blocks("sh")
    with (
        process("worker", "--sagas", "shop", cwd=tmp_path, **there) as worker,
        process("consume", "--sagas", "shop", cwd=tmp_path, **there) as consumer,
    ):
        worker.until("works on")
        consumer.until("reads")
        said = run(["sh", "-e", "-c", script], tmp_path, **there)
        consumer.until("is a dead letter")
        assert consumer.end() == 0
        assert worker.end() == 0

    assert "topic shop.orders, 3 partitions" in said
    listed = run([sys.executable, "-m", "orchestrator", "list", "--json"], tmp_path, **there)
    [one] = json.loads(listed)
    assert (one["key"], one["status"], one["correlation_id"]) == ("o-1", "completed", "request-7")
    [dead] = read_topic(kafka, "shop.dead")
    headers = {
        name.strip("`")
        for row in INBOUND.rows("What cannot be taken in")
        for name in row[0].split(", ")
        if name.startswith("`dead_letter")
    }
    assert headers == {name for name in dead.header if name.startswith("dead_letter_")}
    assert "cents: Field required" in dead.header["dead_letter_reason"]


# ---------------------------------------------------------------------------- consuming


@contextmanager
def shipping(folder: Path, **variables: str) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "shipping.py"], cwd=folder, env=environment(**variables)
    ) as service:
        try:
            yield
        finally:
            service.send_signal(signal.SIGTERM)
            try:
                assert service.wait(30) == 0
            finally:
                service.kill()


async def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def until(dsn: str, query: str, holds: Callable[[list[tuple[object, ...]]], bool]) -> None:
    async with asyncio.timeout(40):
        while not holds(await rows(dsn, query)):
            await asyncio.sleep(0.05)


def publish(kafka: str, topic: str, *ends: tuple[str, int, str]) -> None:
    """Events (saga id, version, type), all of one partition."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka})
    for saga_id, version, type_ in ends:
        record = event_record(saga_id, version, type_=type_, data='{"output": "ok"}')
        producer.produce(topic, record.value, saga_id, partition=0, headers=list(record.headers))
    assert producer.flush(20) == 0


async def test_the_page_for_consumers_does_what_it_says(
    dsn: str, kafka: str, tmp_path: Path
) -> None:
    topic = new_topic(kafka)
    program = write(CONSUMING, tmp_path)[0]
    # The default topic belongs to everybody who shares the broker.
    text, made = program.read_text("utf-8"), "EventConsumer(SERVERS, "
    program.write_text(text.replace(made, f"{made}topic={topic!r}, "), "utf-8")
    there = {"SHIPPING_DATABASE_URL": dsn, "SAGA_KAFKA_BOOTSTRAP_SERVERS": kafka}
    await create_tables(dsn)
    await rows(dsn, "CREATE TABLE tour (order_saga text PRIMARY KEY, result text)")
    # One that was met before, at version 1, and whose second event is lost.
    publish_events(kafka, topic, [("gap", 1)], partition=0)
    publish(kafka, topic, ("one", 1, "SagaCompleted"), ("one", 1, "SagaCompleted"))
    publish(kafka, topic, ("lost", 1, "SagaCompensated"), ("lost", 2, "SagaTerminated"))
    with shipping(tmp_path, **there):
        await until(dsn, "SELECT version FROM saga_parked", lambda found: len(found) == 2)
        assert await rows(dsn, "SELECT * FROM tour") == [("one", "ok")]
        publish(kafka, topic, ("gap", 3, "SagaCompleted"))

    await rows(dsn, "CREATE TABLE lost (order_saga text)")
    assert run([sys.executable, "replay.py"], tmp_path, **there) == "lost 2\n"
    assert await rows(dsn, "SELECT * FROM lost") == [("lost",)]
    assert run([sys.executable, "accept_gap.py", "gap", "3"], tmp_path, **there) == "True\n"
    with shipping(tmp_path, **there):
        await until(dsn, "SELECT * FROM tour", lambda found: len(found) == 2)


def test_the_tables_that_are_shown_are_those_that_are_made() -> None:
    [shown] = CONSUMING.blocks("sql")
    assert [part.strip() for part in shown.split(";") if part.strip()] == list(consumer_tables())
