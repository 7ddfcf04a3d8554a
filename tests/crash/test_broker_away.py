"""A broker that is away under load: sagas go on as before, the relay stays small, all follows."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.flows import three_steps
from orchestrator import Orchestrator, Order, Status
from orchestrator.bootstrap import work
from tests.chaos.kafka import Broker
from tests.crash.feed_writer import all_published
from tests.crash.relay_process import Told
from tests.crash.relay_storm import disorder
from tests.kafka_reader import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.crash, pytest.mark.slow]

AWAY = float(os.environ.get("BROKER_AWAY_SECONDS", "8"))
RATE = 40
"""Sagas a second: as many as are started."""
ROOM = 20 * 1024 * 1024
"""Bytes by which a process may grow by itself."""


@asynccontextmanager
async def relaying(dsn: str, servers: str, topic: str, log: Path) -> AsyncIterator[Process]:
    told = json.dumps(asdict(Told(shards=4, page=500)))
    command = (sys.executable, "-m", "tests.crash.relay_process", dsn, servers, topic, told)
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def load(orchestrator: Orchestrator, seconds: float) -> tuple[int, int]:
    """Start sagas at the pace; how many that were, and how many have ended when it is over."""
    before = await ended(orchestrator)
    until, started = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        await orchestrator.start_many(three_steps, [Order(n) for n in range(RATE // 10)])
        started += RATE // 10
        await asyncio.sleep(0.1)
    return started, await ended(orchestrator) - before


async def ended(orchestrator: Orchestrator) -> int:
    counts = await orchestrator.store.reads.counts()
    return counts.get((three_steps.name, Status.COMPLETED), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.timeout(120 + 3 * AWAY)
async def test_while_the_broker_is_away_sagas_go_on_and_all_their_events_follow(
    dsn: str, own_kafka: Broker, tmp_path: Path
) -> None:
    topic = f"test-{uuid.uuid4()}"
    async with (
        work([three_steps], database_url=dsn) as orchestrator,
        relaying(dsn, own_kafka.servers, topic, tmp_path / "relay.log") as relay,
    ):
        await load(orchestrator, 3)
        began, done = await load(orchestrator, AWAY / 4)
        await all_published(orchestrator.store)
        small = memory(relay.pid)
        await asyncio.to_thread(own_kafka.end, kill=True)
        began_away, done_away = await load(orchestrator, AWAY)
        large = memory(relay.pid)
        backlog = await orchestrator.store.feed.lag("events")
        await asyncio.to_thread(own_kafka.launch)
        await asyncio.to_thread(own_kafka.await_answer)
        since = time.monotonic()
        await all_published(orchestrator.store)
        drained = time.monotonic() - since

    print(f"\n{done}/{began} ended before, {done_away}/{began_away} while the broker was away;")
    print(f"{small} -> {large} bytes; a backlog of {backlog} was published in {drained:.1f} s")
    assert done_away / began_away >= 0.9 * min(done / began, 1)
    assert backlog >= 4 * done_away
    assert large - small < ROOM
    assert relay.returncode == 0
    records = read_topic(own_kafka.servers, topic)
    sagas = {record.key for record in records}
    assert disorder([(r.key, r.version) for r in records], sagas, 5) == {}
    assert len(sagas) >= began + began_away
