"""Many timers due at the same time: all fire soon, and who begins meanwhile is served."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.scale.flows import brief, napping
from tests.scale.hall import FULL, Hall, p99, tell, until

COUNT = 10_000 if FULL else 1_000
NAP = 20.0 if FULL else 4.0
ALL_FIRE = 60.0
FRESH = 5.0
CATCH = 0.05


async def test_all_timers_that_are_due_at_once_fire_and_new_sagas_are_served_meanwhile(
    hall: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    await hall.hire(1, SCALE_NAP=str(NAP))
    await hall.start(napping, COUNT)

    async def all_wait() -> bool:
        return await hall.count("name = $1 AND status = 'waiting'", napping.name) == COUNT

    await until(all_wait, f"{COUNT} that wait", within=ALL_FIRE)
    # As those do that were started by the thousand and all wait for the same hour.
    last = await hall.side.fetchval("SELECT max(due_at) FROM saga")
    await hall.side.execute("UPDATE saga SET due_at = $1 WHERE owner IS NULL", last)
    now = await hall.side.fetchval("SELECT clock_timestamp()")
    await asyncio.sleep(max((last - now).total_seconds(), 0))

    began, fresh = time.monotonic(), []
    while (ended := await hall.ended(napping)) < COUNT:
        assert time.monotonic() - began < ALL_FIRE, f"{ended} of {COUNT} have fired"
        at = time.monotonic()
        handle = await hall.orchestrator.start(brief, len(fresh))
        await handle.result(within=ALL_FIRE)
        fresh.append((time.monotonic() - at) * 1000)
        await asyncio.sleep(CATCH)
    took = time.monotonic() - began

    tell(capsys, timers=COUNT, seconds=took, fresh=len(fresh), fresh_p99_ms=p99(fresh))
    assert p99(fresh) <= FRESH * 1000
