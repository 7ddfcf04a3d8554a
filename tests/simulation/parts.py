"""What worlds are built of."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.adapters.codec import JsonCodec
from orchestrator.domain.events import Event
from orchestrator.runtime.relay_shard import ShardRelay


@dataclass
class Telemetry:
    """Counts what has no event, and listens for the rest."""

    counts: Counter[str]

    def recorded(self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str) -> None:
        self.counts.update(type(event).__name__ for event in events)

    def attempted(self, saga_name: str, step: str, outcome: str, seconds: float) -> None:
        return

    def batch(self, kind: str, size: int, seconds: float) -> None:
        return

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] += by

    def level(self, name: str, of: str, value: float) -> None:
        return


@dataclass
class Parts:
    """What a world is built of; a mutant puts something worse in a place."""

    database: dict[str, Any] = field(default_factory=dict)
    ports: dict[str, Any] = field(default_factory=dict)
    relay: type[ShardRelay] = ShardRelay
    patches: list[tuple[Any, str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def patched(patches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Put each value in the place of what is there, for a while."""
    missing = object()
    before = [(what, name, getattr(what, name, missing)) for what, name, _ in patches]
    for what, name, value in patches:
        setattr(what, name, value)
    try:
        yield
    finally:
        for what, name, value in reversed(before):
            if value is missing:
                delattr(what, name)
            else:
                setattr(what, name, value)


@functools.cache
def codec() -> JsonCodec:
    """Shared by all seeds: it remembers how types are written."""
    return JsonCodec()
