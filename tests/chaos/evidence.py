"""What a chaos run left behind: the log, the rows, the ledger, the records, the calls, the faults.

Reads SQL, Kafka and files of JSON lines. Knows nothing of the product's code.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

ENDED = ("completed", "compensated", "terminated")
TERMINAL = {
    "SagaCompleted": "completed",
    "SagaCompensated": "compensated",
    "SagaTerminated": "terminated",
}


@dataclass(frozen=True)
class Event:
    """One row of the log; `at` in seconds since 1970, *data* and *meta* as they were written."""

    saga: str
    version: int
    position: int
    type: str
    node: str
    attempt: int
    epoch: int
    data: str
    meta: str
    at: datetime
    hash: bytes

    @cached_property
    def fact(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data)
        return found

    @property
    def seconds(self) -> float:
        return self.at.timestamp()


@dataclass(frozen=True)
class Row:
    """Where one instance stands."""

    id: str
    name: str
    key: str | None
    status: str
    head: int
    epoch: int
    owner: str | None
    due_at: datetime | None
    inbox_seq: int
    parent: str | None
    input: dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One row of the inbox."""

    saga: str
    seq: int
    kind: str
    dedupe: str


@dataclass(frozen=True)
class Call:
    """One call that the ledger heard."""

    key: str
    ref: str
    saga: str
    op: str
    kind: str
    pid: int
    received: float
    mode: str
    answer: str | None
    struck: int
    answered: float | None


@dataclass(frozen=True)
class Application:
    """One effect in the books: `do`, `undo`, or `barred` for what is not let in any more."""

    key: str
    ref: str
    saga: str
    op: str
    kind: str
    source: str
    target: str
    cents: int
    pid: int
    applied: float
    receipt: str
    effective: int


@dataclass(frozen=True)
class Record:
    """One record in Kafka."""

    partition: int
    offset: int
    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def version(self) -> int:
        return int(dict(self.headers)["version"])


Told = dict[str, Any]


@dataclass
class Evidence:
    """All of it."""

    about: Told = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    applications: list[Application] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    history: list[Told] = field(default_factory=list)
    nemesis: list[Told] = field(default_factory=list)
    logs: list[Told] = field(default_factory=list)
    partitions: int = 6

    @cached_property
    def by_saga(self) -> dict[str, list[Event]]:
        """Events of each instance by version."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in sorted(self.events, key=lambda e: (e.saga, e.version)):
            found[event.saga].append(event)
        return dict(found)

    @cached_property
    def row(self) -> dict[str, Row]:
        return {row.id: row for row in self.rows}

    @cached_property
    def applied(self) -> dict[str, Application]:
        return {application.key: application for application in self.applications}

    @cached_property
    def calls_by_key(self) -> dict[str, list[Call]]:
        found: dict[str, list[Call]] = defaultdict(list)
        for call in sorted(self.calls, key=lambda c: c.received):
            found[call.key].append(call)
        return dict(found)

    def told(self, what: str) -> list[Told]:
        """What the nemesis wrote of one kind."""
        return [one for one in self.nemesis if one.get("what") == what]

    def asked(self, op: str) -> list[Told]:
        """Calls of clients of one kind."""
        return [one for one in self.history if one.get("op") == op]

    def said(self, part: str) -> int:
        """How many lines of the processes' logs hold these words."""
        return sum(part in str(one.get("message", "")) for one in self.logs)


def load(folder: Path) -> Evidence:
    """Read everything that a run in *folder* left."""
    about = json.loads((folder / "run.json").read_text("utf-8"))
    found = Evidence(about=about)
    with psycopg.connect(about["dsn"], application_name="checker") as connection:
        _read_sql(connection, found)
    _read_ledger(folder / "ledger.sqlite", found)
    found.records, found.partitions = _read_kafka(about["kafka"], about["topic"])
    found.history = list(_lines([folder / "history.jsonl"]))
    found.nemesis = list(_lines([folder / "nemesis.jsonl"]))
    logs = [*sorted(folder.glob("worker*.log")), *sorted(folder.glob("relay*.log"))]
    found.logs = list(_lines(logs))
    return found


def _read_sql(connection: psycopg.Connection[Any], found: Evidence) -> None:
    found.events = [
        Event(*row)
        for row in connection.execute(
            "SELECT saga_id::text, version, position, type, node, attempt, epoch, data::text,"
            " meta::text, recorded_at, hash FROM event ORDER BY saga_id, version"
        )
    ]
    found.rows = [
        Row(*row)
        for row in connection.execute(
            "SELECT s.id::text, s.name, s.key, s.status, s.head, s.epoch, s.owner::text, s.due_at,"
            " s.inbox_seq, s.parent::text, i.input FROM saga s JOIN saga_input i ON i.saga_id = s.id"
        )
    ]
    found.inbox = [
        Message(*row)
        for row in connection.execute(
            "SELECT saga_id::text, seq, kind, dedupe_key FROM inbox ORDER BY saga_id, seq"
        )
    ]


def _read_ledger(path: Path, found: Evidence) -> None:
    books = sqlite3.connect(path)
    columns = "key, ref, saga, op, kind, pid, received, mode, answer, struck, answered"
    found.calls = [Call(*row) for row in books.execute(f"SELECT {columns} FROM call ORDER BY n")]
    found.applications = [Application(*row) for row in books.execute("SELECT * FROM application")]
    books.close()


def _read_kafka(servers: str, topic: str) -> tuple[list[Record], int]:
    """Every record from the beginning to the end of each partition, as `read_committed` sees it."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers, "group.id": "checker", "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": False, "log_level": 0,
        }
    )  # fmt: skip
    records: list[Record] = []
    try:
        metadata = consumer.list_topics(topic, timeout=20).topics[topic]
        parts = [TopicPartition(topic, number, 0) for number in metadata.partitions]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=20)[1] for p in parts}
        consumer.assign(parts)
        limit = time.monotonic() + 60
        while any(p.offset < ends[p.partition] for p in consumer.position(parts)):
            for message in consumer.consume(500, timeout=0.5):
                assert message.error() is None, message.error()
                records.append(_record(message))
            assert time.monotonic() < limit, f"the topic could not be read: {ends}"
    finally:
        consumer.close()
    return records, len(ends)


def _record(message: Any) -> Record:
    headers = tuple((name, bytes(value)) for name, value in message.headers() or ())
    return Record(
        message.partition(), message.offset(), message.key().decode(), message.value(), headers
    )


def _lines(paths: Iterable[Path]) -> Iterable[Told]:
    """JSON lines; what is none (a traceback, a line cut off by a kill) is one with a message."""
    for path in paths:
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                told = {"message": line}
            yield {**told, "file": path.name} if isinstance(told, dict) else {"message": line}
