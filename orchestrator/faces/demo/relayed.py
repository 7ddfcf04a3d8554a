"""Publishes a demo's events to the configured broker while it runs, and counts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from orchestrator.bootstrap import App
from orchestrator.domain.events import Event
from orchestrator.faces.demo.report import Relayed

_PATIENCE = 20.0
_RELAY = "events"


class Published:
    """Telemetry that keeps the one figure a demo reports."""

    def __init__(self) -> None:
        self.events = 0

    def recorded(self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str) -> None:
        """Told of nothing: the demo's own process advances no saga."""

    def attempted(self, saga_name: str, step: str, outcome: str, seconds: float) -> None:
        """As above."""

    def batch(self, kind: str, size: int, seconds: float) -> None:
        """Sizes are of no interest here."""

    def count(self, name: str, by: int = 1) -> None:
        """Add up what the relay hands to the broker."""
        if name == "published_events":
            self.events += by

    def level(self, name: str, of: str, value: float) -> None:
        """As above."""


Finish = Callable[[], Awaitable[Relayed | None]]


@asynccontextmanager
async def relaying(app: App, published: Published) -> AsyncIterator[Finish]:
    """Relay in the background if a broker is configured; what is yielded waits until all is out."""
    relay = app.relay()
    if relay is None:
        yield _nothing
        return
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop), name="relay")

    async def finish() -> Relayed:
        loop = asyncio.get_running_loop()
        limit = loop.time() + _PATIENCE
        lag = await app.store.feed.lag(_RELAY)
        while lag and loop.time() < limit:
            await asyncio.sleep(0.05)
            lag = await app.store.feed.lag(_RELAY)
        return Relayed(app.settings.kafka_bootstrap_servers, published.events, lag)

    try:
        yield finish
    finally:
        stop.set()
        await task


async def _nothing() -> None:
    return None
