"""Relays that are killed or frozen between a send and its checkpoint, as real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestrator.adapters.postgres.store import open_store
from tests.crash.feed_writer import Writer, all_published, assert_complete_and_in_order, repeats
from tests.crash.relay_process import SETTINGS
from tests.kafka_reader import Read, read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.crash]


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
    transactions: bool
    topic: str = field(default_factory=lambda: f"test-{uuid.uuid4()}")

    @asynccontextmanager
    async def relay(self, hold: int = 0) -> AsyncIterator[Process]:
        """A relay process; ended in good order when it still runs at the end."""
        command = (sys.executable, "-m", "tests.crash.relay_process")
        told = json.dumps({"hold": hold, "transactions": self.transactions})
        where = (self.dsn, self.servers, self.topic, told)
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

    @property
    def repeated(self) -> int:
        """Records that come again when a relay dies between a send and its checkpoint."""
        return 0 if self.transactions else SETTINGS.page


@pytest.fixture(params=[True, False], ids=["transactions", "without"])
def place(dsn: str, kafka: str, request: pytest.FixtureRequest) -> Place:
    return Place(dsn, kafka, transactions=request.param)


async def says(process: Process, what: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).decode().strip() == what


async def kill(process: Process) -> None:
    process.kill()
    assert await process.wait() == -signal.SIGKILL


# ---------------------------------------------------------------------------- the tests


async def test_relays_killed_between_send_and_checkpoint_repeat_their_page_at_most_and_lose_nothing(
    writer: Writer, place: Place
) -> None:
    await writer.write(sagas=20)
    kills = (1, 2, 1, 3)
    for hold in kills:
        async with place.relay(hold) as relay:
            await says(relay, "holding")
            await kill(relay)
    async with place.relay():
        await all_published(writer.store)

    records = place.read()
    assert_complete_and_in_order(records, writer.hashes)
    assert repeats(records) == len(kills) * place.repeated


async def test_a_standby_goes_on_where_the_killed_relay_had_its_checkpoint(
    writer: Writer, place: Place
) -> None:
    await writer.write(sagas=10)
    async with place.relay(hold=2) as active:
        await says(active, "holding")
        async with place.relay():
            await writer.write(sagas=10)
            await kill(active)
            await all_published(writer.store)

    records = place.read()
    assert_complete_and_in_order(records, writer.hashes)
    assert repeats(records) == place.repeated


async def test_a_frozen_relay_that_wakes_after_its_successor_moved_on_is_fenced(
    writer: Writer, place: Place
) -> None:
    await writer.write(sagas=10)
    async with place.relay(hold=2) as frozen:
        await says(frozen, "holding")
        frozen.send_signal(signal.SIGSTOP)
        async with place.relay():
            await all_published(writer.store)
            assert frozen.stdin is not None
            frozen.stdin.write(b"\n")
            frozen.send_signal(signal.SIGCONT)
            await says(frozen, "fenced")
            await writer.write(sagas=10)
            await all_published(writer.store)

    records = place.read()
    assert_complete_and_in_order(records, writer.hashes)
    assert repeats(records) == place.repeated
