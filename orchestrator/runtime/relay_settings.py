"""How a relay behaves, and the bounds around what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.domain.shards import MOST_SHARDS
from orchestrator.errors import InvalidInputError, PublishError
from orchestrator.ports import FeedEvent, FeedPage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay behaves. All times in seconds.

    `publish_bytes` of payload at most are published at once, so that large ones end in time too.
    `ttl >= 2 * publish_timeout` must hold, or one slow publish could cost a live relay its lease;
    other values are refused with InvalidInputError. A mark is written without events when there
    were none of the shard in `mark_every` positions. Every `share_every` it is looked who is there.
    """

    shards: int = 4
    page: int = 500
    publish_bytes: int = 8 * 1024 * 1024
    ttl: float = 15.0
    publish_timeout: float = 7.0
    close_timeout: float = 5.0
    poll_every: float = 0.05
    idle_poll_every: float = 1.0
    backoff: float = 0.1
    backoff_limit: float = 5.0
    refused_pause: float = 30.0
    share_every: float = 2.0
    mark_every: int = 100_000

    def __post_init__(self) -> None:
        if self.ttl < 2 * self.publish_timeout:
            raise InvalidInputError(
                f"a lease of {self.ttl:g} s is too short: it must be at least twice "
                f"publish_timeout ({self.publish_timeout:g} s); raise ttl or lower the other"
            )
        if not 1 <= self.shards <= MOST_SHARDS:
            raise InvalidInputError(
                f"{self.shards} shards cannot be; give a number from 1 to {MOST_SHARDS}"
            )


def parts_of(page: FeedPage, limit: int) -> Iterator[FeedPage]:
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


async def within(limit: float, what: str, work: Awaitable[T]) -> T:
    """PublishError after *limit*, also when *work* does not let itself be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    finally:
        task.cancel()
    if not done:
        raise PublishError(f"{what} took longer than {limit:g} s")
    return task.result()


async def first_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait, and not longer than until one of *events*."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
