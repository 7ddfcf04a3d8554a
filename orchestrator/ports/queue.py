"""The work queue and the list of workers: who may work on which instance, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.domain.events import Json, Status

Definition = tuple[str, int]
"""The name and version of a saga."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one instance: this epoch, until somebody takes another."""

    saga_id: str
    name: str
    version: int
    fingerprint: str
    epoch: int
    head: int
    status: Status
    inbox_seq: int
    claims: int
    requested_at: datetime
    input: Json | None
    context: str
    parent: str | None = None
    parent_node: str = ""
    inbox_seen: int = 0


@dataclass(frozen=True, slots=True)
class Owned:
    """An instance that a worker holds, as the database sees it."""

    saga_id: str
    epoch: int
    inbox_seq: int


SUSPECT = 3
"""An instance with so many claims since its last event may be what ends its workers."""


class WorkQueue(Protocol):
    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        """Take up to *limit* instances that are due and unowned, raising each one's epoch.

        `claims` counts the claims since the owner last appended, this one included (an append
        without events counts too), up to SUSPECT. A suspect is not to be begun before it was
        reclaimed, and that counts: a worker that dies before it began it is not held against it.
        `input` is there when no event is.
        Only a live worker may claim: OwnershipLostError when *owner* was retired.
        """
        ...

    async def reclaim(
        self, owner: str, saga_id: str, epoch: int, *, counts: bool = True
    ) -> Claim | None:
        """Take one's own instance again under a new epoch, after an append of unknown outcome, and
        before a suspect is begun. Where it does not say anything about the instance, it *counts*
        no further than a claim does.

        Waits for the row's lock, so that any transaction of ours still under way has ended.
        None when somebody else holds it.
        """
        ...

    async def release(
        self,
        owner: str,
        saga_ids: Sequence[str],
        delay: timedelta = timedelta(0),
        *,
        untouched: bool = False,
    ) -> None:
        """Give instances back, due after *delay*; their count of claims stays.

        *untouched* ones were not carried at all: the claim is not counted. (That of a suspect
        never was.)
        """
        ...

    async def owned(self, owner: str) -> list[Owned]:
        """What the database thinks this worker holds."""
        ...


@dataclass(frozen=True, slots=True)
class Retired:
    """A worker found dead, and how many instances it left to others."""

    worker_id: str
    reason: str
    released: int


@dataclass(frozen=True, slots=True)
class Member:
    """A worker on the list. `definitions` is None when it is of an age that did not say.

    It is not `alive` when its lease ran out or its presence is gone, and nobody has retired it yet.
    """

    worker_id: str
    label: str
    joined_at: datetime
    lease_until: datetime
    alive: bool
    definitions: tuple[Definition, ...] | None = None


class Fleet(Protocol):
    async def join(
        self,
        worker_id: str,
        label: str,
        ttl: timedelta,
        definitions: Sequence[Definition] | None = None,
    ) -> None:
        """Enter the list of workers, with a lease of *ttl* and a presence that dies with us.

        *definitions* are what it will claim, for others to read; None says nothing about it.
        """
        ...

    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        """Extend the lease; restore the presence. False when others have retired this worker."""
        ...

    async def oldest_transaction(self) -> float:
        """For how many seconds the oldest transaction is open that keeps dead rows of ours; or 0.0."""
        ...

    async def retire_dead(self) -> list[Retired]:
        """Retire workers whose lease ran out or whose presence is gone; free what they held."""
        ...

    async def leave(self, worker_id: str) -> None:
        """Leave the list and free what is still held, due at once."""
        ...

    async def members(self) -> list[Member]:
        """The workers that have not left and were not retired, the oldest first."""
        ...
