"""Records that come in from a broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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
