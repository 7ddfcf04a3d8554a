"""One shard of the feed to the broker: complete, in order per saga."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

from orchestrator.domain.policies import Backoff
from orchestrator.domain.shards import WHOLE, Shard
from orchestrator.errors import FencedError, PositionError, UnavailableError
from orchestrator.ports import (
    EVENTS,
    Cursor,
    Feed,
    FeedPage,
    Hints,
    Mark,
    Publisher,
    Telemetry,
)
from orchestrator.runtime import machine
from orchestrator.runtime.relay_position import Start, Trust, is_amiss, settle
from orchestrator.runtime.relay_settings import RelaySettings, first_of, parts_of, within

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


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
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._feed = feed
        self._hints = hints
        self._open_publisher = open_publisher
        self._telemetry = telemetry
        self._settings = settings or RelaySettings()
        self._ttl = timedelta(seconds=self._settings.ttl)
        self._backoff = Backoff(
            timedelta(seconds=self._settings.backoff),
            cap=timedelta(seconds=self._settings.backoff_limit),
        )
        self._name = name
        self._owner = owner or machine.new_name()
        self._shard = shard
        self._trust = trust
        self._now = now
        self._failures = 0
        self._reached = Cursor(0, 0)
        self._marked = 0
        self._oldest: datetime | None = None
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self.held = False

    @property
    def lag(self) -> float:
        """The age in seconds of the oldest event that was read and not published yet."""
        return max((self._now() - self._oldest).total_seconds(), 0.0) if self._oldest else 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until *stop* is set; then finish the page in hand and give the lease up."""
        self._stop = stop
        unlisten = self._hints.listen(EVENTS, self._news.set)
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
            cursor = await self._feed.acquire(self._name, self._owner, self._ttl)
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
        """Where to go on; None when fenced.

        The mark is read when all others are fenced at the broker, and the lease is looked at when
        the mark is read: whoever has the lease then, and only they, goes on from it.
        """
        limit = self._settings.publish_timeout
        mark = await within(limit, "reading the mark", publisher.mark())
        if mark is None:
            start = self._begin_without_mark(cursor)
        elif self._trust is not Trust.NEITHER and is_amiss(cursor, mark):
            start = await self._agree_as_told(cursor, mark, publisher)
        else:
            start = settle(cursor, mark)
        self._trust, self._marked = Trust.NEITHER, start.position
        self._reached = Cursor(max(start.position, start.published), cursor.epoch)
        return start if await self._move(self._reached.position) else None

    def _begin_without_mark(self, cursor: Cursor) -> Start:
        """From the checkpoint. PositionError when it went back since this relay last had it."""
        if cursor.position < self._reached.position and self._trust is Trust.NEITHER:
            raise PositionError(
                f"the checkpoint went back to {cursor.position}: an older state of the database was "
                "brought back, and readers have events that are not in it. See that they forget "
                "them (docs/kafka.md), then start the relay anew"
            )
        return Start(cursor.position, 0)

    async def _agree_as_told(self, cursor: Cursor, mark: Mark, publisher: Publisher) -> Start:
        """Let checkpoint and mark both be what a person has chosen."""
        position = mark.position if self._trust is Trust.BROKER else cursor.position
        self._say(logging.WARNING, f"goes on from {position}, as it was told")
        agreed = Cursor(position, cursor.epoch)
        if await self._feed.rewind(self._name, self._owner, agreed, self._ttl):
            own = Mark(position, position, cursor.epoch)
            limit = self._settings.publish_timeout
            await within(limit, "writing the mark", publisher.publish((), own))
        return Start(position, position)

    # ------------------------------------------------------------------ publishing

    async def _publish_from(self, start: Start, publisher: Publisher) -> None:
        """Page after page, until asked to stop, fenced, or something fails."""
        page: FeedPage | None = None
        position = start.position
        while not self._stop.is_set():
            if page is None or page.position <= position:
                page = await self._next_page(position)
            if page is None:
                return
            start.verify(page.events)
            ahead = self._read_ahead(page)
            try:
                for part in parts_of(page, self._settings.publish_bytes):
                    position = part.position
                    if self._stop.is_set() or not await self._publish(part, publisher):
                        return
                page = await ahead if ahead is not None and not self._stop.is_set() else None
            finally:
                await self._drop(ahead)

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
        if not await self._feed.checkpoint(self._name, self._owner, reached, self._ttl):
            self._fenced()
            return False
        self._failures, self._reached, self._oldest = 0, reached, None
        return True

    # ------------------------------------------------------------------ reading

    async def _next_page(self, position: int) -> FeedPage | None:
        """The page after *position*, waited for; None when fenced or asked to stop."""
        loop = asyncio.get_running_loop()
        poll, renew_at = self._settings.poll_every, loop.time() + self._settings.ttl / 3
        while not self._stop.is_set():
            self._news.clear()
            page = await self._feed.read(position, self._settings.page, self._shard)
            if page.position > position:
                return page
            if loop.time() >= renew_at:
                if await self._feed.acquire(self._name, self._owner, self._ttl) != self._reached:
                    self._fenced()
                    return None
                renew_at = loop.time() + self._settings.ttl / 3
            await first_of(poll, self._stop, self._news)
            poll = min(2 * poll, self._settings.idle_poll_every)
        return None

    def _read_ahead(self, page: FeedPage) -> asyncio.Task[FeedPage] | None:
        """The page after a full one, read while that one is published."""
        if len(page.events) < self._settings.page:
            return None
        read = self._feed.read(page.position, self._settings.page, self._shard)
        return asyncio.ensure_future(read)

    async def _drop(self, ahead: asyncio.Task[FeedPage] | None) -> None:
        if ahead is None:
            return
        ahead.cancel()
        await asyncio.wait({ahead}, timeout=self._settings.close_timeout)
        if ahead.done() and not ahead.cancelled() and (error := ahead.exception()):
            self._say(logging.WARNING, f"could not read ahead: {error}")

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
                await self._feed.acquire(self._name, self._owner, self._ttl)
            except UnavailableError as error:
                self._say(logging.WARNING, f"cannot keep its lease: {error}")

    async def _give_up(self) -> None:
        self.held = False
        try:
            await self._feed.give_up(self._name, self._owner)
        except UnavailableError as error:
            self._say(logging.WARNING, f"leaves its lease to run out: {error}")

    def _say(self, level: int, what: str) -> None:
        position = self._reached.position
        known = {"relay": self._name, "owner": self._owner, "position": position}
        log.log(level, "relay %s %s (position %d)", self._name, what, position, extra=known)
