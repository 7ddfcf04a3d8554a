"""Postgres is stopped without warning, again and again, while sagas are started and carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from orchestrator import Filter, Status, UnavailableError
from orchestrator.domain.events import ENDED
from tests.crash.field_hospital import (
    QUICK,
    Ward,
    books_balance,
    hold_inquest,
    until,
    ward,
    worker,
)
from tests.crash.scenarios import SCENARIOS, saga
from tests.servers import DurableServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

RESTARTS = 4
SCENARIO = "order-refused"
SOON = timedelta(seconds=5)


class Customers:
    """Start orders without pause; when no answer came, ask again under the same key."""

    def __init__(self, hospital: Ward, scenario: str) -> None:
        self._hospital = hospital
        self._scenario = scenario
        self._numbers = count(1)
        self._open = True
        self.acknowledged: dict[int, str] = {}
        self.unanswered = 0

    async def order(self) -> None:
        """Be one customer until the shop closes."""
        while self._open:
            number = next(self._numbers)
            self.acknowledged[number] = await self._insist(number)
            await asyncio.sleep(0.01)

    def go_home(self) -> None:
        self._open = False

    async def _insist(self, number: int) -> str:
        while True:
            try:
                handle = await self._hospital.app.orchestrator.start(
                    saga(self._scenario, 0),
                    SCENARIOS[self._scenario].input(number),
                    key=str(number),
                )
            except UnavailableError:
                self.unanswered += 1
                await asyncio.sleep(0.05)
            else:
                return handle.saga_id


@asynccontextmanager
async def ordering(customers: Customers, at_once: int) -> AsyncIterator[None]:
    """Customers at work for as long as the block lasts; what they asked for is acknowledged."""
    tasks = [asyncio.create_task(customers.order()) for _ in range(at_once)]
    try:
        yield
        customers.go_home()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
    finally:
        for task in tasks:
            task.cancel()


async def both_at_work(hospital: Ward) -> bool:
    """Whether two workers hold instances."""
    found = await hospital.app.orchestrator.search(Filter(limit=1000))
    return len({instance.owner for instance in found} - {None}) == 2


async def ended(hospital: Ward) -> int:
    """How many instances have come to their end."""
    counts = await hospital.app.store.reads.counts()
    return sum(number for (_, status), number in counts.items() if status in ENDED)


async def reached(hospital: Ward, goal: int) -> bool:
    """Whether as many have ended."""
    return await ended(hospital) >= goal


async def test_what_was_acknowledged_survives_every_crash_of_postgres(
    durable_pg: DurableServer, tmp_path: Path
) -> None:
    async with ward(durable_pg.dsn, tmp_path) as hospital:
        job = hospital.job([(SCENARIO, 0)], settings={**QUICK, "slots": 40}, pause=0.01)
        customers = Customers(hospital, SCENARIO)
        accepting: list[datetime] = []
        async with worker(job) as one, worker(job) as other:
            async with ordering(customers, at_once=3):
                await until(partial(both_at_work, hospital), "two workers at work")
                for _ in range(RESTARTS):
                    goal = await ended(hospital) + 15
                    await until(partial(reached, hospital, goal), "work between crashes")
                    await asyncio.to_thread(durable_pg.crash)
                    await asyncio.to_thread(durable_pg.start)
                    accepting.append(hospital.app.store.clock.now())
            assert customers.unanswered > 0, "no crash was noticed"
            ids = list(customers.acknowledged.values())
            assert await hospital.ends(ids) == {SCENARIOS[SCENARIO].ends}
            assert one.alive
            assert other.alive
        assert len(set(ids)) == len(ids), "two orders were answered with one saga"
        counts = await hospital.app.store.reads.counts()
        assert sum(counts.values()) == len(ids), "a start that was repeated made two sagas"
        times = [entry.at for saga_id in ids for entry in await hospital.history(saga_id)]
        for moment in accepting:
            assert min(time for time in times if time > moment) - moment < SOON
        effects = hospital.effects()
        for saga_id in ids:
            await hold_inquest(hospital, SCENARIO, saga_id, 2 * RESTARTS, effects)
        await books_balance(hospital)


async def test_workers_wait_while_postgres_is_down_and_fail_nothing(
    durable_pg: DurableServer, tmp_path: Path
) -> None:
    async with ward(durable_pg.dsn, tmp_path) as hospital:
        job = hospital.job([("order", 0)], settings={**QUICK, "slots": 5}, pause=0.02)
        async with worker(job) as patient:
            ids = [
                (
                    await hospital.app.orchestrator.start(
                        saga("order", 0), SCENARIOS["order"].input(n), key=str(n)
                    )
                ).saga_id
                for n in range(40)
            ]
            await hospital.ends(ids[:1])
            await asyncio.to_thread(durable_pg.stop)
            # Longer than the lease: nobody may take that for the failure of a step.
            await asyncio.sleep(QUICK["ttl"] + 1)
            assert patient.alive
            await asyncio.to_thread(durable_pg.start)
            assert await hospital.ends(ids) == {Status.COMPLETED}
            assert patient.alive
        effects = hospital.effects()
        for saga_id in ids:
            await hold_inquest(hospital, "order", saga_id, 3, effects)
