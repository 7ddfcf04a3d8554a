"""After an outage thousands are due at once: nothing fails, and the old rate is soon there again."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from orchestrator import Status
from tests.faults.wire_proxy import WireProxy
from tests.scale.flows import brief
from tests.scale.hall import FULL, Hall, tell, until

WORKERS = 4 if FULL else 2
AWAY = 20.0 if FULL else 3.0
WAITING = 20_000 if FULL else 500
FIRST_COMMIT, RATE_AGAIN, SHARE = 5.0, 15.0, 0.9
WINDOW = 1.0
MOST_AT_ONCE = 0.5
"""Of the connections that are opened within five seconds, how many may come in one tenth of one."""

Seen = list[tuple[float, int]]
"""How many had ended, and when."""


async def test_after_an_outage_a_herd_is_carried_on_and_the_rate_comes_back(
    hall: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    wire = WireProxy(hall.dsn)
    await wire.start()
    try:
        workers = await hall.hire(WORKERS, wire.dsn)
        await drained(hall)
        before = best_rate(await drained(hall))

        await wire.stop()
        used, began = sum(cpu_seconds(worker.pid) for worker in workers), time.monotonic()
        await hall.start(brief, WAITING)
        await asyncio.sleep(AWAY - (time.monotonic() - began))
        used = sum(cpu_seconds(worker.pid) for worker in workers) - used
        await wire.start()
        arrivals = asyncio.create_task(connections(wire))
        seen = await until_drained(hall)
        first = next(at for at, ended in seen if ended > seen[0][1])
        again = next((at for at, rate in rates(seen) if rate >= SHARE * before), None)
        came = await arrivals
        died = sum(worker.deaths for worker in workers)
        said = sum(worker.says("Traceback") for worker in workers)
    finally:
        hall.dismiss()
        await wire.stop()
    tell(
        capsys, workers=WORKERS, waiting=WAITING, seconds_away=AWAY, rate_before=before,
        first_commit_after=first, rate_after=best_rate(seen), rate_again_after=again or 0.0,
        all_ended_after=seen[-1][0], connections_back=sum(came), most_in_a_tenth=max(came),
        cpu_share_while_away=used / AWAY / WORKERS,
    )  # fmt: skip
    assert (died, said) == (0, 0)
    assert await hall.count("status <> $1", Status.COMPLETED) == 0
    assert first <= FIRST_COMMIT
    assert used < 0.5 * AWAY * WORKERS, "a hot loop while the database is away"
    if FULL:
        assert again is not None
        assert again <= RATE_AGAIN
        assert max(came) <= MOST_AT_ONCE * sum(came)


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

    await until(all_ended, f"end of {WAITING}", within=60 + AWAY)
    return seen


def rates(seen: Seen) -> Seen:
    """How many ended in a second, by when that second began; in all the time if that is less."""
    found = [
        (at, int((seen[there][1] - ended) / (seen[there][0] - at)))
        for n, (at, ended) in enumerate(seen)
        for there in [next((m for m, (late, _) in enumerate(seen) if late >= at + WINDOW), 0)]
        if there > n
    ]
    return found or [(seen[0][0], int((seen[-1][1] - seen[0][1]) / max(seen[-1][0], 0.05)))]


def best_rate(seen: Seen) -> float:
    """The most that ended in a second."""
    return float(max(rate for _, rate in rates(seen)))


async def connections(wire: WireProxy) -> list[int]:
    """How many were opened in each tenth of the first five seconds."""
    counts = [0 + wire.counts["connections"]]
    for _ in range(50):
        await asyncio.sleep(0.1)
        counts.append(wire.counts["connections"])
    return [later - count for count, later in itertools.pairwise(counts)]


def cpu_seconds(pid: int) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
