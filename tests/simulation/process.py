"""A process of the simulation: an event loop, a store of its own, and what may befall it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.simulation.store import open_store
from tests.simulation.timeline import NodeLoop
from tests.simulation.wire import Wire

if TYPE_CHECKING:
    from tests.simulation.world import World

Main = Callable[["Process", asyncio.Event], Coroutine[Any, Any, None]]


class Process:
    """One incarnation: from its start to its end, or its death."""

    def __init__(self, world: World, name: str, main: Main, *, mortal: bool = True) -> None:
        self.world = world
        self.name = name
        self.mortal = mortal
        self.cut = ""
        self.thawed_at = 0.0
        self.presence_lost = False
        self.renewals_lost = False
        self.loop = NodeLoop(world.timeline, name, world.trouble.append)
        self.wire = Wire(world.database, self)
        self.wall = world.chance.uniform(-10, 10)
        """How much the clock of its machine is wrong, which is of no account to anybody."""
        self.store = open_store(self.wire, world.hints, world.skew(), world.parts.ports)
        self.store.shared.away = world.shared_away  # type: ignore[attr-defined]  # a SimShared
        self.stop = asyncio.Event()
        self.task = self.loop.create_task(main(self, self.stop), name=name)

    @property
    def dead(self) -> bool:
        return self.loop.dead

    @property
    def busy(self) -> bool:
        """Whether something has befallen it already."""
        return (
            self.dead
            or self.loop.frozen
            or bool(self.cut)
            or self.renewals_lost
            or self.task.done()
        )

    async def point(self, where: str) -> None:
        """A point of its way at which it may be struck."""
        if not self.mortal or self.busy:
            return
        kind = self.world.faults.at_point()
        if kind is None:
            return
        self.world.strike(self, kind, where)
        if self.dead:
            await self.loop.create_future()
        if self.loop.frozen:
            await asyncio.sleep(0)

    def end(self) -> None:
        """Ask it to end, as SIGTERM does."""
        self.loop.call_soon(self.stop.set)

    # ------------------------------------------------------------------ as the ledger sees it

    @property
    def worker_ids(self) -> list[str]:
        return self.store.fleet.joined  # type: ignore[no-any-return,attr-defined]  # a SimFleet

    def may_not_act(self) -> str:
        """Why it should not begin an effect now; nothing when it may."""
        known = self.world.database.tables.workers
        if self.presence_lost or any(worker in known for worker in self.worker_ids):
            return ""
        just_thawed = self.world.timeline.now < self.thawed_at + 0.001
        return "" if just_thawed else "whose lease was over"

    def may_not_act_for(self, saga_id: str) -> str:
        """Why it should not begin an effect of this instance now; nothing when it may."""
        why = self.may_not_act()
        just_thawed = self.world.timeline.now < self.thawed_at + 0.001
        if why or self.presence_lost or just_thawed or self.owns(saga_id):
            return why
        return "which does not own it"

    def owns(self, saga_id: str) -> bool:
        row = self.world.database.tables.sagas.get(saga_id)
        return row is not None and row.owner in self.worker_ids
