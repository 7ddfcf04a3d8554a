"""One event of a saga, as a reader outside sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.errors import RejectedRecordError
from orchestrator.ports import Record

PREFIX = "saga."
"""What CloudEvents puts before the type of an event."""

ID_LIMIT = 200
"""Characters of a saga's id; ours have 36."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact in the life of one saga instance; `version` counts them from 1, without gaps.

    `data` is the payload and `meta` says who and why, both as JSON values. `topic`, `partition`
    and `offset` say where the record lies; `id` names this event and no other.
    """

    saga_id: str
    saga: str
    saga_version: int
    version: int
    type: str
    node: str
    attempt: int
    epoch: int
    recorded_at: datetime
    correlation_id: str
    position: int
    data: Any
    meta: Mapping[str, Any]
    topic: str = ""
    partition: int = 0
    offset: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        """The CloudEvents id: saga id and version."""
        return f"{self.saga_id}/{self.version}"


def event_of(record: Record) -> Event:
    """The event in *record*. Raises RejectedRecordError when there is none."""
    try:
        value = json.loads(record.value or b"")
        return Event(
            saga_id=_name(_text(value, "saga_id")),
            saga=_text(value, "saga"),
            saga_version=int(value["saga_version"]),
            version=_version(value["version"]),
            type=_text(value, "type"),
            node=_text(value, "node"),
            attempt=int(value["attempt"]),
            epoch=int(value["epoch"]),
            recorded_at=datetime.fromisoformat(value["recorded_at"]),
            correlation_id=_text(value, "correlation_id"),
            position=int(value["position"]),
            data=value["data"],
            meta=value["meta"],
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            headers={name: text.decode("utf-8", "replace") for name, text in record.headers},
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RejectedRecordError(
            f"record {record.place} holds no event of a saga: {type(error).__name__}: {error}"
        ) from error


def _text(value: Any, name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise TypeError(f"{name} is {found!r}, not a text")
    return found


def _name(saga_id: str) -> str:
    if not 0 < len(saga_id) <= ID_LIMIT or not saga_id.isprintable():
        raise ValueError(f"saga_id is {saga_id[:50]!r}, not 1 to {ID_LIMIT} printable characters")
    return saga_id


def _version(found: Any) -> int:
    if type(found) is not int or not 0 < found < 2**63:
        raise ValueError(f"version is {found!r}; versions count from 1")
    return found
