"""What people ask of instances: starts, and messages in their inboxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.domain.events import Json


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
