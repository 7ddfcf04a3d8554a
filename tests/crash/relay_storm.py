"""Relays over a log that grows, while they, the broker and the database are struck down."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from orchestrator.adapters.postgres.store import open_store
from tests.chaos.kafka import Broker
from tests.crash.feed_writer import Writer, all_published
from tests.crash.relay_process import SETTINGS, Told
from tests.servers import DurableServer

RELAYS = 2


@dataclass(frozen=True)
class Storm:
    """How many sagas, and how many of each fault."""

    sagas: int
    kills: int
    stops: int
    brokers: int
    databases: int

    def faults(self, seed: int) -> list[str]:
        """All faults, shuffled."""
        kinds = {"kill": self.kills, "stop": self.stops, "broker": self.brokers}
        every = list(Counter(kinds | {"database": self.databases}).elements())
        random.Random(seed).shuffle(every)
        return every


SMALL = Storm(sagas=400, kills=3, stops=1, brokers=1, databases=1)
FULL = Storm(sagas=20_000, kills=30, stops=10, brokers=5, databases=3)


@dataclass
class Crew:
    """Relay processes; one that is killed is started again."""

    dsn: str
    servers: str
    folder: Path
    told: Told
    topic: str = field(default_factory=lambda: f"test-{uuid.uuid4()}")
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.crash.relay_process", self.dsn, self.servers]
        with (self.folder / "relays.log").open("ab") as log:
            return subprocess.Popen(
                [*command, self.topic, json.dumps(asdict(self.told))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.processes = [self.start() for _ in range(RELAYS)]
        try:
            yield
        finally:
            for process in self.processes:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in self.processes:
                process.wait(30)

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()
        self.processes[number] = self.start()

    async def stop(self) -> None:
        """One that carries shards: past its lease, and on again beside those who took over."""
        process = await self._at_work_now()
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(SETTINGS.ttl + 1.5)
        process.send_signal(signal.SIGCONT)

    async def _at_work_now(self) -> subprocess.Popen[bytes]:
        async with open_store(self.dsn) as store, asyncio.timeout(30):
            while True:
                owners = {standing.owner for standing in await store.feed.relays()}
                for process in self.processes:
                    if f"process {process.pid}" in owners:
                        return process
                await asyncio.sleep(0.02)

    def said(self, what: str) -> int:
        return (self.folder / "relays.log").read_text(errors="replace").count(what)


@dataclass
class Weather:
    """What strikes, and what it strikes at."""

    crew: Crew
    broker: Broker
    database: DurableServer
    chance: random.Random
    fired: Counter[str] = field(default_factory=Counter)

    async def strike(self, kind: str) -> None:
        number = self.chance.randrange(RELAYS)
        match kind:
            case "kill":
                await asyncio.to_thread(self.crew.kill, number)
            case "stop":
                await self.crew.stop()
            case "broker":
                hard = self.chance.random() < 0.5
                await asyncio.to_thread(self.broker.end, kill=hard)
                await asyncio.to_thread(self.broker.launch)
                await asyncio.to_thread(self.broker.await_answer)
            case "database":
                await asyncio.to_thread(self.database.crash)
                await asyncio.to_thread(self.database.start)
        self.fired[kind] += 1


async def blow(storm: Storm, weather: Weather, seed: int) -> dict[str, bytes]:
    """Write all sagas, a part of them around each fault; what was written, once it is published."""
    faults = storm.faults(seed)
    sizes = [storm.sagas // len(faults)] * len(faults)
    sizes[0] += storm.sagas - sum(sizes)
    written: dict[str, bytes] = {}
    for kind, sagas in zip(faults, sizes, strict=True):
        before = sagas if kind == "database" else sagas // 2
        async with _writing(weather.database.dsn, written) as writer:
            await writer.write(before)
        await asyncio.sleep(weather.chance.random() * 0.1)
        struck = asyncio.create_task(weather.strike(kind))
        if before < sagas:
            async with _writing(weather.database.dsn, written) as writer:
                await writer.write(sagas - before)
        await struck
    async with open_store(weather.database.dsn) as store:
        await all_published(store, within=60 + storm.sagas / 50)
    return written


@asynccontextmanager
async def _writing(dsn: str, written: dict[str, bytes]) -> AsyncIterator[Writer]:
    async with open_store(dsn) as store:
        writer = Writer(store, hashes=written)
        await store.fleet.join(writer.owner, "test", timedelta(minutes=5))
        yield writer


# ---------------------------------------------------------------------------- readers


Seen = tuple[str, int]
"""A saga and the version of one of its events."""


async def read_with_aiokafka(servers: str, topic: str) -> list[Seen]:
    """All committed records, each partition in its order."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        parts = [TopicPartition(topic, number) for number in range(6)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        seen: list[Seen] = []
        async with asyncio.timeout(120):
            while not all([await consumer.position(part) >= ends[part] for part in parts]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    seen += [(r.key.decode(), int(dict(r.headers)["version"])) for r in records]
    finally:
        await consumer.stop()
    return seen


def disorder(seen: Iterable[Seen], sagas: Iterable[str], versions: int) -> dict[str, list[int]]:
    """The sagas whose events were not seen once each in order of version, with what was seen."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for saga, version in seen:
        found[saga].append(version)
    right = list(range(1, versions + 1))
    return {saga: found[saga] for saga in {*sagas, *found} if found[saga] != right}


def firsts(seen: Iterable[Seen]) -> list[Seen]:
    """First occurrences, in order."""
    return list(dict.fromkeys(seen))
