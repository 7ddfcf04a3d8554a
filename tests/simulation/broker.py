"""A broker that loses acknowledgements, tears batches apart and keeps relays waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import PublishError
from orchestrator.ports import FeedEvent, Mark
from tests.simulation.faults import Faults
from tests.simulation.timeline import Timeline

PARTITIONS = 2


@dataclass(eq=False)
class Broker:
    """The topic: what was stored, in order."""

    timeline: Timeline
    faults: Faults
    records: list[FeedEvent] = field(default_factory=list)
    positions: set[int] = field(default_factory=set)

    def store(self, events: Sequence[FeedEvent]) -> None:
        self.records.extend(events)
        self.positions.update(event.row.position for event in events)
        if events:
            first, last = events[0].row.position, events[-1].row.position
            self.timeline.say(f"BROKER stores {first}..{last}")


class SimPublisher:
    """orchestrator.ports.Publisher; of no use after its first failure."""

    def __init__(self, broker: Broker, place: Any) -> None:
        self._broker = broker
        self._place = place
        self._failed = False

    async def mark(self) -> Mark | None:
        return None

    async def publish(self, events: Sequence[FeedEvent], mark: Mark) -> None:
        broker, faults = self._broker, self._broker.faults
        if self._failed:
            raise PublishError("this publisher has failed before")
        self._failed = True
        await self._place.point("publish")
        await asyncio.sleep(broker.timeline.random.uniform(0.001, 0.01))
        if self._place.cut:
            await asyncio.sleep(3_600)
        if faults.strikes("batch refused"):
            raise PublishError("refused")
        if faults.strikes("publish hangs"):
            if broker.timeline.random.random() < 0.5:
                broker.timeline.after(6.0, broker.store, events)
            await asyncio.sleep(3_600)
        if faults.strikes("batch torn"):
            # A partition takes its batch whole; one of them failed.
            broker.store([e for e in events if _partition(e) == 0])
            raise PublishError("one partition refused")
        broker.store(events)
        if faults.strikes("batch stored twice"):
            broker.store(events)
        await self._place.point("published")
        if faults.strikes("acknowledgement lost"):
            raise PublishError("the acknowledgement was lost")
        self._failed = False

    async def close(self) -> None:
        if self._failed and self._broker.faults.on:
            await asyncio.sleep(self._broker.timeline.random.choice((0.0, 3_600.0)))


async def open_publisher(broker: Broker, place: Any) -> SimPublisher:
    await place.point("open publisher")
    await asyncio.sleep(0.002)
    if broker.faults.strikes("broker away"):
        raise PublishError("there is no broker")
    return SimPublisher(broker, place)


def _partition(event: FeedEvent) -> int:
    return event.row.saga_id.encode()[-1] % PARTITIONS
