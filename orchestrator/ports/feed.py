"""The feed of all events, and where they are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.domain.shards import WHOLE, Shard
from orchestrator.ports.events import EventRow


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
