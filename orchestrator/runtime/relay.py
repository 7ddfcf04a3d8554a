"""The feed to the broker: complete, in order per saga, repeated only after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from orchestrator.domain.policies import Backoff
from orchestrator.errors import InvalidInputError, PublishError, UnavailableError
from orchestrator.ports import (
    EVENTS,
    Cursor,
    Feed,
    FeedEvent,
    FeedPage,
    Hints,
    Publisher,
    Telemetry,
)
from orchestrator.runtime import machine

log = logging.getLogger(__name__)

T = TypeVar("T")

_SAY_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay behaves. All times in seconds.

    `publish_bytes` of payload at most are published at once, so that large ones end in time too.
    `ttl >= 2 * publish_timeout` must hold, or one slow publish could cost a live relay its lease;
    other values are refused with InvalidInputError.
    """

    page: int = 500
    publish_bytes: int = 8 * 1024 * 1024
    ttl: float = 15.0
    publish_timeout: float = 7.0
    close_timeout: float = 5.0
    poll_every: float = 0.05
    idle_poll_every: float = 1.0
    backoff: float = 0.1
    backoff_limit: float = 5.0

    def __post_init__(self) -> None:
        if self.ttl < 2 * self.publish_timeout:
            raise InvalidInputError(
                f"a lease of {self.ttl:g} s is too short: it must be at least twice "
                f"publish_timeout ({self.publish_timeout:g} s); raise ttl or lower the other"
            )


