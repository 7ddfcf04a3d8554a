"""A saga, its relay and a payments service in processes of their own, which are killed again and again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import asyncpg
import psycopg
import pytest

from orchestrator import Orchestrator, Saga
from orchestrator.bootstrap import connect
from sagas.remote.messages import TOPIC
from sagas.remote.payments import prepare
from sagas.remote.purchase import Purchase, Shipped, saga
from tests.kafka_duplicates import send_again
from tests.remote import hasty_purchase
from tests.servers import Server

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]

CRASHES = 5


@dataclass(slots=True)
class Crew:
    """The processes of one test, by name."""

    dsn: str
    own_dsn: str
    servers: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """In the names of this test's orders: the topic holds what others sent, too."""

    def start(self, name: str, *command: str) -> None:
        environment = {
            **os.environ,
            "SAGA_DATABASE_URL": self.dsn,
            "SAGA_KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "SAGA_LEASE_TTL": "30",
            # A database of its own has topics of its own: what the broker keeps goes by their names.
            "SAGA_KAFKA_TOPIC": f"events-{self.tag}",
            "SAGA_KAFKA_STATE_TOPIC": f"states-{self.tag}",
            "SAGA_KAFKA_REPLY_TOPIC": f"replies-{self.tag}",
        }
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdin=subprocess.DEVNULL
        )

    def saga(self, module: str = "sagas.remote.purchase") -> None:
        self.start("worker", "orchestrator", "worker", "--sagas", module)
        self.start("relay", "orchestrator", "relay")

    def payments(self, name: str, seed: int, dies: float = 0.0, loses: float = 0.0) -> None:
        chances = (str(seed), str(dies), str(loses))
        self.start(name, "tests.remote.mortal_payments", self.own_dsn, self.servers, *chances)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture
def own_dsn(pg_server: Server) -> Iterator[str]:
    """The payments service's own database."""
    with own_database(pg_server) as dsn:
        yield dsn


@contextmanager
def own_database(server: Server) -> Iterator[str]:
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE payments_test TEMPLATE template0")
        try:
            yield server.dsn("payments_test")
        finally:
            connection.execute("DROP DATABASE payments_test WITH (FORCE)")


@pytest.fixture
def crew(dsn: str, own_dsn: str, kafka: str) -> Iterator[Crew]:
    made = Crew(dsn, own_dsn, kafka)
    try:
        yield made
    finally:
        made.end()


@asynccontextmanager
async def purchases(
    crew: Crew, count: int, saga: Saga[Purchase, Shipped] = saga
) -> AsyncIterator[Orchestrator]:
    """So many purchases: some are too dear, some cannot be shipped, the rest go through."""
    await prepare(crew.own_dsn)
    async with connect([saga], database_url=crew.dsn) as orchestrator:
        for n in range(count):
            cents = 200_000 if n % 10 == 3 else 100 + n
            country = "XX" if n % 5 == 4 else "CH"
            order = Purchase(
                order_id=f"{crew.tag}-{n}", account="ann", cents=cents, country=country
            )
            await orchestrator.start(saga, order, key=f"{crew.tag}-{n}")
        yield orchestrator


async def all_end(crew: Crew, count: int, within: float = 200) -> None:
    """Wait until all have ended, within a limit; participants that died are replaced."""
    limit = asyncio.get_running_loop().time() + within
    while not await ended(crew, count):
        for name, process in list(crew.running.items()):
            if process.poll() is not None:
                crew.payments(name, process.pid)
        if asyncio.get_running_loop().time() > limit:
            raise AssertionError(f"not all ended within {within} s: {await statuses(crew)}")
        await asyncio.sleep(0.1)


async def statuses(crew: Crew) -> Counter[str]:
    return await counted(crew.dsn, "SELECT status, count(*) FROM saga GROUP BY 1")


async def counted(dsn: str, query: str) -> Counter[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return Counter({str(row[0]): row[1] for row in await connection.fetch(query)})
    finally:
        await connection.close()


async def ended(crew: Crew, count: int) -> bool:
    found = await statuses(crew)
    return found["completed"] + found["compensated"] == count


async def payments(crew: Crew) -> Counter[str]:
    """How many payments there are of this test's orders, by order and by how often it was refunded."""
    found = await counted(
        crew.own_dsn, "SELECT order_id || ' ' || refunds, count(*) FROM payment GROUP BY 1"
    )
    return Counter({name: count for name, count in found.items() if name.startswith(crew.tag)})


async def expect_each_effect_once(crew: Crew, count: int) -> None:
    """One payment for what completed; none, or one that was refunded once, for what went back."""
    ends = await counted(crew.dsn, "SELECT key || ' ' || status, count(*) FROM saga GROUP BY 1")
    paid = await payments(crew)
    for order in (f"{crew.tag}-{n}" for n in range(count)):
        kept, undone = paid.pop(f"{order} 0", 0), paid.pop(f"{order} 1", 0)
        if ends[f"{order} completed"]:
            assert (kept, undone) == (1, 0), f"{order} completed"
        else:
            assert ends[f"{order} compensated"] == 1, f"{order} has not ended"
            assert (kept, undone) in ((0, 0), (0, 1)), f"{order} went back"
    assert not paid, "something was refunded more than once"


async def test_a_purchase_is_paid_refused_and_refunded_by_another_process(crew: Crew) -> None:
    count = 10
    crew.saga()
    crew.payments("one", 1)
    async with purchases(crew, count):
        await all_end(crew, count)
    found = await statuses(crew)
    assert found == {"completed": 7, "compensated": 3}
    await expect_each_effect_once(crew, count)


async def test_participants_that_are_killed_and_doubled_apply_each_effect_once(crew: Crew) -> None:
    count = 150
    crew.saga()
    for name, seed in (("one", 1), ("two", 2)):
        crew.payments(name, seed, dies=0.02)
    killed = 0
    async with purchases(crew, count):
        for turn in range(CRASHES):
            send_again(crew.servers, TOPIC)
            await asyncio.sleep(0.5)
            name = ("one", "two")[turn % 2]
            crew.kill(name)
            killed += 1
            crew.payments(name, 10 + turn, dies=0.02)
        await all_end(crew, count)
        send_again(crew.servers, TOPIC)
        await asyncio.sleep(2)
    assert killed == CRASHES
    found = await statuses(crew)
    assert found["completed"] > count / 2
    await expect_each_effect_once(crew, count)


async def test_lost_replies_end_as_probed_or_undone_and_never_as_a_hang(crew: Crew) -> None:
    count = 40
    crew.saga("tests.remote.hasty_purchase")
    crew.payments("one", 5, loses=0.4)
    async with purchases(crew, count, hasty_purchase.saga):
        await all_end(crew, count)
    types = await counted(crew.dsn, "SELECT type, count(*) FROM event GROUP BY 1")
    assert types["StepInDoubt"] > 0
    assert types["ProbeAnswered"] > 0
    await expect_each_effect_once(crew, count)
