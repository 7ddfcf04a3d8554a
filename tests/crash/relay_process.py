"""A relay as a process of its own, which stops between a send and its checkpoint when told to.

    python -m tests.crash.relay_process DSN SERVERS TOPIC '{"hold": 0, "transactions": true, ...}'

Before checkpoint number `hold` that moves (0: never) it prints `holding` and waits for a line on
its input. SIGTERM ends it in good order.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

from orchestrator.adapters.kafka import KafkaSettings, open_publisher, open_transactional
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain.shards import Shard
from orchestrator.errors import UnavailableError
from orchestrator.ports import Cursor, Feed, Publisher
from orchestrator.runtime.relay import Relay
from orchestrator.runtime.relay_settings import RelaySettings

SETTINGS = RelaySettings(
    shards=1,
    page=20,
    ttl=2.0,
    publish_timeout=1.0,
    idle_poll_every=0.1,
    share_every=0.2,
    backoff_limit=1.0,
)


@dataclass(frozen=True)
class Told:
    """What the command line says."""

    hold: int = 0
    transactions: bool = True
    shards: int = 1
    page: int = 20


class HoldingFeed:
    """The real feed, but for a pause before one of its checkpoints."""

    def __init__(self, feed: Feed, hold: int) -> None:
        self._feed = feed
        self._hold = hold
        self._checkpoints = 0
        self._at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    async def acquire(self, relay: str, owner: str, ttl: timedelta) -> Cursor | None:
        cursor = await self._feed.acquire(relay, owner, ttl)
        self._at = cursor.position if cursor is not None else self._at
        return cursor

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        self._checkpoints += cursor.position > self._at
        if self._checkpoints == self._hold and cursor.position > self._at:
            print("holding", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        self._at = cursor.position
        moved = await self._feed.checkpoint(relay, owner, cursor, ttl)
        if not moved:
            print("fenced", flush=True)
        return moved


async def main(dsn: str, servers: str, topic: str, how: str) -> None:
    told = Told(**json.loads(how))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    while not stop.is_set():
        try:
            await carry(dsn, KafkaSettings(servers, topic), told, stop)
        except UnavailableError as error:  # the database is away when the process starts
            print(f"cannot start: {error}", file=sys.stderr)
            await asyncio.wait({asyncio.ensure_future(stop.wait())}, timeout=0.2)


async def carry(dsn: str, kafka: KafkaSettings, told: Told, stop: asyncio.Event) -> None:
    async def opened(shard: Shard) -> Publisher:
        if told.transactions:
            return await open_transactional(kafka, shard)
        return await open_publisher(kafka)

    settings = replace(SETTINGS, shards=told.shards, page=told.page)
    async with open_store(dsn) as store:
        feed = cast("Feed", HoldingFeed(store.feed, told.hold))
        owner = f"process {os.getpid()}"
        relay = Relay(feed, store.hints, opened, SilentTelemetry(), settings, owner=owner)
        await relay.run(stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
