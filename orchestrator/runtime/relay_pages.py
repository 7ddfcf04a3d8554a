"""What a shard publishes next: waited for, or read while the page before is published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from orchestrator.domain.shards import Shard
from orchestrator.ports import Feed, FeedPage
from orchestrator.runtime.relay_settings import RelaySettings, first_of

log = logging.getLogger(__name__)


class Pages:
    """The pages of one shard, in order. `news` is set when there may be another."""

    def __init__(self, feed: Feed, shard: Shard, settings: RelaySettings) -> None:
        self._feed = feed
        self._shard = shard
        self._settings = settings
        self.news = asyncio.Event()

    async def next(
        self, position: int, stop: asyncio.Event, renew: Callable[[], Awaitable[bool]]
    ) -> FeedPage | None:
        """The page after *position*, waited for; None when asked to stop, or *renew* says so."""
        loop = asyncio.get_running_loop()
        poll, renew_at = self._settings.poll_every, loop.time() + self._settings.ttl / 3
        while not stop.is_set():
            self.news.clear()
            page = await self._read(position)
            if page.position > position:
                return page
            if loop.time() >= renew_at:
                if not await renew():
                    return None
                renew_at = loop.time() + self._settings.ttl / 3
            await first_of(poll, stop, self.news)
            poll = min(2 * poll, self._settings.idle_poll_every)
        return None

    def ahead(self, page: FeedPage) -> asyncio.Task[FeedPage] | None:
        """The page after a full one, read while that one is published."""
        if len(page.events) < self._settings.page:
            return None
        return asyncio.create_task(self._read(page.position))

    async def drop(self, ahead: asyncio.Task[FeedPage] | None) -> None:
        """Let go of a page that may not be wanted any more."""
        if ahead is None:
            return
        ahead.cancel()
        await asyncio.wait({ahead}, timeout=self._settings.close_timeout)
        if ahead.done() and not ahead.cancelled() and (error := ahead.exception()):
            log.warning("shard %d could not read ahead: %s", self._shard.index, error)

    async def _read(self, position: int) -> FeedPage:
        return await self._feed.read(position, self._settings.page, self._shard)
