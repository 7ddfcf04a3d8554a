"""Waiting for instances to end, however many and by whomever they are carried."""

from __future__ import annotations

import asyncio

from orchestrator.domain.events import Status
from orchestrator.errors import UnavailableError
from orchestrator.ports import ENDS, Store
from orchestrator.runtime.recorder import one_each

_PATIENCE = 5.0


class Ends:
    """Waits for the ends of many instances with one query at a time."""

    def __init__(self, store: Store, poll: float = 0.02, slowest: float = 0.25) -> None:
        self._store = store
        self._poll = poll
        self._slowest = slowest
        self._waiting: dict[str, list[asyncio.Future[Status]]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()

    async def wait(self, saga_id: str, within: float | None) -> Status:
        future: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(saga_id, []).append(future)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="ends")
        self._hint.set()
        try:
            await asyncio.wait({future}, timeout=within)
            if not future.done():
                raise TimeoutError(f"saga {saga_id} has not ended within {within:g} s; it goes on")
            return future.result()
        finally:
            futures = self._waiting.get(saga_id, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._waiting.pop(saga_id, None)

    async def _watch(self) -> None:
        unlisten = self._store.hints.listen(ENDS, self._hint.set)
        pause = self._poll
        try:
            while self._waiting:
                self._hint.clear()
                ended = await self._store.reads.ended(list(self._waiting))
                for saga_id, status in ended.items():
                    for future in self._waiting.get(saga_id, []):
                        if not future.done():
                            future.set_result(status)
                pause = self._poll if ended else min(pause * 1.5, self._slowest)
                await _either(self._hint, pause)
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits
            self._fail(error)
        finally:
            unlisten()
            self._watcher = None

    def _fail(self, error: Exception) -> None:
        waiting = [future for futures in self._waiting.values() for future in futures]
        waiting = [future for future in waiting if not future.done()]
        for future, own in zip(waiting, one_each(error, len(waiting)), strict=True):
            future.set_exception(own)

    async def close(self) -> None:
        """Look no more. Who still waits gets an UnavailableError."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher}, timeout=_PATIENCE)
        self._fail(UnavailableError("this orchestrator was closed; what was started goes on"))


async def _either(hint: asyncio.Event, seconds: float) -> None:
    timer = asyncio.get_running_loop().call_later(seconds, hint.set)
    try:
        await hint.wait()
    finally:
        timer.cancel()
