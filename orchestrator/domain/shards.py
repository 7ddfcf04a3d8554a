"""Which part of all sagas an instance belongs to: the same here and in SQL, for ever."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from orchestrator.errors import ConflictError

MOST_SHARDS = 256
"""The hash has sixteen bits: with more shards their sizes would begin to differ."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The sagas whose hash leaves `index` when divided by `of`."""

    index: int
    of: int

    def has(self, saga_id: str) -> bool:
        return self.of == 1 or shard_of(saga_id, self.of) == self.index


WHOLE = Shard(0, 1)


def shard_of(saga_id: str, shards: int) -> int:
    """The number of the shard that an instance belongs to. `read_feed.sql` computes the same.

    The first bytes of an id change with the time in some kinds of UUID, the last in others.
    """
    octets = UUID(saga_id).bytes
    return ((octets[2] ^ octets[14]) << 8 | (octets[3] ^ octets[15])) % shards


def shard_name(relay: str, index: int) -> str:
    """What a shard's checkpoint is called."""
    return f"{relay}/{index}"


def is_shard_for(saga_id: str, name: str, names: Collection[str]) -> bool:
    """Whether the checkpoint *name*, of all there are, is that of an instance's events."""
    relay, slash, index = name.rpartition("/")
    shards = sum(other.startswith(f"{relay}/") for other in names)
    return not slash or int(index) == shard_of(saga_id, shards)


def require_shards(relay: str, wanted: int, known: int) -> None:
    """ConflictError when a relay has another number of shards than is *wanted*."""
    if wanted != known:
        raise ConflictError(
            f"relay {relay} has {known} shards and the settings say {wanted}: the number is fixed "
            f"when a relay first runs, because each shard has a checkpoint of its own; set "
            f"SAGA_RELAY_SHARDS={known}"
        )
