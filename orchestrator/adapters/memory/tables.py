"""What a database would hold, as plain objects. One turn of the event loop is one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.standing import REPAIRS, TURNS
from orchestrator.ports import (
    SUSPECT,
    Clock,
    Definition,
    EventRow,
    FeedEvent,
    Instance,
    Message,
    StartRequest,
)

_TURNS = frozenset(kind.__name__ for kind in TURNS)
_REPAIRS = frozenset(kind.__name__ for kind in REPAIRS)

AT_REST = ENDED | {Status.STUCK}
"""Where an instance has no owner and nothing is due."""


@dataclass(slots=True)
class SagaRow:
    """One instance: what was asked for, and where it stands."""

    request: StartRequest
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    status: Status = Status.PENDING
    epoch: int = 0
    owner: str | None = None
    claims: int = 0
    pivoted: bool = False
    inbox_seen: int = 0
    events: list[EventRow] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    dedupe_keys: set[str] = field(default_factory=set)

    @property
    def head(self) -> int:
        return len(self.events)

    @property
    def inbox_seq(self) -> int:
        return len(self.inbox)

    def told(self, stored: EventRow) -> FeedEvent:
        """An event of this instance, as the feed gives it."""
        request, turn = self.request, ""
        if stored.type in _REPAIRS:
            before = (e.type for e in reversed(self.events) if e.version < stored.version)
            turn = next((type_ for type_ in before if type_ in _TURNS), "")
        return FeedEvent(
            stored,
            request.name,
            request.version,
            request.correlation_id,
            request.key,
            request.parent,
            dict(request.tags),
            turn,
        )

    @property
    def instance(self) -> Instance:
        """The row as the lists show it."""
        request = self.request
        return Instance(
            request.saga_id,
            request.name,
            request.version,
            request.fingerprint,
            request.key,
            self.status,
            self.head,
            self.epoch,
            self.owner,
            self.due_at,
            request.correlation_id,
            dict(request.tags),
            self.created_at,
            self.updated_at,
            request.parent,
            self.pivoted,
            self.claims,
            self.inbox_seen,
        )


@dataclass(slots=True)
class WorkerRow:
    """One worker's lease, and whether its connection still stands."""

    lease_until: datetime
    present: bool = True
    label: str = ""
    joined_at: datetime | None = None
    definitions: tuple[Definition, ...] | None = None


@dataclass(slots=True)
class CursorRow:
    """One relay's checkpoint and who may move it."""

    position: int = 0
    epoch: int = 0
    owner: str | None = None
    lease_until: datetime | None = None


@dataclass(slots=True)
class Tables:
    """All rows. A worker that is not in `workers` has left, was retired, or never joined."""

    clock: Clock
    sagas: dict[str, SagaRow] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    workers: dict[str, WorkerRow] = field(default_factory=dict)
    log: list[FeedEvent] = field(default_factory=list)
    cursors: dict[str, CursorRow] = field(default_factory=dict)
    members: dict[str, dict[str, datetime]] = field(default_factory=dict)

    def free(self, worker_id: str) -> int:
        """Give back all that a worker holds, due as free_sagas.sql says; how many that were."""
        held = [row for row in self.sagas.values() if row.owner == worker_id]
        for row in held:
            vain = min(row.claims - SUSPECT, 5)
            pause = min(0.25 * 2.0**vain, 5.0) if vain >= 0 else 0.0
            row.owner, row.due_at = None, self.clock.now() + timedelta(seconds=pause)
        return len(held)
