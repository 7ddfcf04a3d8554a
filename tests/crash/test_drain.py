"""SIGTERM under load: settle what runs, give the rest back, leave with exit code 0."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator import Status
from orchestrator.runtime.service import HistoryEntry
from sagas import order_fulfilment
from tests.crash.field_hospital import (
    QUICK,
    Ward,
    books_balance,
    hold_inquest,
    process,
    until,
    ward,
    worker,
)
from tests.crash.scenarios import SCENARIOS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

SOON = timedelta(seconds=1)
SCENARIO = "order-refused"


def handed_over(history: list[HistoryEntry]) -> timedelta | None:
    """How long an instance lay between two owners; None when it had one only."""
    for before, after in pairwise(history):
        if before.row.epoch != after.row.epoch:
            return after.at - before.at
    return None


async def owned(hospital: Ward, ids: list[str]) -> int:
    """How many of the instances a worker holds at this moment."""
    found = [await hospital.app.orchestrator.get(saga_id) for saga_id in ids]
    return sum(instance.owner is not None for instance in found)


async def test_a_worker_told_to_end_hands_its_sagas_over_within_a_second(
    dsn: str, tmp_path: Path
) -> None:
    async with ward(dsn, tmp_path) as hospital:
        numbers = range(1, 31)
        known = [(SCENARIO, number) for number in numbers]
        async with worker(hospital.job(known, pause=1.0)) as leaving:
            ids = await hospital.start(SCENARIO, numbers)

            async def all_taken() -> bool:
                return await owned(hospital, ids) == len(ids)

            await until(all_taken, "a claim of everything")
            async with worker(hospital.job([*known, (SCENARIO, 31)])) as staying:
                await hospital.ends(await hospital.start(SCENARIO, [31]))
                began = asyncio.get_running_loop().time()
                leaving.send(signal.SIGTERM)
                assert await leaving.ended() == 0
                assert asyncio.get_running_loop().time() - began < 5
                assert await hospital.ends(ids) == {Status.COMPENSATED}
                staying.send(signal.SIGTERM)
                assert await staying.ended() == 0
        gaps = [handed_over(await hospital.history(saga_id)) for saga_id in ids]
        changed = [gap for gap in gaps if gap is not None]
        assert changed, "the leaver had nothing in hand"
        assert max(changed) < SOON
        effects = hospital.effects()
        for saga_id in ids:
            # What ran was let settle: nothing had to be called twice.
            await hold_inquest(hospital, SCENARIO, saga_id, 0, effects)
        await books_balance(hospital)


async def test_steps_longer_than_the_grace_are_left_to_the_next_worker(
    dsn: str, tmp_path: Path
) -> None:
    async with ward(dsn, tmp_path) as hospital:
        [saga_id] = await hospital.start("order", [1])
        slow = hospital.job([("order", 1)], pause=30, settings={**QUICK, "grace": 0.5})
        async with worker(slow) as leaving:

            async def taken() -> bool:
                return (await hospital.app.orchestrator.get(saga_id)).owner is not None

            await until(taken, "a claim")
            leaving.send(signal.SIGTERM)
            assert await leaving.ended(within=8) == 0
        assert (await hospital.app.orchestrator.get(saga_id)).owner is None
        async with worker(hospital.healthy("order", [1], [saga_id])) as next_one:
            assert await next_one.ended() == 0
        await hold_inquest(hospital, "order", saga_id, 1, hospital.effects())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_ends_with_code_0_and_owns_nothing(
    how: signal.Signals, dsn: str, tmp_path: Path
) -> None:
    async with ward(dsn, tmp_path) as hospital:
        make = SCENARIOS["order"].input
        start = hospital.app.orchestrator.start
        async with process(
            "orchestrator", "worker", "--sagas", "sagas", SAGA_DATABASE_URL=dsn, SAGA_SLOTS="20"
        ) as command:
            handles = [await start(order_fulfilment.saga, make(n), key=str(n)) for n in range(300)]
            await hospital.ends([handles[0].saga_id])
            command.send(how)
            assert await command.ended() == 0
        assert await owned(hospital, [handle.saga_id for handle in handles]) == 0
