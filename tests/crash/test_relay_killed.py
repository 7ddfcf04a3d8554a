"""Relays that are killed or frozen between a send and its checkpoint, as real processes."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestrator.adapters.postgres.store import open_store
from orchestrator.domain.chain import genesis, link
from orchestrator.domain.events import Json, Status
from orchestrator.ports import Append, Claim, EventRow, StartRequest, Store
from orchestrator.runtime.service import new_id
from tests.crash.relay_process import SETTINGS
from tests.kafka_reader import Read, read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

VERSIONS = 10


# ---------------------------------------------------------------------------- the log


@dataclass
class Writer:
    """Writes sagas with plain events into the store, and knows what it wrote."""

    store: Store
    owner: str = field(default_factory=lambda: str(uuid.uuid4()))
    hashes: dict[str, bytes] = field(default_factory=dict)

    async def write(self, sagas: int) -> None:
        names = [new_id() for _ in range(sagas)]
        await self.store.requests.start([_request(saga_id) for saga_id in names])
        claims = await self.store.queue.claim(self.owner, sagas, [("order", 1)])
        assert {claim.saga_id for claim in claims} == set(names)
        for version in range(1, VERSIONS + 1):
            rows = [self._append(claim, version) for claim in claims]
            assert len(await self.store.events.append(rows)) == sagas

    def _append(self, claim: Claim, version: int) -> Append:
        last = version == VERSIONS
        return Append(
            saga_id=claim.saga_id,
            owner=self.owner,
            epoch=claim.epoch,
            head=version - 1,
            events=(self._row(claim, version),),
            status=Status.COMPLETED if last else Status.RUNNING,
            due_at=None,
            owner_after=None if last else self.owner,
            inbox_seen=claim.inbox_seq,
            if_inbox=False,
        )

    def _row(self, claim: Claim, version: int) -> EventRow:
        now, saga_id = self.store.clock.now(), claim.saga_id
        fact = ("StepSucceeded", "order/0", version, claim.epoch)
        data, meta = f'{{"output":{version}}}', "{}"
        previous = self.hashes.get(saga_id, genesis(saga_id))
        self.hashes[saga_id] = link(previous, saga_id, version, *fact, now, meta, data)
        return EventRow(saga_id, version, *fact, data, meta, now, self.hashes[saga_id])


def _request(saga_id: str) -> StartRequest:
    return StartRequest(saga_id, "order", 1, "fingerprint", None, Json("{}"), "{}", "request")


@pytest.fixture
async def writer(dsn: str) -> AsyncIterator[Writer]:
    async with open_store(dsn) as store:
        writer = Writer(store)
        await store.fleet.join(writer.owner, "test", timedelta(minutes=5))
        yield writer


# ---------------------------------------------------------------------------- the relays


@dataclass
class Place:
    """The database and the topic that all relays of a test share."""

    dsn: str
    servers: str
    topic: str = field(default_factory=lambda: f"test-{uuid.uuid4()}")

    @asynccontextmanager
    async def relay(self, hold: int = 0) -> AsyncIterator[Process]:
        """A relay process; ended in good order when it still runs at the end."""
        command = (sys.executable, "-m", "tests.crash.relay_process")
        where = (self.dsn, self.servers, self.topic, str(hold))
        process = await asyncio.create_subprocess_exec(*command, *where, stdin=PIPE, stdout=PIPE)
        try:
            yield process
        finally:
            if process.returncode is None:
                assert process.stdin is not None
                process.stdin.close()  # one that holds goes on
                process.send_signal(signal.SIGCONT)
                process.terminate()
            async with asyncio.timeout(20):
                await process.wait()

    def read(self) -> list[Read]:
        return read_topic(self.servers, self.topic)


@pytest.fixture
def place(dsn: str, kafka: str) -> Place:
    return Place(dsn, kafka)


async def says(process: Process, what: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).decode().strip() == what


async def kill(process: Process) -> None:
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def all_published(writer: Writer) -> None:
    async with asyncio.timeout(60):
        while await writer.store.feed.lag("events"):
            await asyncio.sleep(0.05)


def repeats(records: list[Read]) -> int:
    return len(records) - len({(record.key, record.version) for record in records})


def assert_complete_and_in_order(records: list[Read], sagas: Iterable[str]) -> None:
    """First occurrences by version in one partition; repeats the same to the byte; no more."""
    seen: dict[tuple[str, int], Read] = {}
    order: defaultdict[str, list[int]] = defaultdict(list)
    partitions: defaultdict[str, set[int]] = defaultdict(set)
    for record in records:
        partitions[record.key].add(record.partition)
        first = seen.setdefault((record.key, record.version), record)
        assert (record.value, record.headers) == (first.value, first.headers)
        if first is record:
            order[record.key].append(record.version)
    assert order == {saga_id: list(range(1, VERSIONS + 1)) for saga_id in sagas}
    assert all(len(found) == 1 for found in partitions.values())


# ---------------------------------------------------------------------------- the tests


async def test_relays_killed_between_send_and_checkpoint_repeat_their_page_and_lose_nothing(
    writer: Writer, place: Place
) -> None:
    await writer.write(sagas=20)
    kills = (1, 2, 1, 3)
    for hold in kills:
        async with place.relay(hold) as relay:
            await says(relay, "holding")
            await kill(relay)
    async with place.relay():
        await all_published(writer)

    records = place.read()
    assert_complete_and_in_order(records, writer.hashes)
    assert repeats(records) == len(kills) * SETTINGS.page


async def test_a_standby_goes_on_where_the_killed_relay_had_its_checkpoint(
    writer: Writer, place: Place
) -> None:
    await writer.write(sagas=10)
    async with place.relay(hold=2) as active:
        await says(active, "holding")
        async with place.relay():
            await writer.write(sagas=10)
            await kill(active)
            await all_published(writer)

    records = place.read()
    assert_complete_and_in_order(records, writer.hashes)
    assert repeats(records) == SETTINGS.page


async def test_a_frozen_relay_that_wakes_after_its_successor_moved_on_is_fenced(
    writer: Writer, place: Place
) -> None:
    await writer.write(sagas=10)
    async with place.relay(hold=2) as frozen:
        await says(frozen, "holding")
        frozen.send_signal(signal.SIGSTOP)
        async with place.relay():
            await all_published(writer)
            assert frozen.stdin is not None
            frozen.stdin.write(b"\n")
            frozen.send_signal(signal.SIGCONT)
            await says(frozen, "fenced")
            await writer.write(sagas=10)
            await all_published(writer)

    records = place.read()
    assert_complete_and_in_order(records, writer.hashes)
    assert repeats(records) == SETTINGS.page
