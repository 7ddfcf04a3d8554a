"""Whichever commit of a whole tour is lost, late, or done without anybody knowing: it ends right."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable

import asyncpg
import pytest

from orchestrator import Saga, SagaFailedError
from tests.faults.faults import Fault
from tests.faults.plant import (
    BOOK,
    Plant,
    act,
    check_effects,
    check_log,
    enter,
    go,
    insist,
    plant,
    tour,
)
from tests.faults.wire_proxy import WireProxy

Plan = Callable[[WireProxy, int], Fault]

WRITES = r"^(?!.*SKIP LOCKED)"
"""All but claims, which poll and mostly find nothing."""
POOLED = "saga (pool|transaction)"
LATE = 0.8
"""Longer than a client waits for the answer to a statement."""

PLANS: dict[str, Plan] = {
    "before": lambda wire, n: wire.cut_before_commit(WRITES, **_nth(n)),
    "after": lambda wire, n: wire.cut_after_commit(WRITES, **_nth(n)),
    "late": lambda wire, n: wire.delay_commit(LATE, WRITES, **_nth(n)),
    "unanswered": lambda wire, n: wire.drop_replies_of_commit(WRITES, **_nth(n)),
}
LANES = 3
EVERY = 1 if os.environ.get("CHAOS_MINUTES") else 4
"""Which commits are struck: one in so many, other ones for each kind of fault; or all of them."""


def _nth(n: int) -> dict[str, object]:
    return {"skip": n, "session": POOLED, "must_fire": False}


async def _go_round(at: Plant, n: int) -> None:
    """A client's part: start, signal, wait; what was not heard is said again."""
    [saga] = at.sagas
    service, refused = at.orchestrator, saga.name == "refused"
    handle = await insist(lambda: service.start(saga, 0, key=f"k{n}"))
    await insist(lambda: handle.signal(go, 10 * n, dedupe_key="g"))
    if refused:
        with pytest.raises(SagaFailedError, match="compensated"):
            await insist(lambda: handle.result(within=20))
    else:
        assert await insist(lambda: handle.result(within=20)) == 10 * n + 5
    types = await insist(lambda: check_log(service, handle))
    assert types.count("SignalReceived") == 1
    assert types[-1] == ("SagaCompensated" if refused else "SagaCompleted")
    check_effects(at.participant, refused=refused)


async def _entered(dsn: str, tours: int, *, refused: bool) -> None:
    """The user's own table has what the transactional step of each tour wrote, once."""
    side = await asyncpg.connect(dsn)
    try:
        rows = await side.fetch(
            "SELECT array_agg(what ORDER BY what) AS what FROM book GROUP BY saga"
        )
        assert [row["what"] for row in rows] == [
            ["-enter", "enter"] if refused else ["enter"]
        ] * tours
        assert await side.fetchval("SELECT count(*) FROM saga WHERE parent IS NULL") == tours
        assert await side.fetchval("SELECT count(*) FROM saga WHERE owner IS NOT NULL") == 0
    finally:
        await side.close()


@pytest.mark.slow
@pytest.mark.parametrize("refused", [False, True], ids=["forward", "back"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
async def test_any_commit_of_a_tour_may_be_lost_or_unknown(
    dsn: str, plan: Plan, refused: bool
) -> None:
    numbers = itertools.count(list(PLANS.values()).index(plan) % EVERY, EVERY)
    struck: list[int] = []
    tours = 0

    async def lane(name: str) -> None:
        nonlocal tours
        async with (
            WireProxy(dsn) as wire,
            plant(wire.dsn, tour(refused=refused), namespace=name) as at,
            at.working(),
        ):
            while True:
                at.participant.forget()
                n = next(numbers)
                fault = plan(wire, n)
                await _go_round(at, n)
                tours += 1
                assert at.participant.repeats <= 3 * fault.fired
                if not fault.fired:
                    return
                struck.append(n)
                wire.heal()

    await _prepare(dsn)
    await asyncio.gather(*(lane(f"lane-{n}") for n in range(LANES)))
    assert len(struck) >= 16 // EVERY, f"only {len(struck)} commits were struck"
    await _entered(dsn, tours, refused=refused)


async def _prepare(dsn: str) -> None:
    side = await asyncpg.connect(dsn)
    await side.execute(BOOK)
    await side.close()


AWAY = {
    "as its transaction begins": "saga.transaction",
    "at its own statement": "INTO book",
    "at the append": "INSERT INTO event",
}


@pytest.mark.parametrize("statement", AWAY.values(), ids=AWAY.keys())
async def test_a_database_that_is_away_fails_no_step(dsn: str, statement: str) -> None:
    await _prepare(dsn)
    saga = Saga("entry", 1, act("hold") >> enter)
    async with WireProxy(dsn) as wire, plant(wire.dsn, saga) as at, at.working():
        wire.at_statement("cut_before", statement, session="transaction", times=2)
        handle = await insist(lambda: at.orchestrator.start(saga, 0, key="k"))
        assert await insist(lambda: handle.result(within=20)) == 2
        types = await insist(lambda: check_log(at.orchestrator, handle))
    assert "StepFailed" not in types
    assert types.count("StepSucceeded") == 2
    await _entered(dsn, 1, refused=False)
