"""Who waits for a rate is held once or twice, however many others wait and whoever dies."""

from __future__ import annotations

import itertools
import os
import signal
import time
from datetime import timedelta

import pytest

from orchestrator import Status
from tests.scale.flows import CALLS, limited
from tests.scale.hall import FULL, Hall, tell, until

COUNT = 2_000 if FULL else 400
PERIOD = timedelta(seconds=1)


async def test_each_of_many_that_wait_for_a_rate_is_held_a_few_times_at_most(
    hall: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = await hall.hire(2)
    began = time.monotonic()
    await hall.start(limited, COUNT)

    async def half_ended() -> bool:
        return await hall.ended(limited) >= COUNT / 2

    async def all_ended() -> bool:
        return await hall.ended(limited) == COUNT

    await until(half_ended, f"{COUNT / 2} ended", within=60 + COUNT / CALLS)
    os.kill(workers[0].pid, signal.SIGKILL)
    await until(all_ended, f"{COUNT} ended", within=60 + COUNT / CALLS)
    took = time.monotonic() - began
    assert workers[0].deaths == 1

    held = await hall.side.fetchval("SELECT count(*) FROM event WHERE type = 'StepHeld'")
    tell(capsys, waiters=COUNT, steps_held=held, seconds=took)
    assert COUNT - CALLS - took * CALLS <= held
    assert held <= 1.5 * COUNT
    assert took >= COUNT / CALLS - 2, "a full bucket, and then so many a second"
    assert await hall.count("status <> $1", Status.COMPLETED) == 0
    calls = await hall.side.fetch(
        "SELECT recorded_at AS at FROM event WHERE type = 'StepSucceeded' ORDER BY recorded_at"
    )
    times = [row["at"] for row in calls]
    assert len(times) == COUNT
    for begin, end in zip(times, itertools.islice(times, 2 * CALLS + 20, None), strict=False):
        assert end - begin > PERIOD * 0.9, "twice the rate and more within its period"
