"""Read topics record by record; an offset is committed once its record was dealt with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]  # ships no types

from orchestrator.adapters.kafka.settings import BROKER_ERRORS, KafkaSettings, reach, within
from orchestrator.adapters.kafka.topic import ensure_topics
from orchestrator.errors import UnavailableError

log = logging.getLogger(__name__)

Deal = Callable[[Any], Awaitable[None]]
"""Deals with one record. UnavailableError: it is dealt with again later, and nothing after it."""

_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_SESSION, _REBALANCE, _JOINING = 6_000, 15_000, 10_000
"""Milliseconds: how soon a member that died is replaced, and how long the others may take."""


async def consume(
    settings: KafkaSettings,
    topics: Sequence[str],
    group: str,
    deal: Deal,
    stop: asyncio.Event,
) -> None:
    """Deal with every record of *topics*, in order per partition, until *stop* is set.

    A record is dealt with again when its offset could not be committed: *deal* drops repeats.
    Whatever fails, the consumer is thrown away and the next begins at the committed offsets.
    """
    pause = _PAUSE
    while not stop.is_set():
        began = asyncio.get_running_loop().time()
        try:
            await _term(settings, topics, group, deal, stop)
        except (UnavailableError, *BROKER_ERRORS) as error:
            if asyncio.get_running_loop().time() - began > _LONGEST_PAUSE:
                pause = _PAUSE
            log.warning("%s goes back to its offsets in %.1f s: %r", group, pause, error)
            await _wait(stop, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _term(
    settings: KafkaSettings, topics: Sequence[str], group: str, deal: Deal, stop: asyncio.Event
) -> None:
    if settings.create_topic:
        await ensure_topics(settings, topics)
    # Joining takes until the session of a member that died is over.
    patient = {**settings.client(), "request_timeout_ms": _JOINING + _REBALANCE}
    consumer: Any = AIOKafkaConsumer(
        **patient,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=_SESSION,
        heartbeat_interval_ms=_SESSION // 6,
        rebalance_timeout_ms=_REBALANCE,
    )
    try:
        # Started without topics: with them it would wait for the group, for as long as it takes.
        await reach(settings, consumer.start())
        consumer.subscribe(topics)
        while not stop.is_set():
            fetched = await consumer.getmany(timeout_ms=200, max_records=200)
            if fetched:
                parts = [
                    _deal_with(consumer, partition, records, deal, stop)
                    for partition, records in fetched.items()
                ]
                _raise_first(await asyncio.gather(*parts, return_exceptions=True))
    finally:
        try:
            await within(settings.close_timeout, consumer.stop())
        except BROKER_ERRORS as error:
            log.warning("a Kafka consumer did not stop by itself: %r", error)


async def _deal_with(
    consumer: Any, partition: Any, records: Sequence[Any], deal: Deal, stop: asyncio.Event
) -> None:
    done: int | None = None
    try:
        for record in records:
            if stop.is_set():
                return
            await deal(record)
            done = record.offset + 1
    finally:
        if done is not None:
            await consumer.commit({partition: done})


def _raise_first(results: Sequence[BaseException | None]) -> None:
    for found in results:
        if found is not None:
            raise found


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()
