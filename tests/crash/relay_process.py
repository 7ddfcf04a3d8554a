"""A relay as a process of its own, which stops between a send and its checkpoint when told to.

    python -m tests.crash.relay_process DSN SERVERS TOPIC HOLD

Before checkpoint number HOLD (0: never) it prints `holding` and waits for a line on its input.
SIGTERM ends it in good order.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta
from functools import partial
from typing import Any, cast

from orchestrator.adapters.kafka import KafkaSettings, open_publisher
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import Cursor, Feed
from orchestrator.runtime.relay import Relay, RelaySettings

SETTINGS = RelaySettings(page=20, ttl=2.0, publish_timeout=1.0, idle_poll_every=0.1)


class HoldingFeed:
    """The real feed, but for a pause before one of its checkpoints."""

    def __init__(self, feed: Feed, hold: int) -> None:
        self._feed = feed
        self._hold = hold
        self._checkpoints = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        self._checkpoints += 1
        if self._checkpoints == self._hold:
            print("holding", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        moved = await self._feed.checkpoint(relay, owner, cursor, ttl)
        if not moved:
            print("fenced", flush=True)
        return moved


async def main(dsn: str, servers: str, topic: str, hold: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    kafka = KafkaSettings(servers, topic)
    async with open_store(dsn) as store:
        feed = cast("Feed", HoldingFeed(store.feed, int(hold)))
        opened = partial(open_publisher, kafka)
        await Relay(feed, store.hints, opened, SilentTelemetry(), SETTINGS).run(stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
