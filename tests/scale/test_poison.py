"""One saga that kills its worker each time, among healthy ones: they keep their rate."""

from __future__ import annotations

import asyncio
import time

import pytest

from orchestrator import Status
from tests.scale.flows import brief, poison
from tests.scale.hall import Hall, full, tell, until

WORKERS = 4
LOAD = 500
"""Healthy sagas that are begun in a second."""

SECONDS = 40.0
"""In that time the poison kills ten workers."""

SHARE = 0.9


@full
async def test_healthy_sagas_keep_their_rate_beside_one_that_kills_its_worker_each_time(
    hall: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    await hall.hire(WORKERS)
    alone = await rate(hall)
    [handle] = [await hall.orchestrator.start(poison, 0)]
    beside = await rate(hall)

    async def is_stuck() -> bool:
        return await handle.status() is Status.STUCK

    took = await until(is_stuck, "an end of the poison", within=90)
    deaths = sum(worker.deaths for worker in hall.workers)
    row = await hall.side.fetchrow("SELECT claims, epoch FROM saga WHERE id = $1", handle.saga_id)

    async def all_ended() -> bool:
        return await hall.count("name = $1 AND status <> 'completed'", brief.name) == 0

    await until(all_ended, "end of the healthy ones", within=60)
    tell(
        capsys, workers=WORKERS, rate_alone=alone, rate_beside_poison=beside, deaths=deaths,
        claims=row["epoch"], seconds_more_until_stuck=took,
    )  # fmt: skip
    assert row["epoch"] == 11, "ten claims in vain, and the one that sets it aside"
    assert deaths == 10
    assert beside >= SHARE * alone


async def rate(hall: Hall) -> float:
    """How many healthy sagas end in a second while as many begin."""
    before, began, begun = await hall.ended(brief), time.monotonic(), 0
    while (passed := time.monotonic() - began) < SECONDS:
        due = int(passed * LOAD) - begun
        if due > 0:
            await hall.start(brief, due)
            begun += due
        await asyncio.sleep(0.02)
    return (await hall.ended(brief) - before) / (time.monotonic() - began)
