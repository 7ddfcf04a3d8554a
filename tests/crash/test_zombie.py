"""A worker is stopped in the middle of its work, replaced, and goes on as if nothing had happened."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from orchestrator import Status
from tests.crash.field_hospital import books_balance, hold_inquest, ward, worker

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP"),
]

SHORT = {
    "ttl": 2.0,
    "renew_every": 0.2,
    "command_timeout": 0.3,
    "margin": 0.3,
    "watch_every": 0.2,
    "poll_every": 0.05,
}


@pytest.mark.parametrize(
    ("scenario", "kind", "count"),
    [
        ("order", "effect-before", 2),
        ("order-refused", "effect-after", 6),
        ("order", "append-before", 2),
        ("order-refused", "append-during", 3),
    ],
)
async def test_a_zombie_adds_nothing_to_what_its_successor_did_and_lives_on(
    scenario: str, kind: str, count: int, dsn: str, tmp_path: Path
) -> None:
    async with ward(dsn, tmp_path) as hospital:
        [saga_id] = await hospital.start(scenario, [1])
        both, first = [(scenario, 1), (scenario, 2)], [(scenario, 1)]
        frozen = hospital.job(
            both, kind=kind, count=count, signal=int(signal.SIGSTOP), settings=SHORT
        )
        async with worker(frozen) as zombie:
            await zombie.stopped()
            held = await hospital.app.orchestrator.get(saga_id)
            async with worker(hospital.job(first, settings=SHORT)):
                await hospital.ends([saga_id])
            told = await hospital.history(saga_id)
            assert told[-1].row.epoch > held.epoch, "nobody took over"

            zombie.send(signal.SIGCONT)
            # Only the zombie knows this one: that it ends shows that the zombie began anew.
            [later] = await hospital.start(scenario, [2])
            await hospital.ends([later])
            assert zombie.alive
            assert await hospital.history(saga_id) == told
            zombie.send(signal.SIGTERM)
            assert await zombie.ended() == 0
        effects = hospital.effects()
        for each in (saga_id, later):
            await hold_inquest(hospital, scenario, each, 1, effects)
        await books_balance(hospital)


async def test_a_zombie_with_many_sagas_in_hand_drops_them_all(dsn: str, tmp_path: Path) -> None:
    async with ward(dsn, tmp_path) as hospital:
        numbers = range(1, 41)
        ids = await hospital.start("order", numbers)
        known = [("order", number) for number in numbers]
        frozen = hospital.job(
            known, kind="effect-after", count=60, signal=int(signal.SIGSTOP), settings=SHORT
        )
        async with worker(frozen) as zombie:
            await zombie.stopped()
            async with worker(hospital.job(known, settings=SHORT)) as successor:
                assert await hospital.ends(ids) == {Status.COMPLETED}
                told = [await hospital.history(saga_id) for saga_id in ids]
                zombie.send(signal.SIGCONT)
                zombie.send(signal.SIGTERM)
                assert await zombie.ended() == 0
                assert successor.alive
            assert [await hospital.history(saga_id) for saga_id in ids] == told
        effects = hospital.effects()
        for saga_id in ids:
            await hold_inquest(hospital, "order", saga_id, 1, effects)
        await books_balance(hospital)
