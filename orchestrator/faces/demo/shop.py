"""The demo's busy day: orders come in, a worker is killed at its work, another one takes over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, Protocol, TypeVar

from orchestrator.bootstrap import App
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.saga import Saga
from orchestrator.errors import UnavailableError
from orchestrator.faces.demo.workers import SLOTS, WorkerProcess, Workers
from orchestrator.ports import Filter, Instance
from orchestrator.runtime.service import Order

T = TypeVar("T")

OPEN = (Status.PENDING, Status.RUNNING, Status.WAITING, Status.COMPENSATING)

_BATCHES = 25
_PAUSE = 0.3
_PATIENCE = 60.0
_LOOK = 0.02


class Watcher(Protocol):
    """Who is told how it goes."""

    def opened(self, total: int) -> None: ...

    def say(self, text: str) -> None: ...

    def started(self, count: int) -> None: ...

    def ended(self, status: Status) -> None: ...


@dataclass(frozen=True, slots=True)
class Takeover:
    """What became of the orders that a killed worker held. Times in seconds after the kill."""

    victim: str
    pid: int
    orders: tuple[str, ...]
    first: float
    last: float


class Shop:
    """Starts the orders of one run, kills a worker half way, and waits for every end."""

    def __init__(
        self,
        app: App,
        saga: Saga[Any, Any],
        orders: Sequence[Any],
        run: str,
        workers: Workers,
        dice: Random,
        watcher: Watcher,
    ) -> None:
        self._app = app
        self._saga = saga
        self._waiting = deque(orders)
        self._total = len(orders)
        self.run = run
        self._workers = workers
        self._dice = dice
        self._watcher = watcher
        self._waits: list[asyncio.Task[None]] = []
        self._owners: set[str] = set()
        self.order_of: dict[str, Any] = {}
        self.statuses: dict[str, Status] = {}
        self.takeover: Takeover | None = None

    async def trade(self) -> None:
        """Take all orders in and see every one of them to its end."""
        tasks = {
            asyncio.create_task(self._take_in(), name="take-in"),
            asyncio.create_task(self._guard(), name="guard"),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *self._waits):
                task.cancel()

    async def _take_in(self) -> None:
        size = -(-self._total // _BATCHES)
        self._watcher.opened(self._total)
        await self._start(size)
        await asyncio.gather(*self._waits)
        strike: asyncio.Task[None] | None = None
        while self._waiting:
            began = asyncio.get_running_loop().time()
            await self._start(size)
            self._owners |= {i.owner for i in await self._owned() if i.owner is not None}
            if self.takeover is None and (strike is None or strike.done()) and self._half_way():
                strike = asyncio.create_task(self._strike(max(2 * size, 3 * SLOTS)), name="strike")
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(_PAUSE - spent, 0.0))
        if strike is not None:
            await strike
        await asyncio.gather(*self._waits)

    async def _guard(self) -> None:
        while True:
            self._workers.check()
            await asyncio.sleep(0.2)

    # ------------------------------------------------------------------ orders

    async def _start(self, count: int) -> None:
        batch = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        context = WorkflowContext(tags={"demo": self.run})
        handles = await self._app.orchestrator.start_many(
            self._saga,
            [Order(order, key=f"{self.run}/{order.order_id}", context=context) for order in batch],
        )
        for order, handle in zip(batch, handles, strict=True):
            self.order_of[handle.saga_id] = order
            self._waits.append(asyncio.create_task(self._see_to_its_end(handle.saga_id)))
        self._watcher.started(len(batch))

    async def _see_to_its_end(self, saga_id: str) -> None:
        status = await self._app.orchestrator.wait(saga_id, within=_PATIENCE)
        self.statuses[saga_id] = status
        self._watcher.ended(status)

    async def _owned(self) -> list[Instance]:
        """This run's orders that a worker holds at this moment."""
        pages = [
            await self._app.orchestrator.search(
                Filter(status=status, name=self._saga.name, limit=self._total)
            )
            for status in OPEN
        ]
        return [
            found
            for page in pages
            for found in page
            if found.owner is not None and found.saga_id in self.order_of
        ]

    def _half_way(self) -> bool:
        """Half of the orders have ended, and both workers were seen at work, if they ever are."""
        late = len(self._waiting) * 5 <= self._total
        return 2 * len(self.statuses) >= self._total and (len(self._owners) > 1 or late)

    # ------------------------------------------------------------------ the kill

    async def _strike(self, burst: int) -> None:
        """Kill one worker in the middle of its work and measure how the others take over."""
        if len(self._workers.alive) < 2:
            self._watcher.say(
                "The killed worker held nothing; another one is hired for the next try."
            )
            self._owners.clear()
            self._workers.hire()
            return
        await self._start(burst)
        if not await self._at_work():
            return
        victim = self._dice.choice(self._workers.alive)
        killed_at = self._app.store.clock.now()
        self._workers.kill(victim)
        self._watcher.say(
            f"kill -9 {victim.pid}: worker {victim.name} is dead, in the middle of its work"
        )
        self.takeover = await self._watch_takeover(victim, killed_at, await self._owned())
        if self.takeover is not None:
            self._watcher.say(
                f"{len(self.takeover.orders)} orders were taken over: the first "
                f"{self.takeover.first:.2f} s after the kill, the last {self.takeover.last:.2f} s"
            )

    async def _at_work(self) -> bool:
        """Wait a moment until both workers hold orders; whether any was seen to."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + 0.5
        seen: set[str | None] = set()
        while loop.time() < limit:
            owners = {found.owner for found in await self._owned()}
            if len(owners) > 1:
                return True
            seen |= owners
        return bool(seen)

    async def _watch_takeover(
        self, victim: WorkerProcess, killed_at: datetime, held: Sequence[Instance]
    ) -> Takeover | None:
        """Who held what is not asked: an order moved on under a new epoch, or its owner lives."""
        epochs = {found.saga_id: found.epoch for found in held}
        taken: list[str] = []
        for saga_id, epoch in epochs.items():
            if await self._changes_hands(saga_id, epoch):
                taken.append(saga_id)
        if not taken:
            return None
        times = [await self._moved_on(saga_id, epochs[saga_id]) for saga_id in taken]
        after = sorted((time - killed_at).total_seconds() for time in times)
        return Takeover(victim.name, victim.pid, tuple(taken), after[0], after[-1])

    async def _changes_hands(self, saga_id: str, epoch: int) -> bool:
        """Wait until it has a new owner (True) or has ended under the old one (False)."""

        async def look() -> bool:
            while True:
                found = await self._app.orchestrator.get(saga_id)
                if found.epoch > epoch:
                    return True
                if found.status in ENDED or found.status is Status.STUCK:
                    return False
                await asyncio.sleep(_LOOK)

        return await _patiently(look(), f"order {saga_id} was not taken over")

    async def _moved_on(self, saga_id: str, epoch: int) -> datetime:
        """When the first event of a new owner was recorded."""

        async def look() -> datetime:
            while True:
                async for entry in self._app.orchestrator.history(saga_id):
                    if entry.row.epoch > epoch:
                        return entry.at
                await asyncio.sleep(_LOOK)

        return await _patiently(look(), f"order {saga_id} did not move on")


async def _patiently(work: Awaitable[T], otherwise: str) -> T:
    try:
        return await asyncio.wait_for(work, _PATIENCE)
    except TimeoutError as error:
        raise UnavailableError(f"{otherwise} within {_PATIENCE:g} s") from error
