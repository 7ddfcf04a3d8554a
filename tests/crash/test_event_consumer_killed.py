"""Services that book events, killed at random moments: the sums in their tables are right."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from orchestrator.messaging import create_tables
from tests.messaging.records import new_topic, publish

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

SAGAS = int(os.environ.get("INBOUND_RECORDS", "500")) // 10
VERSIONS = 10
MEMBERS = 2


@contextmanager
def service(*where: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.crash.booking_consumer", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(600)
async def test_effects_are_exactly_once_however_often_the_service_is_killed(
    kafka: str, dsn: str
) -> None:
    chance, topic = random.Random(3), new_topic(kafka)
    await create_tables(dsn)
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE ledger (saga text, cents int)")
    await connection.execute("CREATE TABLE account (cents bigint, events int)")
    await connection.execute("INSERT INTO account VALUES (0, 0)")
    sagas = [f"s{n}" for n in range(SAGAS)]
    events = [(saga, version) for version in range(1, VERSIONS + 1) for saga in sagas]
    # A relay that went back to its checkpoint twice: runs of records come again.
    third = len(events) // 3
    published = [*events[: 2 * third], *events[third:], *events[-third:]]
    kills = 0
    running = [service(kafka, topic, dsn) for _ in range(MEMBERS)]
    live = [one.__enter__() for one in running]
    try:
        for part in range(8):
            size = -(-len(published) // 8)
            publish(kafka, topic, published[part * size : (part + 1) * size])
            victim = chance.randrange(MEMBERS)
            assert live[victim].stdout is not None
            await asyncio.to_thread(live[victim].stdout.readline)  # it is up
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            running[victim].__exit__(None, None, None)
            kills += 1
            running[victim] = service(kafka, topic, dsn)
            live[victim] = running[victim].__enter__()
        async with asyncio.timeout(120 + len(events) / 50):
            while await connection.fetchval("SELECT count(*) FROM ledger") < len(events):
                await asyncio.sleep(0.1)
    finally:
        for one in running:
            one.__exit__(None, None, None)

    rows = await connection.fetch("SELECT saga, count(*), sum(cents) FROM ledger GROUP BY saga")
    [account] = await connection.fetch("SELECT cents, events FROM account")
    positions = await connection.fetch("SELECT saga_id, version, parked FROM saga_consumed")
    await connection.close()
    assert kills == 8
    assert {row["saga"]: (row["count"], row["sum"]) for row in rows} == dict.fromkeys(
        sagas, (VERSIONS, 100 * VERSIONS)
    )
    assert tuple(account) == (100 * len(events), len(events))
    assert {tuple(row) for row in positions} == {(saga, VERSIONS, False) for saga in sagas}
