"""The event store: what is appended and read, and a transaction that a step shares with its append."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from orchestrator.domain.events import Status

MAX_RECORD_BYTES = 2 * 1024 * 1024
"""The largest record that is published: an event with all that goes along with it."""

EVENT_DATA_LIMIT = MAX_RECORD_BYTES - 256 * 1024
"""The most bytes of `data` that an event may have. What is left is more than the rest of a record
can take: ids, names and paths, and three times over a context of 16 KiB whose text may treble when
it is escaped. So no event that is in the log is too large to be published."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One fact as it is stored. `data` and `meta` are JSON text, exactly as written."""

    saga_id: str
    version: int
    type: str
    node: str
    attempt: int
    epoch: int
    data: str
    meta: str
    recorded_at: datetime
    hash: bytes
    position: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one instance, written only while *owner* holds *epoch* and the log ends at *head*.

    `owner_after=None` gives the instance up: it waits until `due_at`, or has ended. With
    `if_inbox` the append is also refused when the inbox went past `inbox_seen`. An append
    without events changes the row only (park, or release). `pivoted` is remembered by the row
    for good: from then on a cancel comes too late.
    """

    saga_id: str
    owner: str
    epoch: int
    head: int
    events: tuple[EventRow, ...]
    status: Status
    due_at: datetime | None
    owner_after: str | None
    inbox_seen: int
    if_inbox: bool
    pivoted: bool = False


class EventStore(Protocol):
    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        """Write each append of the batch or refuse it, all in one transaction.

        Returns the inbox sequence of the instances that were written; one that is missing was
        fenced (or its inbox had news). Raises UnknownOutcomeError when it may or may not be
        written, UnavailableError when certainly nothing was.
        """
        ...

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        """The events of one instance after version *after*, in order."""
        ...


class Transaction(Protocol):
    """A transaction that is open for a `@transactional` step; it ends with the append, or not at all."""

    handle: Any
    """What the step's function asked for: an SQLAlchemy AsyncSession, or an asyncpg connection."""

    async def append(self, append: Append) -> int:
        """Write the append as the transaction's last statement and commit; the inbox sequence.

        Raises OwnershipLostError when it was refused (all is rolled back), UnknownOutcomeError
        when it may or may not be committed, UnavailableError when certainly nothing was.
        InvalidInputError when the step ended its transaction by itself, and the step's own
        errors where a constraint is checked at the end, mean that all was rolled back.
        """
        ...


class Transactions(Protocol):
    def open(self, wanted: Any) -> AbstractAsyncContextManager[Transaction]:
        """A transaction whose handle is of type *wanted*; rolled back unless it was appended to.

        Raises InvalidInputError for a type that this store has no handle for.
        """
        ...
