"""One shard of the feed to the broker: complete, in order per saga."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

from orchestrator.domain.policies import Backoff
from orchestrator.domain.shards import WHOLE, Shard
from orchestrator.errors import FencedError, PositionError, UnavailableError
from orchestrator.ports import (
    EVENTS,
    Clock,
    Cursor,
    Feed,
    FeedPage,
    Hints,
    Mark,
    Publisher,
    Telemetry,
)
from orchestrator.runtime import machine
from orchestrator.runtime.relay_agreement import Agreement
from orchestrator.runtime.relay_lease import Lease
from orchestrator.runtime.relay_pages import Pages
from orchestrator.runtime.relay_position import Start, Trust
from orchestrator.runtime.relay_settings import RelaySettings, first_of, parts_of, within

log = logging.getLogger(__name__)


class ShardRelay:
    """Carries a shard to a publisher from where the broker has it; of many, one does.

    The lease comes first, then the publisher, which fences the one before; then the mark is read.
    The checkpoint follows the broker, never the other way round. Any failure ends the *term*: the
    publisher and the position are dropped, and the next term asks again for both.
    """

    def __init__(
        self,
        feed: Feed,
        hints: Hints,
        open_publisher: Callable[[], Awaitable[Publisher]],
        telemetry: Telemetry,
        settings: RelaySettings | None = None,
        *,
        name: str = "events",
        owner: str | None = None,
        shard: Shard = WHOLE,
        trust: Trust = Trust.NEITHER,
        clock: Clock | None = None,
    ) -> None:
        self._hints = hints
        self._open_publisher = open_publisher
        self._telemetry = telemetry
        self._settings = settings or RelaySettings()
        self._backoff = Backoff(
            timedelta(seconds=self._settings.backoff),
            cap=timedelta(seconds=self._settings.backoff_limit),
        )
        self._name = name
        self._owner = owner or machine.new_name()
        self._lease = Lease(feed, name, self._owner, self._settings.ttl)
        self._agreement = Agreement(self._lease, self._settings.publish_timeout, trust)
        self._pages = Pages(feed, shard, self._settings)
        self._clock = clock
        self._failures = 0
        self._reached = Cursor(0, 0)
        self._marked = 0
        self._oldest: datetime | None = None
        self._stop = asyncio.Event()
        self.held = False

    @property
    def lag(self) -> float:
        """The age in seconds of the oldest event that was read and not published yet."""
        if self._oldest is None or self._clock is None:
            return 0.0
        return max((self._clock.now() - self._oldest).total_seconds(), 0.0)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until *stop* is set; then finish the page in hand and give the lease up."""
        self._stop = stop
        unlisten = self._hints.listen(EVENTS, self._pages.news.set)
        try:
            while not stop.is_set():
                try:
                    await self._term()
                except UnavailableError as error:
                    await self._recover(error)
        finally:
            unlisten()
            await self._give_up()

    # ------------------------------------------------------------------ one term

    async def _term(self) -> None:
        cursor = await self._acquire()
        if cursor is None:
            return
        self.held = True
        async with self._publisher() as publisher:
            start = await self._begin(cursor, publisher)
            if start is not None:
                self._telemetry.count("relay_terms")
                self._say(logging.INFO, "takes over")
                await self._publish_from(start, publisher)

    async def _acquire(self) -> Cursor | None:
        """The checkpoint, once no other relay holds it; None when asked to stop."""
        while not self._stop.is_set():
            cursor = await self._lease.acquire()
            if cursor is not None:
                return cursor
            self.held = False
            await first_of(self._settings.idle_poll_every, self._stop)
        return None

    @contextlib.asynccontextmanager
    async def _publisher(self) -> AsyncIterator[Publisher]:
        limit = self._settings.publish_timeout + self._settings.close_timeout
        publisher = await within(limit, "opening a publisher", self._open_publisher())
        try:
            yield publisher
        except UnavailableError:
            self._telemetry.count("producers_rebuilt")
            raise
        finally:
            try:
                await within(self._settings.close_timeout, "closing", publisher.close())
            except UnavailableError as error:
                self._say(logging.WARNING, f"lets a publisher go: {error}")

    async def _begin(self, cursor: Cursor, publisher: Publisher) -> Start | None:
        """Where to go on; None when fenced."""
        start = await self._agreement.begin(cursor, publisher, self._reached)
        if start is None:
            self._fenced()
            return None
        self._marked, self._oldest = start.position, None
        self._reached = Cursor(max(start.position, start.published), cursor.epoch)
        return start if await self._follow(self._reached) else None

    # ------------------------------------------------------------------ publishing

    async def _publish_from(self, start: Start, publisher: Publisher) -> None:
        """Page after page, until asked to stop, fenced, or something fails."""
        page: FeedPage | None = None
        position = start.position
        while not self._stop.is_set():
            if page is None or page.position <= position:
                page = await self._pages.next(position, self._stop, self._renew)
            if page is None:
                return
            if page.events:
                self._oldest = page.events[0].row.recorded_at
            start.verify(page.events)
            ahead = self._pages.ahead(page)
            try:
                for part in parts_of(page, self._settings.publish_bytes):
                    position = part.position
                    if self._stop.is_set() or not await self._publish(part, publisher):
                        return
                page = await ahead if ahead is not None and not self._stop.is_set() else None
            finally:
                await self._pages.drop(ahead)

    async def _publish(self, part: FeedPage, publisher: Publisher) -> bool:
        """Publish, then move the checkpoint; False when fenced."""
        if part.events:
            self._oldest = part.events[0].row.recorded_at
        if part.events or part.position - self._marked >= self._settings.mark_every:
            loop = asyncio.get_running_loop()
            began = loop.time()
            mark = Mark(self._reached.position, part.position, self._reached.epoch)
            limit = self._settings.publish_timeout
            await within(limit, "publishing", publisher.publish(part.events, mark))
            self._marked = part.position
            self._telemetry.batch("relay", len(part.events), loop.time() - began)
            self._telemetry.count("published_events", len(part.events))
        return await self._move(part.position)

    async def _move(self, position: int) -> bool:
        """Move the checkpoint, never backwards; False when it is not ours to move any more."""
        reached = Cursor(max(position, self._reached.position), self._reached.epoch)
        if not await self._follow(reached):
            return False
        self._failures, self._reached, self._oldest = 0, reached, None
        return True

    async def _follow(self, reached: Cursor) -> bool:
        moved = await self._lease.move(reached)
        if not moved:
            self._fenced()
        return moved

    async def _renew(self) -> bool:
        """Keep the lease while there is nothing to publish; False when it is another's."""
        if await self._lease.acquire() == self._reached:
            return True
        self._fenced()
        return False

    # ------------------------------------------------------------------ when it does not go on

    def _fenced(self) -> None:
        """Another relay owns the checkpoint: what we hold is worth nothing any more."""
        self.held = False
        self._telemetry.count("relays_fenced")
        self._say(logging.WARNING, "was taken over by another; waits for its lease to end")

    async def _recover(self, error: UnavailableError) -> None:
        """Wait longer after each failure in a row."""
        self._failures += 1
        self._telemetry.count("relay_failures")
        delay = self._backoff.delay(self._failures, self._owner).total_seconds()
        if isinstance(error, PositionError):
            self._telemetry.count("positions_refused")
            self._say(logging.ERROR, f"does not publish: {error}")
            await self._keep(self._settings.refused_pause)
            return
        if isinstance(error, FencedError):
            self._fenced()
        else:
            self._say(logging.WARNING, f"goes back to its checkpoint in {delay:.1f} s: {error}")
        await first_of(delay, self._stop)

    async def _keep(self, seconds: float) -> None:
        """Wait, and keep the lease: another relay may not know what this one knows."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._stop.is_set() and (left := until - loop.time()) > 0:
            await first_of(min(left, self._settings.ttl / 3), self._stop)
            try:
                await self._lease.acquire()
            except UnavailableError as error:
                self._say(logging.WARNING, f"cannot keep its lease: {error}")

    async def _give_up(self) -> None:
        self.held = False
        try:
            await self._lease.give_up()
        except UnavailableError as error:
            self._say(logging.WARNING, f"leaves its lease to run out: {error}")

    def _say(self, level: int, what: str) -> None:
        position = self._reached.position
        known = {"relay": self._name, "owner": self._owner, "position": position}
        log.log(level, "relay %s %s (position %d)", self._name, what, position, extra=known)
