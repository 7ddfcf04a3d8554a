"""Processes that end in an unusual way: blocked, killed as they start, told to end without a database."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from random import Random

import pytest
from pydantic import SecretStr

from orchestrator import Status
from orchestrator.bootstrap import open_app, work
from orchestrator.catalogue import Catalogue
from orchestrator.runtime.worker import EXIT_BLOCKED
from orchestrator.settings import Settings
from tests.crash.blocked_worker import SHORT, blocking
from tests.crash.field_hospital import QUICK, hold_inquest, process, until, ward, worker
from tests.servers import DurableServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(90)]

STARTS = 6
AWAY = 6.0


async def test_a_worker_whose_loop_is_blocked_ends_itself_and_another_goes_on(dsn: str) -> None:
    async with (
        open_app(Settings(database_url=SecretStr(dsn)), Catalogue(())) as app,
        process("tests.crash.blocked_worker", dsn) as blocked,
    ):
        handle = await app.orchestrator.start(blocking(forever=True), 7)
        assert await blocked.ended(within=30) == EXIT_BLOCKED
        epoch = (await app.orchestrator.get(handle.saga_id)).epoch
        assert epoch > 0, "it was never begun"
        async with work([blocking(forever=False)], database_url=dsn, settings=SHORT):
            assert await handle.result(within=20) == 7
        assert (await app.orchestrator.get(handle.saga_id)).epoch > epoch


async def test_who_was_killed_while_it_started_is_in_nobodys_way(dsn: str, tmp_path: Path) -> None:
    dice = Random(13)
    async with ward(dsn, tmp_path) as hospital:
        [saga_id] = await hospital.start("order", [1])
        for _ in range(STARTS):
            async with worker(hospital.job([("order", 1)], pause=30)) as starting:
                await asyncio.sleep(dice.uniform(0.2, 2.5))
                starting.kill()
                assert await starting.ended() == -signal.SIGKILL
        async with worker(hospital.healthy("order", [1], [saga_id])) as next_one:
            assert await next_one.ended() == 0
        assert await hospital.ends([saga_id]) == {Status.COMPLETED}
        await hold_inquest(hospital, "order", saga_id, STARTS, hospital.effects())


async def test_a_worker_that_is_told_to_end_while_the_database_is_away_ends(
    durable_pg: DurableServer, tmp_path: Path
) -> None:
    async with ward(durable_pg.dsn, tmp_path) as hospital:
        [saga_id] = await hospital.start("order", [1])
        job = hospital.job([("order", 1)], pause=1.0, settings={**QUICK, "grace": 2.0})
        async with worker(job) as leaving:

            async def taken() -> bool:
                return (await hospital.app.orchestrator.get(saga_id)).owner is not None

            await until(taken, "a claim")
            await asyncio.to_thread(durable_pg.stop)
            leaving.send(signal.SIGTERM)
            assert await leaving.ended(within=2.0 + 5) == 0
            await asyncio.to_thread(durable_pg.start)
        async with worker(hospital.healthy("order", [1], [saga_id])) as next_one:
            assert await next_one.ended() == 0
        await hold_inquest(hospital, "order", saga_id, 1, hospital.effects())


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_worker_whose_database_is_away_hardly_uses_the_processor(
    durable_pg: DurableServer,
) -> None:
    arguments = ("orchestrator", "worker", "--sagas", "sagas")
    async with process(*arguments, SAGA_DATABASE_URL=durable_pg.dsn) as waiting:
        async with open_app(Settings(database_url=SecretStr(durable_pg.dsn)), Catalogue(())) as app:

            async def joined() -> bool:
                return bool(await app.store.fleet.members())

            await until(joined, "a worker")
        await asyncio.to_thread(durable_pg.stop)
        await asyncio.sleep(1.0)  # the way out of what was under way is not what is measured
        before = cpu_of(waiting.pid)
        await asyncio.sleep(AWAY)
        used = cpu_of(waiting.pid) - before
        await asyncio.to_thread(durable_pg.start)
        waiting.send(signal.SIGTERM)
        assert await waiting.ended() == 0
    assert used < AWAY / 4, f"{used:.2f} s of CPU in {AWAY:g} s without a database"
