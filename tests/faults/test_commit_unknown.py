"""A commit that is lost, late, or done unknown to its sender: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import UnavailableError, UnknownOutcomeError
from tests.contract.given import LEASE, Given
from tests.faults.faults import Fault
from tests.faults.plant import insist, settings
from tests.faults.wire_proxy import WireProxy
from tests.faults.writes import WRITES, Retire, Scene, Write

Strike = Callable[[WireProxy, type[Write]], Fault]

PATIENCE, LATE = 0.5, 1.3
STRIKES: dict[str, Strike] = {
    "before": lambda wire, w: wire.cut_before_commit(w.matching, session=w.session),
    "after": lambda wire, w: wire.cut_after_commit(w.matching, session=w.session),
    "late": lambda wire, w: wire.delay_commit(LATE, w.matching, session=w.session),
    "unanswered": lambda wire, w: wire.drop_replies_of_commit(w.matching, session=w.session),
}
AT_ONCE = 8


@pytest.mark.parametrize("kinds", WRITES.values(), ids=WRITES.keys())
async def test_whoever_does_not_know_asks_again_and_it_has_happened_once(
    dsn: str, kinds: tuple[type[Write], ...]
) -> None:
    turns, alone = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def one(kind: type[Write], how: str) -> None:
        # A retirement is about everybody's workers.
        async with alone if kind is Retire else turns:
            try:
                await _strike(dsn, kind, how)
            except Exception as error:
                error.add_note(f"{kind.__name__} {how}")
                raise

    async with asyncio.TaskGroup() as group:
        for kind, how in itertools.product(kinds, STRIKES):
            group.create_task(one(kind, how))


async def _strike(dsn: str, kind: type[Write], how: str) -> None:
    name = f"{kind.__name__} {how}"
    async with (
        beside(dsn, name) as scene,
        WireProxy(dsn) as wire,
        open_store(wire.dsn, settings=settings(name, patience=PATIENCE)) as store,
    ):
        write = kind(scene)
        await insist(lambda: write.warm(store))
        await write.prepare()
        await insist(lambda: write.first(store))
        fault = STRIKES[how](wire, kind)
        while not fault.fired:  # a busy machine may be slower than these short time-outs
            with pytest.raises(UnavailableError) as caught:
                await write.act(store)
        assert caught.type is UnknownOutcomeError or not kind.decides
        there = await scene.look(write)
        assert there == (how in ("after", "unanswered")) or fault.answered.is_set(), how
        if how == "late":
            await asyncio.wait_for(fault.answered.wait(), 10)
            assert kind.on_new_connection or await scene.look(write) == 1, "late, but in force"
        await write.again(scene.beside)
        assert await scene.look(write) == 1, how


async def test_the_renewal_after_an_unanswered_one_goes_through_at_once(dsn: str) -> None:
    async with WireProxy(dsn) as wire, open_store(wire.dsn, settings=settings()) as store:
        worker = await Given(store).worker()
        wire.drop_replies_of_commit("UPDATE worker SET lease_until")
        with pytest.raises(UnavailableError):
            await store.fleet.renew(worker, LEASE)
        assert await store.fleet.renew(worker, LEASE)


@asynccontextmanager
async def beside(dsn: str, namespace: str) -> AsyncIterator[Scene]:
    """The same database, by connections that no fault befalls."""
    side = await asyncpg.connect(dsn)
    try:
        calm = PostgresSettings(namespace=namespace)
        async with open_store(dsn, settings=calm) as store:
            yield Scene(store, side)
    finally:
        side.terminate()
