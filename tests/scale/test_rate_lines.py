"""Who waits for a rate is held once or twice, however many others wait."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta

import pytest

from orchestrator import Order, Saga, Status, WorkflowContext, step
from orchestrator.bootstrap import work
from tests.scale.hall import FULL, Hall, tell, until

COUNT = 2_000 if FULL else 400
CALLS = 100


@step
async def call(n: int, ctx: WorkflowContext) -> int:
    return n


limited = Saga("limited", 1, call.rate_limit("desk", CALLS, per=1))


async def test_each_of_many_that_wait_for_a_rate_is_held_a_few_times_at_most(
    hall: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    async with work([limited], database_url=hall.dsn), work([limited], database_url=hall.dsn) as it:
        for first in range(0, COUNT, 500):
            numbers = range(first, min(first + 500, COUNT))
            await it.start_many(limited, [Order(n) for n in numbers])

        async def all_ended() -> bool:
            return await hall.ended(limited) == COUNT

        took = await until(all_ended, f"{COUNT} ended", within=60 + COUNT / CALLS)

    held = await hall.side.fetchval("SELECT count(*) FROM event WHERE type = 'StepHeld'")
    tell(capsys, waiters=COUNT, steps_held=held, seconds=took)
    assert COUNT - CALLS - took * CALLS <= held
    assert held <= 3 * COUNT
    assert took >= COUNT / CALLS - 1 - 1, "a full bucket, and then so many a second"
    calls = await hall.side.fetch(
        "SELECT recorded_at AS at FROM event WHERE type = 'StepSucceeded' ORDER BY recorded_at"
    )
    times = [row["at"] for row in calls]
    per = timedelta(seconds=1)
    for begin, end in zip(times, itertools.islice(times, 2 * CALLS + 20, None), strict=False):
        assert end - begin > per * 0.9, "twice the rate and more within its period"
    statuses = Counter(row["status"] for row in await hall.side.fetch("SELECT status FROM saga"))
    assert statuses == {Status.COMPLETED: COUNT}
