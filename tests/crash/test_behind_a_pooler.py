"""Whole sagas behind a real PgBouncer, by real workers, one of which is killed: nothing is different."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence

import asyncpg
import pytest

from orchestrator import Handle, Status
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.bootstrap import connect
from orchestrator.runtime.relay import Relay, RelaySettings
from tests.crash.field_hospital import ROOT, process, until
from tests.crash.pooled_flows import SAGAS, go, tour
from tests.crash.takeover_times import SHORT
from tests.faces.cli.prompt import environment
from tests.runtime.test_relay import Broker

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

MODULE = "tests.crash.pooled_flows"
MANY = 12


async def noted(side: asyncpg.Connection[asyncpg.Record], handles: Sequence[Handle[int]]) -> int:
    """How many of the instances have their row."""
    ids = [handle.saga_id for handle in handles]
    found: int = await side.fetchval(
        "SELECT count(DISTINCT saga) FROM notes WHERE saga = ANY($1) AND what = 'booked'", ids
    )
    return found


async def test_timers_signals_children_rows_and_ways_back_survive_a_kill_behind_a_pooler(
    dsn: str, pooled_dsn: str
) -> None:
    side = await asyncpg.connect(dsn)
    await side.execute("CREATE TABLE notes (saga text, what text)")
    there = {"SAGA_DATABASE_URL": pooled_dsn, **SHORT}
    arguments = ("orchestrator", "worker", "--sagas", MODULE)
    broker = Broker()
    async with (
        connect(SAGAS, database_url=pooled_dsn) as orchestrator,
        open_store(pooled_dsn) as store,
        Relay(
            store.feed,
            store.hints,
            lambda _: broker.open(),
            SilentTelemetry(),
            RelaySettings(page=7),
        ),
        process(*arguments, **there) as doomed,
    ):
        numbers = [n if n % 3 else -n - 1 for n in range(MANY)]
        handles = [await orchestrator.start(tour, n, key=str(n)) for n in numbers]
        for handle in handles[: MANY // 2]:  # before it is waited for
            await handle.signal(go, 1)

        async def booked() -> bool:
            return await noted(side, handles) == MANY

        async def published() -> bool:
            return await store.feed.lag("events") == 0

        await until(booked, "a row of each")
        doomed.kill()
        async with process(*arguments, **there) as successor:
            for number, handle in enumerate(handles[MANY // 2 :]):
                await handle.signal(go, 1 if number else -1)
            ends = await asyncio.gather(*(orchestrator.wait(h.saga_id, 60) for h in handles))
            assert set(ends) == {Status.COMPLETED, Status.COMPENSATED}
            events = sum([await orchestrator.verify(handle.saga_id) for handle in handles])
            assert events > 0
            await until(published, "everything published")
            successor.send(signal.SIGTERM)
            assert await successor.ended() == 0
        rows = await side.fetch("SELECT saga, what, count(*) AS n FROM notes GROUP BY 1, 2")
        assert {row["n"] for row in rows} == {1}, "a transactional step was applied twice"
        undone = {row["saga"] for row in rows if row["what"] == "unbooked"}
        for handle, end in zip(handles, ends, strict=True):
            assert (handle.saga_id in undone) == (end is Status.COMPENSATED)
        for handle in handles:
            length = await orchestrator.verify(handle.saga_id)
            firsts = list(dict.fromkeys(broker.versions(handle.saga_id)))
            assert firsts == list(range(1, length + 1)), "the relay skipped or turned round"
    await side.close()


def test_the_commands_work_behind_a_pooler_and_the_doctor_names_it(pooled_dsn: str) -> None:
    def saga(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *arguments], cwd=ROOT, text=True, timeout=60,
            env=environment(SAGA_DATABASE_URL=pooled_dsn, SAGA_SAGAS=MODULE),
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    saga("migrate")
    saga_id = saga("start", "tour", "--input", "1").strip()
    assert saga_id in saga("list")
    assert "no worker is alive" in saga("why", saga_id)
    assert "pooler" in saga("doctor")
