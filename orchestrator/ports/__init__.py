"""Everything the engine needs from the world.

All times are aware datetimes in UTC by the database's clock. All ids are UUIDs in their
canonical text form. Adapters raise errors of `orchestrator.errors` only: UnavailableError when
the world cannot be reached, UnknownOutcomeError when a commit was sent and its answer was lost.
"""

from orchestrator.ports.events import (
    EVENT_DATA_LIMIT,
    MAX_RECORD_BYTES,
    Append,
    EventRow,
    EventStore,
    Transaction,
    Transactions,
)
from orchestrator.ports.feed import (
    Cursor,
    Feed,
    FeedEvent,
    FeedPage,
    Mark,
    Publisher,
    RelayStanding,
)
from orchestrator.ports.queue import (
    SUSPECT,
    Claim,
    Definition,
    Fleet,
    Member,
    Owned,
    Retired,
    WorkQueue,
)
from orchestrator.ports.reads import Filter, Instance, ReadModel
from orchestrator.ports.records import DeadLetters, Intake, Record
from orchestrator.ports.requests import (
    INBOX_LIMIT,
    REPAIRS,
    Inbox,
    Message,
    MessageKind,
    Reply,
    Requests,
    StartAnswer,
    StartRequest,
)
from orchestrator.ports.shared import Held, Hit, SharedState
from orchestrator.ports.store import (
    DUE,
    ENDS,
    EVENTS,
    Clock,
    Codec,
    Hints,
    OpenStore,
    Store,
    Telemetry,
)
from orchestrator.ports.upkeep import Finding, Removable, Removed, Verdict

__all__ = [
    "DUE",
    "ENDS",
    "EVENTS",
    "EVENT_DATA_LIMIT",
    "INBOX_LIMIT",
    "MAX_RECORD_BYTES",
    "REPAIRS",
    "SUSPECT",
    "Append",
    "Claim",
    "Clock",
    "Codec",
    "Cursor",
    "DeadLetters",
    "Definition",
    "EventRow",
    "EventStore",
    "Feed",
    "FeedEvent",
    "FeedPage",
    "Filter",
    "Finding",
    "Fleet",
    "Held",
    "Hints",
    "Hit",
    "Inbox",
    "Instance",
    "Intake",
    "Mark",
    "Member",
    "Message",
    "MessageKind",
    "OpenStore",
    "Owned",
    "Publisher",
    "ReadModel",
    "Record",
    "RelayStanding",
    "Removable",
    "Removed",
    "Reply",
    "Requests",
    "Retired",
    "SharedState",
    "StartAnswer",
    "StartRequest",
    "Store",
    "Telemetry",
    "Transaction",
    "Transactions",
    "Verdict",
    "WorkQueue",
]
