"""What is looked at and removed to keep a database well."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.ports.feed import RelayStanding


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
