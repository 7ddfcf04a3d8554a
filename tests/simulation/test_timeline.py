"""The loops that the simulation runs on."""

from __future__ import annotations

import asyncio

from tests.simulation.timeline import FIRST, NodeLoop, Timeline


def never() -> bool:
    return False


def loops(timeline: Timeline, *names: str) -> list[NodeLoop]:
    return [NodeLoop(timeline, name, lambda text: None) for name in names]


async def tick(seen: list[str], name: str) -> None:
    try:
        for _ in range(3):
            await asyncio.sleep(10)
            seen.append(name)
    finally:
        seen.append(f"{name} ends")


def test_hours_of_sleep_take_no_time() -> None:
    timeline, seen = Timeline(1), list[str]()
    [loop] = loops(timeline, "one")
    loop.create_task(tick(seen, "one"))
    assert not timeline.run(FIRST + 3_600, never)
    assert seen == ["one", "one", "one", "one ends"]
    assert timeline.now == FIRST + 3_600


def test_of_a_dead_process_not_even_a_finally_runs() -> None:
    timeline, seen = Timeline(1), list[str]()
    dead, alive = loops(timeline, "dead", "alive")
    dead.create_task(tick(seen, "dead"))
    alive.create_task(tick(seen, "alive"))
    timeline.after(15, dead.die)
    timeline.run(FIRST + 100, never)
    assert seen.count("dead") == 1
    assert "dead ends" not in seen
    assert "alive ends" in seen
    dead.bury()


def test_a_frozen_process_stands_still_and_finds_its_timers_over_when_it_thaws() -> None:
    timeline, seen = Timeline(1), list[str]()
    [loop] = loops(timeline, "one")

    async def late() -> None:
        began = loop.time()
        await asyncio.sleep(1)
        seen.append(f"{loop.time() - began:.0f}")

    loop.create_task(late())
    timeline.after(0.5, setattr, loop, "frozen", True)
    timeline.after(50, setattr, loop, "frozen", False)
    timeline.run(FIRST + 40, never)
    assert seen == []
    timeline.run(FIRST + 60, never)
    assert seen == ["50"]


def test_chance_decides_the_order_and_a_seed_decides_chance() -> None:
    def order(seed: int) -> list[int]:
        timeline, seen = Timeline(seed), list[int]()
        timeline.disorder = 1.0
        [loop] = loops(timeline, "one")
        for number in range(6):
            loop.call_soon(seen.append, number)
        timeline.run(FIRST + 1, never)
        return seen

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) > 10
