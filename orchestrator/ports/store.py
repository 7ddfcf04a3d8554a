"""One store with all of its parts, and the small ports beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from orchestrator.domain.events import Event, Json
from orchestrator.ports.events import EventRow, EventStore, Transactions
from orchestrator.ports.feed import Feed
from orchestrator.ports.queue import Fleet, WorkQueue
from orchestrator.ports.reads import ReadModel
from orchestrator.ports.requests import Inbox, Requests
from orchestrator.ports.shared import SharedState


class Clock(Protocol):
    def now(self) -> datetime: ...


DUE = "saga_due"
EVENTS = "saga_events"
ENDS = "saga_ends"
"""Channels of hints: an instance became due, events were written, an instance ended."""


class Hints(Protocol):
    """Wake-ups between processes. They may be lost: polling is the truth."""

    def poke(self, channel: str) -> None:
        """Wake who listens on *channel*, soon; many pokes become one."""
        ...

    def listen(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake* for every hint; returns what ends it."""
        ...


class Codec(Protocol):
    """Values ⇄ JSON text, events ⇄ rows."""

    def encode(self, value: Any, annotation: Any) -> Json:
        """JSON text that decodes to an equal value. Raises UnrecordableError or
        PayloadTooLargeError."""
        ...

    def decode(self, text: Json, annotation: Any) -> Any:
        """The value, validated. Raises InvalidInputError with a line for each problem."""
        ...

    def encode_event(self, event: Event) -> tuple[str, str, int, str]:
        """type, node, attempt, data."""
        ...

    def decode_event(self, row: EventRow) -> Event:
        """The fact in a row. Raises HistoryError for a type that this code does not know."""
        ...


class Telemetry(Protocol):
    """Told of facts after they are durable; never in the way of them."""

    def recorded(
        self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str
    ) -> None: ...

    def attempted(self, saga_name: str, step: str, outcome: str, seconds: float) -> None: ...

    def batch(self, kind: str, size: int, seconds: float) -> None: ...

    def count(self, name: str, by: int = 1) -> None:
        """Count something that has no event: a claim, a takeover, a fenced append."""
        ...

    def level(self, name: str, of: str, value: float) -> None:
        """Say how high something stands now, like the lag of a shard."""
        ...


@dataclass(frozen=True, slots=True)
class Store:
    """All that one database gives."""

    events: EventStore
    queue: WorkQueue
    fleet: Fleet
    requests: Requests
    inbox: Inbox
    feed: Feed
    reads: ReadModel
    clock: Clock
    hints: Hints
    shared: SharedState
    transactions: Transactions


OpenStore = Callable[[], AbstractAsyncContextManager[Store]]
