"""What is asked about instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from orchestrator.domain.events import Json, Status


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
