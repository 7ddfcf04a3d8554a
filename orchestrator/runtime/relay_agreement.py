"""Where a term begins: agreed between the checkpoint, the broker's mark, and what a person said."""

from __future__ import annotations

import logging

from orchestrator.errors import PositionError
from orchestrator.ports import Cursor, Mark, Publisher
from orchestrator.runtime.relay_lease import Lease
from orchestrator.runtime.relay_position import Start, Trust, is_amiss, settle
from orchestrator.runtime.relay_settings import within

log = logging.getLogger(__name__)


class Agreement:
    """What a person said counts once: for the first term that begins by it."""

    def __init__(self, lease: Lease, limit: float, trust: Trust) -> None:
        self._lease = lease
        self._limit = limit
        self._trust = trust

    async def begin(self, cursor: Cursor, publisher: Publisher, reached: Cursor) -> Start | None:
        """Where to go on, by one that was at *reached* before; None when the lease is another's.

        The mark is read when all others are fenced at the broker, and the checkpoint again when the
        mark is read: whoever still has the lease then, and only they, may compare the two.
        """
        mark = await within(self._limit, "reading the mark", publisher.mark())
        now = await self._lease.acquire()
        if now is None or now.epoch != cursor.epoch:
            return None
        start = await self._compare(now, mark, publisher, reached)
        if start is not None:
            self._trust = Trust.NEITHER
        return start

    async def _compare(
        self, cursor: Cursor, mark: Mark | None, publisher: Publisher, reached: Cursor
    ) -> Start | None:
        if mark is None:
            return self._without_mark(cursor, reached)
        if self._trust is not Trust.NEITHER and is_amiss(cursor, mark):
            return await self._as_told(cursor, mark, publisher)
        return settle(cursor, mark)

    def _without_mark(self, cursor: Cursor, reached: Cursor) -> Start:
        """From the checkpoint. PositionError when it went back since this relay last had it."""
        if cursor.position < reached.position and self._trust is Trust.NEITHER:
            raise PositionError(
                f"the checkpoint went back to {cursor.position}: an older state of the database was "
                "brought back, and readers have events that are not in it. See that they forget "
                "them (docs/kafka.md), then start the relay anew"
            )
        return Start(cursor.position, 0)

    async def _as_told(self, cursor: Cursor, mark: Mark, publisher: Publisher) -> Start | None:
        """Let checkpoint and mark both be what a person has chosen."""
        position = mark.position if self._trust is Trust.BROKER else cursor.position
        log.warning("relay %s goes on from %d, as it was told", self._lease.name, position)
        if not await self._lease.rewind(Cursor(position, cursor.epoch)):
            return None
        own = Mark(position, position, cursor.epoch)
        await within(self._limit, "writing the mark", publisher.publish((), own))
        return Start(position, position)
