"""What the tests of a store begin with: workers, instances, claims, events."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.events import Json, Status
from orchestrator.ports import Append, Claim, EventRow, StartRequest, Store
from orchestrator.runtime.service import new_id

LEASE = timedelta(seconds=30)
ORDER = ("order", 1)


def request(**fields: object) -> StartRequest:
    """A start of the saga *order*, with a new id unless one is given."""
    defaults: dict[str, object] = {
        "saga_id": new_id(),
        "name": "order",
        "version": 1,
        "fingerprint": "f1",
        "key": None,
        "input": Json('{"n":1}'),
        "context": '{"correlation_id":"c-1"}',
        "correlation_id": "c-1",
    }
    return StartRequest(**{**defaults, **fields})  # type: ignore[arg-type]  # checked by the test


def events(
    claim: Claim, count: int, at: datetime, *, head: int | None = None, data: str = '{"a": 1}'
) -> tuple[EventRow, ...]:
    """The next *count* events of a claimed instance."""
    first = (claim.head if head is None else head) + 1
    return tuple(
        EventRow(
            claim.saga_id, version, "StepSucceeded", "order/0", 1, claim.epoch, data, "{}", at,
            version.to_bytes(32, "big"),
        )
        for version in range(first, first + count)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """Arrangements over one store."""

    store: Store

    async def worker(self, ttl: timedelta = LEASE) -> str:
        """A worker that has joined."""
        worker_id = str(uuid.uuid4())
        await self.store.fleet.join(worker_id, "tester", ttl)
        return worker_id

    async def started(self, count: int = 1, **fields: object) -> list[str]:
        """The ids of new instances."""
        answers = await self.store.requests.start([request(**fields) for _ in range(count)])
        return [answer.saga_id for answer in answers]

    async def claimed(self, count: int = 1, owner: str | None = None) -> list[tuple[str, Claim]]:
        """New instances in the hands of a worker."""
        owner = owner or await self.worker()
        await self.started(count)
        claims = await self.store.queue.claim(owner, count, [ORDER])
        assert len(claims) == count
        return [(owner, claim) for claim in claims]

    def append(
        self,
        owner: str,
        claim: Claim,
        count: int = 1,
        *,
        head: int | None = None,
        status: Status = Status.RUNNING,
        due_at: datetime | None = None,
        keep: bool = True,
        inbox_seen: int = 0,
        if_inbox: bool = False,
        data: str = '{"a": 1}',
    ) -> Append:
        """An append of *count* events."""
        rows = events(claim, count, self.store.clock.now(), head=head, data=data)
        at = claim.head if head is None else head
        after = owner if keep else None
        return Append(
            claim.saga_id, owner, claim.epoch, at, rows, status, due_at, after, inbox_seen, if_inbox
        )

    async def at_rest(self, status: Status) -> str:
        """An instance that stands at *status*, its log closed."""
        [(owner, claim)] = await self.claimed()
        written = await self.store.events.append(
            [self.append(owner, claim, status=status, keep=False)]
        )
        assert claim.saga_id in written
        return claim.saga_id


async def eventually(
    look: Callable[[], Awaitable[bool]], within: float = 15.0, every: float = 0.05
) -> None:
    """Wait until *look* says yes. AssertionError when it does not within *within* seconds."""
    until = asyncio.get_running_loop().time() + within
    while not await look():
        assert asyncio.get_running_loop().time() < until, "it did not come to pass"
        await asyncio.sleep(every)