class Relay:
    """Carries the feed to a publisher from the checkpoint on; of many, one does and the rest wait.

    The checkpoint moves after the broker's acknowledgement, never before. Any failure ends the
    *term*: publisher, lease and position are dropped, and the next term begins at the checkpoint.
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
        self._failures = 0
        self._position = 0
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.run(self._stop), name=f"relay-{self._name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running

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
        async with self._publisher() as publisher:
            cursor = await self._acquire()
            if cursor is not None:
                if cursor.position < self._position:
                    await self._hold_back(cursor)
                    return
                self._telemetry.count("relay_terms")
                self._position = cursor.position
                self._say(logging.INFO, "takes over")
                await self._publish_from(cursor, publisher)

    async def _hold_back(self, cursor: Cursor) -> None:
        """Keep the lease and publish nothing: what the broker has is not in this database any more.

        A checkpoint never goes back by itself. Whoever starts the relay anew has decided.
        """
        loop = asyncio.get_running_loop()
        say_at = 0.0
        self._telemetry.count("relays_held_back")
        while not self._stop.is_set():
            if loop.time() >= say_at:
                say_at = loop.time() + _SAY_EVERY
                self._say(
                    logging.ERROR,
                    f"publishes nothing: its checkpoint went back to {cursor.position}, so an older "
                    "state of the database was brought back, and readers have events that are not in "
                    "it. See that they forget them (docs/kafka.md), then start the relay anew",
                )
            await self._sleep(self._settings.ttl / 3)
            if await self._feed.acquire(self._name, self._owner, self._ttl) is None:
                self._fenced()
                return

    @contextlib.asynccontextmanager
    async def _publisher(self) -> AsyncIterator[Publisher]:
        limit = self._settings.publish_timeout + self._settings.close_timeout
        publisher = await _within(limit, "opening a publisher", self._open_publisher())
        try:
            yield publisher
        finally:
            try:
                await _within(self._settings.close_timeout, "closing", publisher.close())
            except UnavailableError as error:
                self._say(logging.WARNING, f"lets a publisher go: {error}")

    async def _acquire(self) -> Cursor | None:
        """The checkpoint, once no other relay holds it; None when asked to stop."""
        while not self._stop.is_set():
            cursor = await self._feed.acquire(self._name, self._owner, self._ttl)
            if cursor is not None:
                return cursor
            await self._sleep(self._settings.idle_poll_every)
        return None

    async def _publish_from(self, cursor: Cursor, publisher: Publisher) -> None:
        """Page after page, until asked to stop, fenced, or something fails."""
        page: FeedPage | None = None
        while not self._stop.is_set():
            if page is None or page.position <= cursor.position:
                page = await self._next_page(cursor)
            if page is None:
                return
            ahead = self._read_ahead(page)
            try:
                for part in _parts(page, self._settings.publish_bytes):
                    cursor = Cursor(part.position, cursor.epoch)
                    if self._stop.is_set() or not await self._publish(part, cursor, publisher):
                        return
                page = await ahead if ahead is not None and not self._stop.is_set() else None
            finally:
                await self._drop(ahead)

    async def _publish(self, part: FeedPage, reached: Cursor, publisher: Publisher) -> bool:
        """Publish, then move the checkpoint; False when fenced."""
        if part.events:
            loop = asyncio.get_running_loop()
            began = loop.time()
            limit = self._settings.publish_timeout
            await _within(limit, "publishing", publisher.publish(part.events))
            self._telemetry.batch("relay", len(part.events), loop.time() - began)
            self._telemetry.count("published_events", len(part.events))
        if not await self._feed.checkpoint(self._name, self._owner, reached, self._ttl):
            self._fenced()
            return False
        self._failures, self._position = 0, reached.position
        return True

    # ------------------------------------------------------------------ reading

    async def _next_page(self, cursor: Cursor) -> FeedPage | None:
        """The page after *cursor*, waited for; None when fenced or asked to stop."""
        loop = asyncio.get_running_loop()
        poll, renew_at = self._settings.poll_every, loop.time() + self._settings.ttl / 3
        while not self._stop.is_set():
            self._news.clear()
            page = await self._feed.read(cursor.position, self._settings.page)
            if page.position > cursor.position:
                return page
            if loop.time() >= renew_at:
                if await self._feed.acquire(self._name, self._owner, self._ttl) != cursor:
                    self._fenced()
                    return None
                renew_at = loop.time() + self._settings.ttl / 3
            await self._sleep(poll, self._news)
            poll = min(2 * poll, self._settings.idle_poll_every)
        return None

    def _read_ahead(self, page: FeedPage) -> asyncio.Task[FeedPage] | None:
        """The page after a full one, read while that one is published."""
        if len(page.events) < self._settings.page:
            return None
        return asyncio.create_task(self._feed.read(page.position, self._settings.page))

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
        self._telemetry.count("relays_fenced")
        self._say(logging.WARNING, "was taken over by another; waits for its lease to end")

    async def _recover(self, error: UnavailableError) -> None:
        """Wait longer after each failure in a row."""
        self._failures += 1
        self._telemetry.count("relay_failures")
        delay = self._backoff.delay(self._failures, self._owner).total_seconds()
        self._say(logging.WARNING, f"goes back to its checkpoint in {delay:.1f} s: {error}")
        await self._sleep(delay)

    async def _give_up(self) -> None:
        try:
            await self._feed.give_up(self._name, self._owner)
        except UnavailableError as error:
            self._say(logging.WARNING, f"leaves its lease to run out: {error}")

    async def _sleep(self, seconds: float, news: asyncio.Event | None = None) -> None:
        """Wait; not longer than until *news*, or until asked to stop."""
        events = (self._stop,) if news is None else (self._stop, news)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _say(self, level: int, what: str) -> None:
        known = {"relay": self._name, "owner": self._owner, "position": self._position}
        log.log(level, "relay %s %s (position %d)", self._name, what, self._position, extra=known)


def _parts(page: FeedPage, limit: int) -> Iterator[FeedPage]:
    """*page* in runs of events with at most *limit* bytes of payload, or one event, each."""
    part: list[FeedEvent] = []
    size = 0
    for event in page.events:
        if part and size + len(event.row.data) > limit:
            yield FeedPage(tuple(part), part[-1].row.position)
            part, size = [], 0
        part.append(event)
        size += len(event.row.data)
    yield FeedPage(tuple(part), page.position)


async def _within(limit: float, what: str, work: Awaitable[T]) -> T:
    """PublishError after *limit*, also when *work* does not let itself be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    finally:
        task.cancel()
    if not done:
        raise PublishError(f"{what} took longer than {limit:g} s")
    return task.result()
