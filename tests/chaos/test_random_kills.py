"""Workers die at random, again and again, while orders come in; in the end everything adds up."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator import Orchestrator, Order, Status
from orchestrator.bootstrap import open_app
from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from sagas import order_fulfilment
from sagas.participants.books import balance_books
from sagas.participants.install import install
from sagas.participants.seed import seed
from sagas.resources import open_pool

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("CHAOS_MINUTES", "0.25")) * 60
SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(1_000_000))))
SAGA = order_fulfilment.saga


class Gang:
    """Four worker processes; whoever dies is replaced."""

    def __init__(self, dsn: str) -> None:
        self.environment = {**os.environ, "SAGA_DATABASE_URL": dsn, "SAGA_SLOTS": "20"}
        self.workers = [self.hire() for _ in range(4)]
        self.kills = self.stops = 0

    def hire(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "worker", "--sagas", "sagas"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def strike(self, chance: random.Random) -> None:
        """Kill one at random, mostly without a warning."""
        place = chance.randrange(len(self.workers))
        victim = self.workers[place]
        if chance.random() < 0.75:
            victim.kill()
            self.kills += 1
        else:
            victim.send_signal(signal.SIGTERM)
            self.stops += 1
        victim.wait(40)
        self.workers[place] = self.hire()


@contextmanager
def gang(dsn: str) -> Iterator[Gang]:
    hired = Gang(dsn)
    try:
        yield hired
    finally:
        for worker in hired.workers:
            worker.kill()
            worker.wait(10)


@pytest.mark.chaos
@pytest.mark.crash
@pytest.mark.timeout(SECONDS * 2 + 240)
async def test_orders_survive_workers_that_die_at_random(dsn: str) -> None:
    chance = random.Random(SEED)
    say = f"repeat with CHAOS_SEED={SEED} CHAOS_MINUTES={SECONDS / 60:g}"
    data = files("sagas.data")
    orders = [json.loads(line) for line in data.joinpath("orders.jsonl").read_text().splitlines()]
    catalogue = json.loads(data.joinpath("catalogue.json").read_text())
    settings = Settings(database_url=SecretStr(dsn))
    async with open_app(settings, Catalogue((SAGA,))) as app, open_pool(dsn) as pool:
        await install(pool)
        await seed(pool, catalogue)
        with gang(dsn) as workers:
            started = await _feed(app.orchestrator, orders, workers, chance)
            assert workers.kills >= 1, f"nobody was killed, so nothing was shown; {say}"
            ends = await asyncio.gather(
                *(app.orchestrator.wait(saga_id, within=90) for saga_id in started)
            )
        assert set(ends) <= {Status.COMPLETED, Status.COMPENSATED}, say
        expected = json.loads(data.joinpath("expected.json").read_text())
        assert ends.count(Status.COMPENSATED) == len(expected["refused"]), say
        books = await balance_books(pool)
        assert not books.problems, f"{books.problems}; {say}"
        for saga_id, end in zip(started, ends, strict=True):
            assert await app.orchestrator.verify(saga_id) > 0
            epochs = [e.row.epoch async for e in app.orchestrator.history(saga_id)]
            assert epochs == sorted(epochs), f"{saga_id}: an old owner wrote after a new one; {say}"
            assert (await app.orchestrator.state(saga_id)).status is end


async def _feed(
    orchestrator: Orchestrator,
    orders: list[dict[str, object]],
    workers: Gang,
    chance: random.Random,
) -> list[str]:
    """Start all orders at an even rate over the whole time, striking now and then."""
    started: list[str] = []
    pause = SECONDS / len(orders) * 10
    strikes = max(2, int(SECONDS / 4))
    struck = {len(orders) * n // (strikes + 1) // 10 for n in range(1, strikes + 1)}
    for batch in range(0, len(orders), 10):
        inputs = [SAGA.input_type.model_validate(order) for order in orders[batch : batch + 10]]
        handles = await orchestrator.start_many(
            SAGA, [Order(order, key=f"chaos-{order.order_id}") for order in inputs]
        )
        started += [handle.saga_id for handle in handles]
        if batch // 10 in struck:
            await asyncio.to_thread(workers.strike, chance)
        await asyncio.sleep(pause)
    return started
