"""Coroutines that are cancelled at the n-th place where they wait, and what must be left then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

import asyncpg

from orchestrator.ports import Store
from tests.contract.given import eventually

BUSY = (
    "SELECT application_name, state, wait_event, query FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'idle'"
)
OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND state LIKE 'idle in transaction%'"
)


class Cut:
    """Cancels a coroutine at its *at*-th wait, *late* seconds after that has begun."""

    def __init__(self, at: int, late: float) -> None:
        self.at = at
        self.late = late
        self.waits = 0
        self.struck = False
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, Any]) -> BaseException | None:
        """How it ended: the error, None for a result. `struck` says whether it was cancelled."""
        self._task = asyncio.create_task(_stepped(work, self))
        await asyncio.wait({self._task}, timeout=20)
        assert self._task.done(), "it was cancelled, and goes on"
        if self._task.cancelled():
            return asyncio.CancelledError()
        return self._task.exception()

    def wait_begins(self) -> None:
        """The coroutine is about to wait."""
        self.waits += 1
        if self.waits == self.at:
            loop = asyncio.get_running_loop()
            if self.late:
                loop.call_later(self.late, self._strike)
            else:
                loop.call_soon(self._strike)

    def _strike(self) -> None:
        assert self._task is not None
        self.struck = self._task.cancel()


@coroutine
def _stepped(work: Coroutine[Any, Any, Any], cut: Cut) -> Generator[Any, Any, Any]:
    """*work*, each of whose waits is told to *cut*."""
    error: BaseException | None = None
    while True:
        try:
            waits_for = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            return end.value
        cut.wait_begins()
        error = None
        try:
            yield waits_for
        except BaseException as thrown:  # noqa: BLE001 - handed on to the coroutine
            error = thrown


class Calm:
    """What a store has at rest, and a look at whether it is at rest again."""

    def __init__(self, store: Store, side: asyncpg.Connection[asyncpg.Record]) -> None:
        self._database = store.events._database
        self._side = side
        self._before = asyncio.all_tasks()

    async def returns(self) -> None:
        """No connection lent, no transaction open, no task left over."""
        try:
            await eventually(self._is_back, within=5, every=0.005)
        except AssertionError as error:
            raise AssertionError(f"still there: {await self._at_work()}") from error
        assert await self._side.fetchval(OPEN) == 0

    async def _is_back(self) -> bool:
        return not await self._at_work()

    async def _at_work(self) -> list[object]:
        lent = [
            holder
            for pool in (self._database._pool, self._database._lists)
            for holder in pool._holders
            if holder._in_use is not None
        ]
        return [*lent, *self._left(), *map(tuple, await self._side.fetch(BUSY))]

    def _left(self) -> set[asyncio.Task[Any]]:
        now = {task for task in asyncio.all_tasks() if not task.done()}
        return {task for task in now - self._before if task.get_name() != "hints"}
