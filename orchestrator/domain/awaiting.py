"""What an instance waits for, read from its history: no definition is needed, and no worker asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Status
from orchestrator.domain.marks import current
from orchestrator.domain.node_state import NodeState
from orchestrator.domain.planning import Halted, both
from orchestrator.domain.state import SagaState


class Want(StrEnum):
    """What is waited for."""

    CHILD = "child"
    CHILD_UNDO = "child undo"
    SIGNAL = "signal"
    REPLY = "reply"
    HOLD = "hold"
    RETRY = "retry"
    UNDO_RETRY = "undo retry"
    PROBE = "probe"
    TIMER = "timer"
    PAUSE = "pause"
    STEP = "step"
    TIMEOUT = "time-out"
    DEADLINE = "deadline"


BOUNDS = frozenset({Want.TIMEOUT, Want.DEADLINE})
"""What ends the wait for something else."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """One thing that is waited for: at which place, since when, and until when it is, at most.

    `name` is the signal, the step, the child's id, or of a hold the step; then `by` is the guard.
    Of a reply, `by` is the command and its topic.
    """

    want: Want
    path: str
    name: str = ""
    since: datetime | None = None
    until: datetime | None = None
    by: str = ""
    attempt: int = 0


Recorded = tuple[datetime, Event]
"""An event, and when it was recorded."""

_OPENERS: Mapping[type[Event], Want] = {
    ev.ChildRequested: Want.CHILD,
    ev.ChildUndoRequested: Want.CHILD_UNDO,
    ev.WaitStarted: Want.SIGNAL,
    ev.StepHeld: Want.HOLD,
    ev.RemoteRequested: Want.REPLY,
    ev.RetryScheduled: Want.RETRY,
    ev.CompensationRetryScheduled: Want.UNDO_RETRY,
    ev.ProbeRetryScheduled: Want.PROBE,
    ev.TimerSet: Want.TIMER,
    ev.IterationScheduled: Want.PAUSE,
    ev.StepStarted: Want.STEP,
    ev.DeadlineSet: Want.TIMEOUT,
}
_DATED = (Want.TIMER, Want.PAUSE, Want.RETRY)


def awaited(state: SagaState, history: Iterable[Recorded], now: datetime) -> tuple[Awaited, ...]:
    """What *state*, to which *history* led, waits for at *now*; bounds come last.

    What was waited for until a time that is past is not: that is for a worker to go on with.
    """
    found = _Look(state, now, _openings(history))
    if state.status is Status.RUNNING:
        halted = None if state.halt is None else state.halt.running
        return tuple(sorted((*found.forward(halted), *found.backward()), key=_bounds_last))
    return tuple(found.backward()) if state.status is Status.COMPENSATING else ()


def _bounds_last(one: Awaited) -> bool:
    return one.want in BOUNDS


Openings = Mapping[tuple[str, Want], Recorded]


def _openings(history: Iterable[Recorded]) -> Openings:
    """The last event that began a wait, by place and kind of wait."""
    last: dict[tuple[str, Want], Recorded] = {}
    for at, event in history:
        want = _OPENERS.get(type(event))
        if want is not None:
            last[getattr(event, "node", ""), want] = at, event
        elif isinstance(event, ev.SagaStarted):
            last["", Want.DEADLINE] = at, event
    return last


@dataclass(frozen=True, slots=True)
class _Look:
    state: SagaState
    now: datetime
    openings: Openings

    def forward(self, halted: Halted) -> Iterator[Awaited]:
        """What the way forward waits for, and the deadline of the whole."""
        yield from self._below(self.state.root, self.state.saga, halted)
        deadline = self.state.deadline
        if deadline is not None and self.state.halt is None and self.now < deadline:
            yield self._of(Want.DEADLINE, "", until=deadline)

    def backward(self) -> Iterator[Awaited]:
        """What the way back waits for, of a scope or of the whole."""
        for path in reversed(self.state.root.to_undo or {}):
            known = self.state.known(path)
            if known.asked is not None and known.asked.intent != "do":
                yield self._of(Want.REPLY, path, known.step, known.asked.due_at)
            elif self._ahead(known.undo_due_at) and known.undo_failure is None:
                yield self._of(Want.UNDO_RETRY, path, known.step, known.undo_due_at)
            elif self._ahead(known.probe_due_at) and known.doubtful and not known.answer:
                yield self._of(Want.PROBE, path, known.step, known.probe_due_at)
            elif known.fellow is not None and known.fellow.undoing and known.undo_failure is None:
                yield self._of(Want.CHILD_UNDO, path, known.fellow.child_id)

    def _below(self, known: NodeState, path: str, halted: Halted) -> Iterator[Awaited]:
        if known.settled is not None:
            return
        if (own := self._own(known, path, halted)) is not None:
            yield own
            return
        inside = both(halted, known.halted)
        bounded = known.deadline is not None and known.halted is None
        any_ = False
        for segment, part in current(known).items():
            for one in self._below(part, f"{path}/{segment}", inside):
                any_ = True
                yield one
        if any_ and bounded and self._ahead(known.deadline):
            yield self._of(Want.TIMEOUT, path, until=known.deadline)

    def _own(self, known: NodeState, path: str, halted: Halted) -> Awaited | None:
        """What is waited for at a place itself."""
        if known.fellow is not None:
            return self._of(Want.CHILD, path, known.fellow.child_id)
        if known.asked is not None:
            return self._of(Want.REPLY, path, known.step, known.asked.due_at)
        if halted is None and (wait := self._halted_by_nothing(known, path)) is not None:
            return wait
        begun = known.announced > known.attempts and known.held_until is None
        if begun and (halted is None or path in halted):
            return self._of(Want.STEP, path, known.step)
        return None

    def _halted_by_nothing(self, known: NodeState, path: str) -> Awaited | None:
        """What is waited for only as long as nothing turns round."""
        if known.waiting:
            return self._of(Want.SIGNAL, path, until=known.due_at)
        if self._ahead(known.held_until):
            return self._of(Want.HOLD, path, known.step, known.held_until)
        if self._ahead(known.due_at):
            want = next((w for w in _DATED if (path, w) in self.openings), Want.TIMER)
            return self._of(want, path, known.step, known.due_at)
        return None

    def _ahead(self, moment: datetime | None) -> bool:
        return moment is not None and self.now < moment

    def _of(self, want: Want, path: str, name: str = "", until: datetime | None = None) -> Awaited:
        since, event = self.openings.get((path, want), (None, None))
        match event:
            case ev.WaitStarted():
                name = event.signal
            case ev.RetryScheduled():
                name = name or self._target(event.target)
            case _:
                pass
        by = event.by if isinstance(event, ev.StepHeld) else ""
        if isinstance(event, ev.RemoteRequested):
            by = f"{event.command} through {event.topic}"
        attempt = int(getattr(event, "attempt", 0) or 0)
        return Awaited(want, path, name, since, until, by, attempt)

    def _target(self, path: str) -> str:
        """The step that is tried again; the path where it is more than one."""
        node = self.state.root
        for segment in path.split("/")[1:]:
            node = node.child(segment)
        return node.step or path
