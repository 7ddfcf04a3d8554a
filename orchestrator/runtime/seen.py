"""What was seen of one instance, and the form of an answer to why it does not move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.domain.awaiting import Awaited, Recorded
from orchestrator.domain.state import SagaState
from orchestrator.ports import EventRow, Instance, Member, Message, RelayStanding

LISTED = 5
"""Names in a sentence; the others are counted."""


class Cause(StrEnum):
    """What kind of reason it is."""

    ENDED = "ended"
    STUCK = "stuck"
    UNREADABLE = "unreadable"
    OWNER_LOST = "owner lost"
    WORKING = "working"
    NO_WORKER = "no worker"
    NOT_SERVED = "not served"
    DUE = "due"
    IN_VAIN = "claimed in vain"
    CHILD_STUCK = "child stuck"
    CHILD = "child"
    SIGNAL = "signal"
    REPLY = "reply"
    HOLD = "hold"
    RETRY = "retry"
    UNDO_RETRY = "undo retry"
    PROBE = "probe"
    TIMER = "timer"
    PAUSE = "pause"
    STEP = "step"
    TIMEOUT = "time-out"
    DEADLINE = "deadline"
    TIME = "time"
    UNREAD = "unread"
    UNPUBLISHED = "unpublished"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: a sentence, since when, until when at most, and the commands that would help."""

    cause: Cause
    text: str
    since: datetime | None = None
    until: datetime | None = None
    do: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kid:
    """A child that is waited for, and its own first reason where that was asked."""

    instance: Instance
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was read about one instance. `state` is None when its history cannot be read."""

    instance: Instance
    now: datetime
    claim_limit: int
    state: SagaState | None = None
    history: Sequence[Recorded] = ()
    rows: Sequence[EventRow] = ()
    unreadable: str = ""
    waits: Sequence[Awaited] = ()
    kids: Mapping[str, Kid] = field(default_factory=dict)
    members: Sequence[Member] = ()
    unread: Sequence[Message] = ()
    relays: Sequence[RelayStanding] = ()

    @property
    def saga_id(self) -> str:
        return self.instance.saga_id

    @property
    def saga(self) -> str:
        return f"{self.instance.name} version {self.instance.version}"

    @property
    def due(self) -> bool:
        due_at = self.instance.due_at
        return self.instance.owner is None and due_at is not None and due_at <= self.now


def listed(names: Iterable[str], between: str = ", ") -> str:
    """*names* in one line: the first few, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    return between.join(known[:LISTED]) + more
