"""What a consumer without a database knows of sagas: what it saw itself since it got its part."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from orchestrator.adapters.postgres.consumed import HandlerError, gap, result_of
from orchestrator.errors import RejectedRecordError, UnavailableError
from orchestrator.messaging.event import Event
from orchestrator.ports import Record

LIMIT = 100_000
"""Sagas that are remembered; those that were silent for longest are forgotten first."""


class Remembered:
    """The last version of each saga seen, and the sagas that are parked."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._last: OrderedDict[str, int] = OrderedDict()
        self._parked: OrderedDict[str, int] = OrderedDict()

    async def take(
        self,
        event: Event,
        record: Record,
        call: Callable[[Event], Awaitable[None]],
        limit: float,
    ) -> None:
        """Call the handlers, unless it is a repeat. GapError when something is missing before it.

        Raises HandlerError for what they raise, and for one that takes longer than *limit*.
        """
        last, failed = self._last.get(event.saga_id), self._parked.get(event.saga_id)
        if last is not None and event.version > last + 1:
            raise gap(event.saga_id, last, event.version, record)
        if failed is not None and event.version >= failed:
            # One that came before, too: perhaps its dead letter was not written.
            self._remember(event)
            raise RejectedRecordError(
                f"event {event.id}: version {failed} of its saga failed, and nothing more is handled"
            )
        if last is not None and event.version <= last:
            return
        await _call_within(limit, call(event))
        self._remember(event)

    def park(self, event: Event) -> None:
        """Hand nothing more of this saga out."""
        self._parked.setdefault(event.saga_id, event.version)
        self._remember(event)

    def forget(self, _: Iterable[object]) -> None:
        """Partitions were dealt anew: what came in between, others have seen."""
        self._last.clear()

    def _remember(self, event: Event) -> None:
        self._last[event.saga_id] = max(event.version, self._last.get(event.saga_id, 0))
        self._last.move_to_end(event.saga_id)
        while len(self._last) > self._limit:
            self._last.popitem(last=False)


async def _call_within(limit: float, call: Awaitable[None]) -> None:
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=limit)
        late = not task.done()
    finally:
        task.cancel()
    if late:
        raise HandlerError(TimeoutError(f"the handler took longer than {limit:g} s"))
    try:
        result_of(task)
    except UnavailableError:
        raise
    except Exception as error:
        raise HandlerError(error) from error
