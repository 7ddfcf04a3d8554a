"""Everything the engine needs from the world, on one page.

All times are aware datetimes in UTC by the database's clock. All ids are UUIDs in their
canonical text form. Adapters raise errors of `orchestrator.errors` only: UnavailableError when
the world cannot be reached, UnknownOutcomeError when a commit was sent and its answer was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.domain.events import Event, Json, Status
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate
from orchestrator.domain.shards import WHOLE, Shard

Definition = tuple[str, int]
"""The name and version of a saga."""


# ---------------------------------------------------------------------------- the event store

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


# ---------------------------------------------------------------------------- the work queue


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

    async def reclaim(self, owner: str, saga_id: str, epoch: int) -> Claim | None:
        """Take one's own instance again under a new epoch, after an append of unknown outcome, and
        before a suspect is begun. It always counts.

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

        *untouched* ones were not carried at all: the claim is not counted.
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


# ---------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A new instance. `context` is JSON text; `tags` are searchable.

    A child names the instance and the node that it belongs to.
    """

    saga_id: str
    name: str
    version: int
    fingerprint: str
    key: str | None
    input: Json
    context: str
    correlation_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    parent_node: str = ""


@dataclass(frozen=True, slots=True)
class StartAnswer:
    """`created` is False when the key was known; then `same_input` says whether it agrees."""

    saga_id: str
    created: bool
    same_input: bool = True


class Requests(Protocol):
    async def start(
        self, batch: Sequence[StartRequest], within: object | None = None
    ) -> list[StartAnswer]:
        """Store new instances, one transaction for all; an answer for each, in order.

        Keys are unique per saga name. A request whose key or id is known stores nothing.
        *within* is the caller's own transaction (an SQLAlchemy AsyncSession or AsyncConnection,
        or an asyncpg connection): then nothing is committed here, and the instances begin when
        the caller commits. InvalidInputError for anything else.
        """
        ...


class Reply(StrEnum):
    """What became of a message to an instance."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too_late"
    STUCK = "stuck"
    NOT_STUCK = "not_stuck"
    FULL = "full"
    NOT_FOUND = "not_found"


class MessageKind(StrEnum):
    """What a message to an instance asks for."""

    CANCEL = "cancel"
    SIGNAL = "signal"
    TERMINATE = "terminate"
    RESUME = "resume"
    RETRY = "retry"
    SKIP = "skip"
    RESOLVE = "resolve"
    CHILD = "child"
    """From a child: it has ended, is stuck, or was undone."""
    UNDO = "undo"
    """From a parent: take back what was completed."""
    REPLY = "reply"
    """From a participant: what became of a command."""


REPAIRS = frozenset({MessageKind.RESUME, MessageKind.RETRY, MessageKind.SKIP, MessageKind.RESOLVE})
"""What only a stuck instance can be told."""

INBOX_LIMIT = 10_000
"""Messages of one instance that its owner has not read yet; further signals are refused as FULL."""


@dataclass(frozen=True, slots=True)
class Message:
    """One command to an instance, as its inbox holds it."""

    seq: int
    kind: str
    payload: Mapping[str, Any]
    actor: str
    sent_at: datetime


class Inbox(Protocol):
    async def send(
        self, saga_id: str, kind: str, payload: Mapping[str, Any], *, actor: str, dedupe_key: str
    ) -> Reply:
        """Put a message into the inbox and make the instance due, in one transaction.

        A dedupe key counts once per instance, whatever its first message came to (DUPLICATE).
        Otherwise, by where the instance stands (nothing is stored unless it says ACCEPTED):

        - live (pending, running, waiting): all are ACCEPTED, but repairs (NOT_STUCK), `undo`
          (ACCEPTED only once it has ended; NOT_STUCK here), and `cancel` when the row says
          pivoted (TOO_LATE).
        - compensating: the same, and `cancel` is ACCEPTED without effect.
        - stuck: repairs and `terminate` are ACCEPTED and free the row to be claimed (status
          waiting, due now); `signal`, `child` and `reply` are ACCEPTED and change nothing else;
          `cancel` and `undo` answer STUCK.
        - completed: `undo` is ACCEPTED and frees the row to be claimed; the rest is TOO_LATE.
        - compensated, terminated: TOO_LATE.
        """
        ...

    async def read(self, saga_id: str, after: int) -> list[Message]:
        """Messages after sequence *after*, in order."""
        ...


