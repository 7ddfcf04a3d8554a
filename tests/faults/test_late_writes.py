"""What arrives when its time is over changes nothing: takeovers, handed-over relays, migrations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import psycopg
import pytest

from orchestrator.adapters.postgres.migrate import current, upgrade
from orchestrator.adapters.postgres.schema import head
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import UnavailableError
from orchestrator.ports import Claim, Cursor
from tests.contract.given import LEASE, ORDER
from tests.faults.faults import Fault
from tests.faults.plant import insist, settings
from tests.faults.test_commit_unknown import LATE, PATIENCE, beside
from tests.faults.wire_proxy import WireProxy
from tests.faults.writes import (
    AppendEvents,
    End,
    MoveCheckpoint,
    Park,
    Release,
    Renew,
    Scene,
    StepInTransaction,
    TakeAgain,
    TakeClaim,
    Write,
)

OF_AN_OWNER = [AppendEvents, Park, End, StepInTransaction, TakeClaim, TakeAgain, Release, Renew]
EXPIRE = "UPDATE worker SET lease_until = clock_timestamp() - interval '1 s' WHERE id = $1"
EXPIRE_RELAY = "UPDATE relay_cursor SET lease_until = clock_timestamp() WHERE relay = $1"


async def test_what_an_owner_wrote_too_late_is_refused_after_the_takeover(dsn: str) -> None:
    async with asyncio.TaskGroup() as group:
        for kind in OF_AN_OWNER:
            group.create_task(_take_over(dsn, kind), name=kind.__name__)


async def _take_over(dsn: str, kind: type[Write]) -> None:
    async with (
        beside(dsn, kind.__name__) as scene,
        WireProxy(dsn) as wire,
        open_store(wire.dsn, settings=settings(kind.__name__, patience=PATIENCE)) as store,
    ):
        write = kind(scene)
        await insist(lambda: write.warm(store))
        await write.prepare()
        await insist(lambda: write.first(store))
        late = wire.delay_commit(LATE, kind.matching, session=kind.session)
        acting = asyncio.create_task(write.act(store))
        await late.first.wait()
        claim = await _new_owner(scene)
        with contextlib.suppress(UnavailableError):
            await acting
        await asyncio.wait_for(late.answered.wait(), 10)
        # A COMMIT that is late holds the row: the takeover waits, and finds what it committed.
        before = [1, 1] if kind is StepInTransaction else []
        row = await scene.side.fetchrow(
            "SELECT owner::text, epoch, head, status FROM saga WHERE id = $1", scene.saga_id
        )
        assert tuple(row) == (scene.owner, claim, len(before) + 1, "running"), kind.__name__
        epochs = await scene.side.fetch(
            "SELECT epoch FROM event WHERE saga_id = $1 ORDER BY version", scene.saga_id
        )
        assert [row["epoch"] for row in epochs] == [*before, claim], kind.__name__
        if kind is StepInTransaction:
            assert await scene.ask("SELECT count(*) FROM book WHERE saga = $1") == 1


async def _new_owner(scene: Scene) -> int:
    """The old owner is found dead, another claims and writes; its epoch."""
    gone = scene.owner
    await scene.side.execute(EXPIRE, gone)
    scene.owner = await scene.given.worker()
    claims: list[Claim] = []
    async with asyncio.timeout(10):
        while not claims:  # a late write may still hold the row
            await scene.beside.fleet.retire_dead()
            claims = await scene.beside.queue.claim(scene.owner, 5, [ORDER])
    [scene.claim] = [claim for claim in claims if claim.saga_id == scene.saga_id]
    assert await scene.beside.events.append([scene.append(count=1)])
    assert await scene.ask("SELECT count(retired_at) FROM worker WHERE id = $1", gone) == 1
    return scene.claim.epoch


async def test_a_checkpoint_that_is_late_does_not_move_the_next_relay(dsn: str) -> None:
    async with (
        beside(dsn, "default") as scene,
        WireProxy(dsn) as wire,
        open_store(wire.dsn, settings=settings(patience=PATIENCE)) as store,
    ):
        write = MoveCheckpoint(scene)
        await insist(lambda: write.warm(store))
        await write.prepare()
        late = wire.delay_commit(LATE, write.matching)
        acting = asyncio.create_task(write.act(store))
        await late.first.wait()
        await scene.side.execute(EXPIRE_RELAY, scene.name)
        cursor = await scene.beside.feed.acquire(scene.name, "another", LEASE)
        assert cursor == Cursor(0, 2)
        with contextlib.suppress(UnavailableError):
            await acting
        await asyncio.wait_for(late.answered.wait(), 10)
        assert await scene.beside.feed.acquire(scene.name, "another", LEASE) == cursor


CUTS: dict[str, Callable[[WireProxy, int], Fault]] = {
    "before": lambda wire, n: wire.cut_before_commit(skip=n, must_fire=False),
    "after": lambda wire, n: wire.cut_after_commit(skip=n, must_fire=False),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_a_migration_cut_at_any_commit_is_finished_by_the_next(
    empty_dsn: str, cut: Callable[[WireProxy, int], Fault]
) -> None:
    fired = 0
    async with WireProxy(empty_dsn) as wire:
        for n in range(20):
            fault = cut(wire, n)
            try:
                await asyncio.to_thread(upgrade, wire.dsn)
            except UnavailableError:
                assert fault.fired == 1
                fired += 1
            else:
                assert fault.fired == 0
                break
            finally:
                fault.heal()
    assert fired >= 1
    assert await asyncio.to_thread(current, empty_dsn) == head()
    with psycopg.connect(empty_dsn) as look:
        for table in ("saga", "event", "inbox", "worker", "relay_cursor"):
            assert look.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,)
