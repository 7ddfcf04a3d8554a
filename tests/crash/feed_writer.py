"""Writes sagas with plain events into a store, and looks at what came of them in a topic."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.domain.chain import genesis, link
from orchestrator.domain.events import Json, Status
from orchestrator.ports import Append, Claim, EventRow, StartRequest, Store
from orchestrator.runtime.service import new_id
from tests.kafka_reader import Read

VERSIONS = 10


@dataclass
class Writer:
    """Writes sagas with plain events into the store, and knows what it wrote."""

    store: Store
    owner: str = field(default_factory=lambda: str(uuid.uuid4()))
    hashes: dict[str, bytes] = field(default_factory=dict)

    async def write(self, sagas: int) -> None:
        names = [new_id() for _ in range(sagas)]
        await self.store.requests.start([_request(saga_id) for saga_id in names])
        claims = await self.store.queue.claim(self.owner, sagas, [("order", 1)])
        assert {claim.saga_id for claim in claims} == set(names)
        for version in range(1, VERSIONS + 1):
            rows = [self._append(claim, version) for claim in claims]
            assert len(await self.store.events.append(rows)) == sagas

    def _append(self, claim: Claim, version: int) -> Append:
        last = version == VERSIONS
        return Append(
            saga_id=claim.saga_id,
            owner=self.owner,
            epoch=claim.epoch,
            head=version - 1,
            events=(self._row(claim, version),),
            status=Status.COMPLETED if last else Status.RUNNING,
            due_at=None,
            owner_after=None if last else self.owner,
            inbox_seen=claim.inbox_seq,
            if_inbox=False,
        )

    def _row(self, claim: Claim, version: int) -> EventRow:
        now, saga_id = self.store.clock.now(), claim.saga_id
        fact = ("StepSucceeded", "order/0", version, claim.epoch)
        data, meta = f'{{"output":{version}}}', "{}"
        previous = self.hashes.get(saga_id, genesis(saga_id))
        self.hashes[saga_id] = link(previous, saga_id, version, *fact, now, meta, data)
        return EventRow(saga_id, version, *fact, data, meta, now, self.hashes[saga_id])


def _request(saga_id: str) -> StartRequest:
    return StartRequest(saga_id, "order", 1, "fingerprint", None, Json("{}"), "{}", "request")


async def all_published(store: Store, within: float = 60) -> None:
    """Wait until nothing of the log is left to publish."""
    async with asyncio.timeout(within):
        while await store.feed.lag("events"):
            await asyncio.sleep(0.05)


def repeats(records: list[Read]) -> int:
    return len(records) - len({(record.key, record.version) for record in records})


def assert_complete_and_in_order(records: list[Read], sagas: Iterable[str]) -> None:
    """First occurrences by version in one partition; repeats the same to the byte; no more."""
    seen: dict[tuple[str, int], Read] = {}
    order: defaultdict[str, list[int]] = defaultdict(list)
    partitions: defaultdict[str, set[int]] = defaultdict(set)
    for record in records:
        partitions[record.key].add(record.partition)
        first = seen.setdefault((record.key, record.version), record)
        assert (record.value, record.headers) == (first.value, first.headers)
        if first is record:
            order[record.key].append(record.version)
    assert order == {saga_id: list(range(1, VERSIONS + 1)) for saga_id in sagas}
    assert all(len(found) == 1 for found in partitions.values())