# ---------------------------------------------------------------------------- the feed


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event with what a reader outside needs to know of its instance.

    `turn` is the type of the last of `domain.standing.TURNS` before it, told with the events that
    lead back to it, `domain.standing.REPAIRS`; else empty.
    """

    row: EventRow
    saga_name: str
    saga_version: int
    correlation_id: str
    key: str | None = None
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    turn: str = ""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events in position order, none missing up to `position`, from where to read on."""

    events: tuple[FeedEvent, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What a broker keeps with a batch: the checkpoint before it, and where it ends.

    No checkpoint is ever between the two. `epoch` is that of the relay that wrote it.
    """

    since: int
    position: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """A relay's checkpoint and the epoch under which it may move it."""

    position: int
    epoch: int


@dataclass(frozen=True, slots=True)
class RelayStanding:
    """How far a relay has come, and whose lease runs; `owner` is None when nobody's does."""

    relay: str
    position: int
    owner: str | None
    lease_until: datetime | None


class Feed(Protocol):
    async def acquire(self, relay: str, owner: str, ttl: timedelta) -> Cursor | None:
        """Become the one that moves this relay's checkpoint; None while another's lease runs.

        The present owner gets its own cursor, extended, under the same epoch.
        """
        ...

    async def read(self, after: int, limit: int, shard: Shard = WHOLE) -> FeedPage:
        """Events of *shard* after position *after*; never past one that may still be committed."""
        ...

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        """Move the checkpoint forward and extend the lease; False when another owns it now."""
        ...

    async def rewind(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        """As `checkpoint`, but backwards too: only where a person has asked for it."""
        ...

    async def give_up(self, relay: str, owner: str) -> None:
        """End one's lease, so that the next relay need not wait for it."""
        ...

    async def pin(self, relay: str, shards: int) -> None:
        """Make the checkpoints of *shards* shards. ConflictError when there is another number."""
        ...

    async def attend(self, relay: str, owner: str, ttl: timedelta) -> list[str]:
        """Say that this process is there to relay, and learn who else is; in order, with oneself."""
        ...

    async def leave(self, relay: str, owner: str) -> None:
        """Be no longer among those who share the shards."""
        ...

    async def lag(self, relay: str) -> int:
        """Positions between the checkpoint, of the shard that is the last, and the end of the log."""
        ...

    async def relays(self) -> list[RelayStanding]:
        """Every relay that ever was the owner of a checkpoint, by name."""
        ...


class Publisher(Protocol):
    async def mark(self) -> Mark | None:
        """The mark of the last batch that readers see. None: this publisher keeps no marks.

        One that keeps marks has fenced every earlier publisher of the shard when it is open: none
        of them adds a batch any more. Without a batch so far, the mark is that of position 0.
        """
        ...

    async def publish(self, events: Sequence[FeedEvent], mark: Mark) -> None:
        """Hand events to the broker in order; return when all are acknowledged.

        A publisher that keeps marks stores events and *mark* together or not at all. After a
        PublishError it is unknown what was stored; the publisher is of no more use.
        """
        ...

    async def close(self) -> None:
        """Let go of the broker, within a few seconds whatever it does."""
        ...


# ---------------------------------------------------------------------------- records that come in


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic; `timestamp` is in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> str:
        """Where it lies: topic/partition/offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        """The header of that name as text, the last of several; None when there is none."""
        found = next((value for known, value in reversed(self.headers) if known == name), None)
        return None if found is None else found.decode("utf-8", "replace")


class Intake(Protocol):
    async def take(self, record: Record, attempt: int) -> None:
        """Make durable what a record asks for; once this returns, its offset may be committed.

        The same record may come again, to this intake or to another one. Records of one key come
        one after the other, in order. Raises RejectedRecordError for one that goes to the dead
        letters; NotYetError for one that is brought again a little later, as the next *attempt*
        (they count from 1); UnavailableError is waited out and counts as no attempt. Any other
        error stops the partition before this record.
        """
        ...


class DeadLetters(Protocol):
    async def put(self, record: Record, error: Exception) -> None:
        """Keep a record that cannot be taken in, with the reason; durable when this returns.

        Raises UnavailableError when it is not known to be kept; it may be kept twice then.
        """
        ...


# ---------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the lists show it."""

    saga_id: str
    name: str
    version: int
    fingerprint: str
    key: str | None
    status: Status
    head: int
    epoch: int
    owner: str | None
    due_at: datetime | None
    correlation_id: str
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    parent: str | None = None
    pivoted: bool = False
    claims: int = 0
    inbox_seen: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which instances to list; newest first, at most `limit`, older than id `before`."""

    status: Status | None = None
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    before: str | None = None
    limit: int = 50
    parent: str | None = None
    key: str | None = None


class ReadModel(Protocol):
    async def get(self, saga_id: str) -> Instance | None: ...

    async def ended(self, saga_ids: Sequence[str]) -> Mapping[str, Status]:
        """Those of *saga_ids* that have ended or are stuck, with their status."""
        ...

    async def search(self, wanted: Filter) -> list[Instance]: ...

    async def find(self, prefix: str, limit: int = 5) -> list[str]:
        """Ids that begin with *prefix*, newest first."""
        ...

    async def ids(self, after: str | None, limit: int) -> list[str]:
        """All ids in order, page by page."""
        ...

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        """How many instances stand where, by saga name and status."""
        ...

    async def input(self, saga_id: str) -> Json | None: ...


# ---------------------------------------------------------------------------- shared policies


@dataclass(frozen=True, slots=True)
class Hit:
    """A cached output."""

    output: Json


@dataclass(frozen=True, slots=True)
class Held:
    """Not now: ask again, at the earliest at `until`."""

    until: datetime


class SharedState(Protocol):
    """What sagas know of each other: circuits, rates, caches and budgets, each by its name.

    All of it is advice for calls that have not been made. What an instance saw of it is in its
    events, so losing it loses no saga. Policies are described in `domain.policies`.
    """

    async def admit(self, circuit: Circuit) -> Held | None:
        """None: a call may go through now. Half open, at most `probes` calls are let through
        at a time; a probe that never reports counts no longer after another `reset`."""
        ...

    async def report(self, circuit: Circuit, *, succeeded: bool) -> None:
        """Say what became of an admitted call. Opening and closing are `policies.circuit_after`."""
        ...

    async def reserve(self, rate: Rate, turn: datetime | None = None) -> Held | None:
        """None: one call was taken out of the allowance. Held: nothing was taken, but a place in
        the line: who comes back with that time as its *turn* goes before who comes now."""
        ...

    async def look_up(
        self, cache: CacheRule, key: str, holder: str, patience: timedelta
    ) -> Hit | Held | None:
        """A fresh output; Held while another holder computes it; None: *holder* is to compute it.

        A holder that is silent for *patience* has lost its turn. The same holder that asks
        again gets None again.
        """
        ...

    async def keep(self, cache: CacheRule, key: str, holder: str, output: Json) -> None:
        """Store what *holder* computed; the oldest entries over `max_size` are dropped."""
        ...

    async def let_go(self, cache: CacheRule, key: str, holder: str) -> None:
        """Say that *holder* failed to compute it: the next may try at once."""
        ...

    async def spent(self, budget: BudgetRule) -> float:
        """What was spent in the present period."""
        ...

    async def spend(self, budget: BudgetRule, amount: float, receipt: str) -> None:
        """Add to what was spent; the same *receipt* counts once."""
        ...


# ---------------------------------------------------------------------------- small ones


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


class Verdict(StrEnum):
    """What a check says: fine, worth a look, or something needed is missing."""

    FINE = "fine"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `saga doctor` looked at."""

    subject: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Removable:
    """What `saga prune` finds that ended before a day: how much, and how much of it has to stay for now.

    `behind` is the relay that keeps what is `unpublished`: the one that has come least far.
    """

    sagas: int
    events: int
    unpublished: int
    held: int
    behind: RelayStanding | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What `saga prune` removed, and the months of the log that were dropped with it."""

    sagas: int
    events: int
    months: tuple[str, ...]
