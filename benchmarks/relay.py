"""How fast the relay is, beside a bare transactional producer, and how soon readers see an event."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from rich.table import Table

from benchmarks.flows import three_steps
from benchmarks.workloads import throughput, working
from orchestrator import Status
from orchestrator.adapters.kafka import KafkaSettings, ensure_topic, open_transactional
from orchestrator.adapters.kafka.records import headers_of, value_of
from orchestrator.adapters.postgres.event_store import PostgresEventStore
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain.shards import Shard
from orchestrator.ports import Append, FeedEvent, Store
from orchestrator.runtime.relay import Relay
from orchestrator.runtime.relay_settings import RelaySettings
from tests.brokers import open_broker

EVENTS_EACH = 5
IDLE = 100
"""Sagas that are started one at a time, for the latency when nothing else goes on."""


async def measure(dsn: str, sagas: int, slots: int) -> dict[str, float]:
    """Rates in events a second, times in milliseconds from recorded to read."""
    with open_broker() as broker:
        alone = await throughput(dsn, three_steps, sagas, Status.COMPLETED, slots)
        figures = {"relay_w1_alone": alone * EVENTS_EACH}
        figures |= await _limit(dsn, broker.servers)
        figures |= await _drain(dsn, broker.servers)
        async with _relaying(dsn, broker.servers) as settings:
            figures |= await _under_load(dsn, settings, sagas, slots)
            return figures | await _idle(dsn, settings)


async def _limit(dsn: str, servers: str) -> dict[str, float]:
    """What aiokafka does with records that are made already, in transactions of the same size."""
    async with open_store(dsn) as store:
        events = (await store.feed.read(0, 500)).events
    settings = KafkaSettings(servers, f"bench-{uuid.uuid4()}")
    await ensure_topic(settings)
    shards, until = RelaySettings().shards, time.perf_counter() + 5
    sent = await asyncio.gather(*(_send(settings, n, events, until) for n in range(shards)))
    return {"relay_limit": sum(sent) / 5}


async def _send(
    settings: KafkaSettings, number: int, events: tuple[FeedEvent, ...], until: float
) -> int:
    """Transactions of one producer; how many records it sent."""
    made = [(e.row.saga_id.encode(), value_of(e), headers_of(e)) for e in events]
    sent = 0
    producer: Any = AIOKafkaProducer(
        **settings.client(), transactional_id=f"{settings.topic}-{number}", max_batch_size=131_072
    )
    async with producer:
        while time.perf_counter() < until:
            async with producer.transaction():
                batches = []
                for partition in range(settings.partitions):
                    batch = producer.create_batch()
                    for key, value, headers in made[partition :: settings.partitions]:
                        batch.append(timestamp=None, key=key, value=value, headers=headers)
                    batches.append(
                        await producer.send_batch(batch, settings.topic, partition=partition)
                    )
                await asyncio.gather(*batches)
            sent += len(made)
    return sent


class _Counting(SilentTelemetry):
    def __init__(self) -> None:
        self.published = 0
        self.first = asyncio.Event()

    def count(self, name: str, by: int = 1) -> None:
        if name == "published_events":
            self.published += by
            self.first.set()


async def _drain(dsn: str, servers: str) -> dict[str, float]:
    """The whole log so far, from the beginning, with nothing else going on."""
    settings, told = KafkaSettings(servers, f"bench-{uuid.uuid4()}"), _Counting()
    opened = lambda shard: open_transactional(settings, shard)  # noqa: E731 - as wired elsewhere
    await (await opened(Shard(0, RelaySettings().shards))).close()  # the topics are there
    async with open_store(dsn) as store:
        relay = Relay(store.feed, store.hints, opened, told, name=settings.topic)
        async with relay:
            await told.first.wait()
            began, before = time.perf_counter(), told.published
            await _published(store, settings.topic)
            return {"relay_drain": (told.published - before) / (time.perf_counter() - began)}


async def _under_load(
    dsn: str, settings: KafkaSettings, sagas: int, slots: int
) -> dict[str, float]:
    """W1 beside a relay process and a reader process, on the same cores."""
    reader = await _reader(settings, sagas * EVENTS_EACH)
    with _commits() as commits:
        rate = await throughput(dsn, three_steps, sagas, Status.COMPLETED, slots)
    worked = time.perf_counter()
    times = await _read(reader)
    behind, cuts = time.perf_counter() - worked, statistics.quantiles(commits, n=100)
    return {
        "relay_w1": rate * EVENTS_EACH,
        "relay_behind_s": behind,
        "relay_load_p50_ms": times["p50"],
        "relay_load_p99_ms": times["p99"],
        "relay_commit_p50_ms": cuts[49],
        "relay_commit_p99_ms": cuts[98],
    }


@contextmanager
def _commits() -> Iterator[list[float]]:
    """The milliseconds from when this process recorded each event to when it was committed."""
    times: list[float] = []
    append = PostgresEventStore.append

    async def timed(self: PostgresEventStore, batch: Sequence[Append]) -> Mapping[str, int]:
        answer = await append(self, batch)
        now = time.time()
        rows = (row for each in batch for row in each.events)
        times.extend((now - row.recorded_at.timestamp()) * 1000 for row in rows)
        return answer

    PostgresEventStore.append = timed  # type: ignore[method-assign]  # only while it is measured
    try:
        yield times
    finally:
        PostgresEventStore.append = append  # type: ignore[method-assign]


async def _idle(dsn: str, settings: KafkaSettings) -> dict[str, float]:
    """One saga after the other, with pauses."""
    reader = await _reader(settings, IDLE * EVENTS_EACH)
    async with working(dsn, [three_steps], 100) as orchestrator:
        for number in range(IDLE):
            await (await orchestrator.start(three_steps, number)).result(within=30)
            await asyncio.sleep(0.05)
        times = await _read(reader)
    return {"relay_idle_p50_ms": times["p50"], "relay_idle_p99_ms": times["p99"]}


@asynccontextmanager
async def _relaying(dsn: str, servers: str) -> AsyncIterator[KafkaSettings]:
    """A relay process, at the end of the log."""
    settings = KafkaSettings(servers, f"bench-{uuid.uuid4()}")
    relay = await _side("relay", dsn, servers, settings.topic)
    try:
        async with open_store(dsn) as store:
            await _published(store, "events")
        yield settings
    finally:
        relay.terminate()
        await relay.wait()


async def _published(store: Store, relay: str) -> None:
    async with asyncio.timeout(300):
        while True:
            if not await store.feed.lag(relay):
                return
            await asyncio.sleep(0.02)


async def _reader(settings: KafkaSettings, events: int) -> Process:
    reader = await _side("reader", settings.bootstrap_servers, settings.topic, str(events))
    assert reader.stdout is not None
    assert await reader.stdout.readline() == b"ready\n"
    return reader


async def _side(*what: str) -> Process:
    command = (sys.executable, "-m", "benchmarks.relay_sides", *what)
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE)


async def _read(reader: Process) -> Mapping[str, float]:
    out, _ = await asyncio.wait_for(reader.communicate(), 300)
    assert reader.returncode == 0
    times: Mapping[str, float] = json.loads(out)
    return times


def table(figures: Mapping[str, float]) -> Table:
    """The figures, each beside what bounds it."""
    limit, drain = figures["relay_limit"], figures["relay_drain"]
    alone, beside = figures["relay_w1_alone"], figures["relay_w1"]
    shown = Table("figure", "measured", "beside", title="relay, exactly once, all on one machine")
    shown.add_row("limit: bare transactional producers, records/s", f"{limit:,.0f}", "")
    shown.add_row("backlog, events/s", f"{drain:,.0f}", f"{drain / limit:.0%} of the limit")
    shown.add_row(
        "W1 without a relay, events/s", f"{alone:,.0f}", f"{drain / alone:.2f} of it drain"
    )
    shown.add_row(
        "W1 beside relay and reader, events/s", f"{beside:,.0f}",
        f"all read {figures['relay_behind_s']:.2f} s after the last end",
    )  # fmt: skip
    for what, when in (
        ("recorded to committed, load", "commit"), ("recorded to read, load", "load"),
        ("recorded to read, idle", "idle"),
    ):  # fmt: skip
        p50, p99 = figures[f"relay_{when}_p50_ms"], figures[f"relay_{when}_p99_ms"]
        shown.add_row(f"{what}, p50 / p99 ms", f"{p50:.1f} / {p99:.1f}", "")
    return shown
