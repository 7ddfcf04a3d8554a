"""After an outage thousands are due at once: nothing fails, and the old rate is soon there again."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from orchestrator import Status
from tests.scale.flows import brief
from tests.scale.gate import Gate
from tests.scale.hall import FULL, Hall, tell, until

WORKERS = 4 if FULL else 2
AWAY = 20.0 if FULL else 3.0
WAITING = 20_000 if FULL else 500
FIRST_COMMIT, RATE_AGAIN, SHARE = 5.0, 15.0, 0.9
WINDOW = 1.0
MOST_AT_ONCE = 0.5
"""Of the connections that come back, how many may come in one tenth of a second."""

Seen = list[tuple[float, int]]
"""How many were left, as a negative number, and when."""


async def test_after_an_outage_a_herd_is_carried_on_and_the_rate_comes_back(
    hall: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(hall.dsn)
    await gate.open()
    try:
        workers = await hall.hire(WORKERS, gate.dsn)
        await drained(hall)
        before = mean_rate(await drained(hall))

        gate.shut()
        used, began = sum(cpu_seconds(worker.pid) for worker in workers), time.monotonic()
        await hall.start(brief, WAITING)
        await asyncio.sleep(AWAY - (time.monotonic() - began))
        used = sum(cpu_seconds(worker.pid) for worker in workers) - used
        gate.opened.clear()
        await gate.open()
        back = time.monotonic()
        seen = await until_drained(hall)
        came = Counter(int((at - back) * 10) for at in gate.opened)
        first = next(at for at, left in seen if left > seen[0][1])
        again = next((at for at, rate in rates(seen) if rate >= SHARE * before), None)
        died = sum(worker.deaths for worker in workers)
        said = sum(worker.says("Traceback") for worker in workers)
    finally:
        hall.dismiss()
        gate.shut()
    tell(
        capsys, workers=WORKERS, waiting=WAITING, seconds_away=AWAY, rate_before=before,
        first_commit_after=first, rate_after=mean_rate(seen), rate_again_after=again or 0.0,
        all_ended_after=seen[-1][0], connections_back=came.total(), most_in_a_tenth=max(came.values()),
        cpu_share_while_away=used / AWAY / WORKERS,
    )  # fmt: skip
    assert (died, said) == (0, 0)
    assert await hall.count("status <> $1", Status.COMPLETED) == 0
    assert first <= FIRST_COMMIT
    assert used < 0.5 * AWAY * WORKERS, "a hot loop while the database is away"
    if FULL:
        assert again is not None
        assert again <= RATE_AGAIN
        assert max(came.values()) <= MOST_AT_ONCE * came.total()


async def drained(hall: Hall) -> Seen:
    """What was seen while as many as wait later were carried."""
    await hall.start(brief, WAITING)
    return await until_drained(hall)


async def until_drained(hall: Hall) -> Seen:
    """Look until nothing is left to do."""
    began = time.monotonic()
    seen: Seen = []

    async def all_ended() -> bool:
        left = await hall.count("status <> $1", Status.COMPLETED)
        seen.append((time.monotonic() - began, -left))
        return left == 0

    await until(all_ended, f"end of {WAITING}", within=60 + AWAY, every=0.1)
    return seen


def rates(seen: Seen) -> list[tuple[float, float]]:
    """How many ended in each second that was looked at, by when it began."""
    found = []
    for at, left in seen:
        late = next(((then, less) for then, less in seen if then >= at + WINDOW), None)
        if late is not None:
            found.append((at, (late[1] - left) / (late[0] - at)))
    return found


def mean_rate(seen: Seen) -> float:
    """How many ended in a second, over the whole of it."""
    return (seen[-1][1] - seen[0][1]) / max(seen[-1][0] - seen[0][0], 0.05)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
