"""`kill -9` at every point of every scenario, in real processes on a real database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.crash.doomed_worker import KINDS
from tests.crash.field_hospital import Nursery, Ward, books_balance, hold_inquest, ward
from tests.crash.scenarios import SCENARIOS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

Point = tuple[str, int]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as opened:
        yield opened


async def points_of(ward: Ward, nursery: Nursery, scenario: str) -> list[Point]:
    """Run instance 0 in good health, and count the points at which a worker could have died."""
    ids = await ward.start(scenario, [0])
    assert await nursery.send([ward.healthy(scenario, [0], ids)]) == [0]
    await hold_inquest(ward, scenario, ids[0], 0, ward.effects())
    passed = Counter(noted.kind for noted in ward.journal())
    return [(kind, n) for kind in KINDS for n in range(1, passed[kind] + 1)]


async def kill_at(
    ward: Ward,
    nursery: Nursery,
    scenario: str,
    numbers: list[int],
    ids: list[str],
    points: list[Point],
) -> list[bool]:
    """A worker of its own for each instance, with its fuse at the instance's point; who died."""
    jobs = [
        ward.job([(scenario, number)], until=[saga_id], kind=kind, count=n)
        for number, saga_id, (kind, n) in zip(numbers, ids, points, strict=True)
    ]
    return [end == -9 for end in await nursery.send(jobs)]


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_wherever_a_worker_dies_another_one_ends_its_saga_the_same_way(
    scenario: str, nursery: Nursery, dsn: str, tmp_path: Path
) -> None:
    async with ward(dsn, tmp_path) as hospital:
        points = await points_of(hospital, nursery, scenario)
        numbers = list(range(1, len(points) + 1))
        ids = await hospital.start(scenario, numbers)
        died = await kill_at(hospital, nursery, scenario, numbers, ids, points)
        # Two results that arrive together share an append, so the last append may not come.
        assert died.count(False) <= 3, [p for p, dead in zip(points, died, strict=True) if not dead]
        assert await nursery.send([hospital.healthy(scenario, numbers, ids)]) == [0]
        effects = hospital.effects()
        for saga_id in ids:
            await hold_inquest(hospital, scenario, saga_id, 1, effects)
        await books_balance(hospital)


@pytest.mark.parametrize("scenario", ["order", "order-refused", "transfer-refused"])
async def test_who_recovers_a_saga_may_die_at_any_point_as_well(
    scenario: str, nursery: Nursery, dsn: str, tmp_path: Path
) -> None:
    async with ward(dsn, tmp_path) as hospital:
        points = await points_of(hospital, nursery, scenario)
        dice = Random(len(scenario))
        firsts = dice.sample(points, 12)
        numbers = [n for n, _ in zip(count(1), firsts, strict=False)]
        ids = await hospital.start(scenario, numbers)
        await kill_at(hospital, nursery, scenario, numbers, ids, firsts)
        seconds = [(dice.choice(KINDS), dice.randint(1, 2)) for _ in firsts]
        died = await kill_at(hospital, nursery, scenario, numbers, ids, seconds)
        assert any(died)
        assert await nursery.send([hospital.healthy(scenario, numbers, ids)]) == [0]
        effects = hospital.effects()
        for saga_id in ids:
            await hold_inquest(hospital, scenario, saga_id, 2, effects)
        await books_balance(hospital)
