"""What came of one instance, for a test to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Failure, Status
from orchestrator.domain.evolve import fold
from orchestrator.runtime.service import HistoryEntry
from orchestrator.testing.journal import Call, Journal, Kind, Named
from orchestrator.testing.snapshot import told
from orchestrator.testing.tables import indented, shortened, table

Out = TypeVar("Out")

_DETAILS = (
    "status", "output", "failure", "reason", "input", "due_at", "route", "signal", "payload",
    "answer", "actor", "by", "holds",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Outcome(Generic[Out]):
    """One instance as it stands: where, how it came there, and with what effects.

    `completed` and `compensated` are the names of the steps that succeeded and that were undone,
    each in order. `failure` is what made it turn round or stick, `reason` says it in words.
    """

    saga_id: str
    saga: str
    version: int
    status: str
    events: tuple[HistoryEntry, ...]
    journal: Journal = field(repr=False)
    value: Any = None

    @property
    def result(self) -> Out:
        """What the saga gave. AssertionError, with the history, when it gave nothing."""
        if self.status != Status.COMPLETED:
            raise AssertionError(f"there is no result:\n{self}")
        result: Out = self.value
        return result

    @property
    def completed(self) -> tuple[str, ...]:
        """The steps that succeeded, in order; those that were undone later included."""
        return tuple(e.step for e in self._all(ev.StepSucceeded, ev.CacheHit))

    @property
    def compensated(self) -> tuple[str, ...]:
        """The steps that were undone, in order."""
        return tuple(e.step for e in self._all(ev.StepCompensated))

    @property
    def failure(self) -> Failure | None:
        """What made it turn round."""
        turns = self._all(ev.CompensationStarted)
        if turns:
            found: Failure | None = turns[-1].failure
            return found
        return None

    @property
    def reason(self) -> str:
        """Why it ended as it did; empty when all is well."""
        told = [e.reason for e in self._all(*_REASONED)]
        return str(told[-1]) if told else ""

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The signals that it waits for now."""
        state = fold(self.saga_id, [entry.event for entry in self.events])
        waits = {e.node: e.signal for e in self._all(ev.WaitStarted)}
        return tuple(signal for node, signal in waits.items() if state.at(node).waiting)

    @property
    def took(self) -> timedelta:
        """From the request to the last event, in virtual time."""
        return self.events[-1].at - _begun(self.events) if self.events else timedelta(0)

    def effects(self, step: Named, kind: Kind = "step") -> int:
        """How often the effect of *step* was applied, in the whole simulation."""
        return self.journal.effects(step, kind)

    def calls(self, step: Named, kind: Kind = "step") -> tuple[Call, ...]:
        """The calls of *step*, in the whole simulation."""
        return self.journal.of(step, kind)

    def _all(self, *kinds: type[Any]) -> list[Any]:
        return [entry.event for entry in self.events if isinstance(entry.event, kinds)]

    def __repr__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        head = f"{self.saga} version {self.version} is {self.status}{why}"
        return f"{head}\n\n{history_table(self.events)}\n\n{effects_table(self.journal.calls)}"

    __str__ = __repr__


_REASONED = (ev.CompensationStarted, ev.SagaCompensated, ev.SagaStuck, ev.SagaTerminated)


def history_table(events: Sequence[HistoryEntry]) -> str:
    """A history, a line for each event."""
    if not events:
        return "  history: nothing happened yet"
    begun = _begun(events)
    rows: list[tuple[object, ...]] = [
        (e.seq, e.row.epoch, _clock(e.at - begun), e.type, e.node, _detail(e.event)) for e in events
    ]
    shown = shortened(rows, lambda row: row[3:5], lambda n: ("…", "", "", _more(n), "", ""))
    return "  history\n" + indented(table(("#", "owner", "after", "event", "place", "what"), shown))


def effects_table(calls: Sequence[Call]) -> str:
    """The calls of steps, a line for each."""
    if not calls:
        return "  effects: no step was called"
    rows: list[tuple[object, ...]] = [
        (c.what, c.attempt, c.process, _key(c), _effect(c), c.outcome) for c in calls
    ]
    head = ("call", "attempt", "process", "key", "effect", "answer")
    shown = shortened(rows, lambda row: (row[0], row[3]), lambda n: (_more(n), "…", "", "", "", ""))
    return "  effects\n" + indented(table(head, shown))


def _effect(call: Call) -> str:
    """Whether it took effect and, where the fakes are watched, what of it belongs to no one key."""
    seen = {place: change for place, change in call.moved.items() if "[" not in place}
    parts = ["applied"] if call.applied else ["in part"] if call.moved else []
    return ", ".join([*parts, *told(seen)]) if call.alone else " ".join(parts)


def _more(left_out: int) -> str:
    return f"({left_out:,} more like these)"


def _begun(events: Sequence[HistoryEntry]) -> datetime:
    first = events[0]
    return first.event.requested_at if isinstance(first.event, ev.SagaStarted) else first.at


def _key(call: Call) -> str:
    """The key, its saga's id shortened: ids begin alike, so their ends tell them apart."""
    head, tail = call.key[: len(call.saga_id)], call.key[len(call.saga_id) :]
    return f"…{head[-4:]}{tail}" if head == call.saga_id else call.key


def _detail(event: Event) -> str:
    """The part of an event that a reader looks for."""
    values: Mapping[str, Any] = {f.name: getattr(event, f.name) for f in fields(event)}
    told = [_text(values[name]) for name in _DETAILS if values.get(name) not in (None, "", "null")]
    name = values.get("step") or values.get("name") or ""
    return " ".join(dict.fromkeys([str(name), *told])).strip()


def _text(value: Any) -> str:
    if isinstance(value, Failure):
        return f"{value.type}: {value.message}"
    return str(value)


def _clock(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:g} s" if seconds < 600 else str(span)
