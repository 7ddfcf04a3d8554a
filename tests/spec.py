"""Given, when, then for sagas: the pure core driven by scripted outcomes, without an event loop.

given(saga).when_step_fails("ship").then_undoes("charge", "reserve").ends("compensated")
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

from orchestrator.domain import events as ev
from orchestrator.domain.commands import (
    Answered,
    CancelChild,
    ChildOver,
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    Postponed,
    Remembered,
    RunCompensation,
    RunProbe,
    RunStep,
    StartChild,
    Succeeded,
    UndoChild,
)
from orchestrator.domain.definition import Pure
from orchestrator.domain.events import Event, Failure, Json, Status
from orchestrator.domain.saga import Saga
from tests.drive import (
    GONE_BACK,
    NOW,
    SAGA_ID,
    START,
    UNKNOWN,
    Answer,
    Drive,
    Play,
    begin,
    computed,
    name_of,
)

__all__ = [
    "BROKEN", "DECLINED", "SAGA_ID", "START", "UNKNOWN", "Answer", "Drive", "Given", "Play",
    "begin", "given", "kinds", "name_of",
]  # fmt: skip

T = TypeVar("T")

BROKEN = Failure("RuntimeError", "broken", ("builtins.RuntimeError", "builtins.Exception"))
DECLINED = Failure("Permanent", "declined", ("orchestrator.errors.Permanent",), permanent=True)
LONG = timedelta(days=36_500)


def given(saga: Saga[Any, Any], input: str = "0") -> Given:
    """A new instance of *saga*, in which everything succeeds at once unless told otherwise."""
    return Given(saga, input)


class Given:
    """Says how the world behaves; the first `then` or `ends` lets the instance run."""

    def __init__(self, saga: Saga[Any, Any], input: str) -> None:
        self.run = Drive(saga, self._play, input)
        self._forward: dict[str, list[Outcome]] = {}
        self._undo: dict[str, list[Outcome]] = {}
        self._probes: dict[str, list[Outcome]] = {}
        self._children: dict[str, list[Answer]] = {}
        self._outputs: dict[str, str] = {}
        self._takes: dict[str, timedelta] = {}
        self._undo_takes: dict[str, timedelta] = {}
        self._ran = False

    # ------------------------------------------------------------------ when

    def when_step_fails(
        self, name: str, *, times: int = 1_000, failure: Failure = BROKEN, cost: float = 0
    ) -> Given:
        return self._scripted(self._forward, name, Failed(failure, cost), times)

    def when_step_is_in_doubt(
        self, name: str, *, times: int = 1_000, failure: Failure = UNKNOWN
    ) -> Given:
        return self._scripted(self._forward, name, InDoubt(failure), times)

    def when_step_succeeds(self, name: str, *, times: int = 1) -> Given:
        """So many attempts, before what is said next of it."""
        return self._scripted(self._forward, name, Succeeded(Json(f'"{name}"')), times)

    def when_step_costs(self, name: str, cost: float) -> Given:
        return self._scripted(self._forward, name, Succeeded(Json(f'"{name}"'), cost), 1_000)

    def when_step_is_held(
        self, name: str, *, by: str, until: float, times: int = 1, in_doubt: bool = False
    ) -> Given:
        """A guard lets it wait until so many seconds after the start."""
        due = START + timedelta(seconds=until)
        return self._scripted(self._forward, name, Postponed(by, due, in_doubt), times)

    def when_step_is_remembered(self, name: str, output: str) -> Given:
        return self._scripted(self._forward, name, Remembered("cache", Json(output)), 1_000)

    def when_probe_answers(self, name: str, *answers: str | Failure) -> Given:
        """`happened JSON`, `not_happened` or `unknown`; a Failure when it raises."""
        for answer in answers:
            if isinstance(answer, Failure):
                outcome: Outcome = Failed(answer)
            else:
                word, _, output = answer.partition(" ")
                outcome = Answered(word, Json(output) if output else None)
            self._scripted(self._probes, name, outcome, 1)
        return self

    def when_undo_fails(self, name: str, *, times: int = 1_000, failure: Failure = BROKEN) -> Given:
        return self._scripted(self._undo, name, Failed(failure), times)

    def when_child_ends(
        self, name: str, status: str, *, output: str = "null", takes: float = 0
    ) -> Given:
        """What becomes of the next child saga of this name that is begun (or is undone)."""
        done = Json(output) if status == Status.COMPLETED else None
        over = ChildOver(status, done, None if done else Failure("ChildFailed", status))
        self._children.setdefault(name, []).append((over, timedelta(seconds=takes)))
        return self

    def when_child_is_refused(self, name: str, failure: Failure) -> Given:
        self._children.setdefault(name, []).append((Failed(failure), NOW))
        return self

    def when_step_gives(self, name: str, output: str) -> Given:
        self._outputs[name] = output
        return self

    def when_step_takes(self, name: str, seconds: float) -> Given:
        self._takes[name] = timedelta(seconds=seconds)
        return self

    def when_undo_takes(self, name: str, seconds: float) -> Given:
        self._undo_takes[name] = timedelta(seconds=seconds)
        return self

    def when_cancelled_after(self, seconds: float, reason: str = "changed my mind") -> Given:
        return self.when_told("cancel", seconds, reason=reason)

    def when_signalled(self, name: str, data: str, *, after: float = 0) -> Given:
        return self.when_told("signal", after, name=name, data=data)

    def when_told(self, kind: str, after: float, **payload: Any) -> Given:
        """A message that arrives so many seconds after the start."""
        self.run.send(kind, after=after, **payload)
        return self

    def when_it_crashes_after(self, kind: type[Event], *, times: int = 1) -> Given:
        """The owner dies right after it noted this event, so often."""
        for _ in range(times):
            before = sum(isinstance(e, kind) for e in self.run.history)
            while (
                not self.run.over and sum(isinstance(e, kind) for e in self.run.history) == before
            ):
                self.run.turn()
            self.run.crash()
        return self

    # ------------------------------------------------------------------ then

    @property
    def drive(self) -> Drive:
        """The run, as far as it goes by itself."""
        if not self._ran:
            self._ran = True
            self.run.run()
        return self.run

    @property
    def history(self) -> list[Event]:
        return self.drive.history

    def repaired(self, kind: str, **payload: Any) -> Given:
        """It got stuck, or was done; then somebody told it so, and it went on."""
        self.drive.repair(kind, **payload)
        self.run.run()
        return self

    def then_runs(self, *names: str) -> Given:
        """These step attempts began, in this order, and no others."""
        assert [c.step.name for c in self.begun(RunStep)] == list(names)
        return self

    def then_undoes(self, *names: str) -> Given:
        """These steps were undone, in this order, and no others."""
        assert [e.step for e in self.all(ev.StepCompensated)] == list(names)
        return self

    def then_waits(self, *seconds: float) -> Given:
        """The waits before retries, forward and backward, in the order they were scheduled."""
        at, waits = START, []
        for event in self.all(ev.RetryScheduled, ev.CompensationRetryScheduled):
            waits.append((event.due_at - at).total_seconds())
            at = event.due_at
        assert waits == list(seconds)
        return self

    def then_took(self, seconds: float) -> Given:
        assert (self.drive.now - START).total_seconds() == seconds
        return self

    def ends(self, status: str, because: str = "") -> Given:
        """It ended (or is stuck) in *status*; *because* is part of the recorded reason."""
        state = self.drive.state
        reason = state.stuck.reason if state.stuck else state.reason
        assert state.status == status, reason
        assert because in reason, reason
        return self

    def result(self) -> str:
        assert self.drive.state.result is not None
        return self.drive.state.result

    def begun(self, kind: type[Any]) -> list[Any]:
        return [c for c in self.drive.begun if isinstance(c, kind)]

    def all(self, *kinds: type[Any]) -> list[Any]:
        return [e for e in self.history if isinstance(e, kinds)]

    # ------------------------------------------------------------------ inside

    def _scripted(
        self, script: dict[str, list[Outcome]], name: str, outcome: Outcome, times: int
    ) -> Given:
        script.setdefault(name, []).extend([outcome] * times)
        return self

    def _play(self, command: Command) -> Answer:
        name = name_of(command)
        match command:
            case RunCompensation():
                takes = self._undo_takes.get(name, NOW)
                return _next(self._undo, name, Succeeded()), takes
            case RunProbe():
                return _next(self._probes, name, Answered("unknown")), NOW
            case StartChild():
                over = ChildOver(Status.COMPLETED, Json(f'"{name}"'))
                return _next(self._children, name, (over, NOW))
            case UndoChild():
                saga = self.run.state.at(command.path).step
                return _next(self._children, saga, (GONE_BACK, NOW))
            case CancelChild():
                return GONE_BACK, NOW
            case Compute(node=node) if not isinstance(node, Pure) and name not in self._forward:
                return computed(command), NOW
            case _:
                output = Json(self._outputs.get(name, f'"{name}"'))
                takes = self._takes.get(name, NOW)
                return _next(self._forward, name, Succeeded(output)), takes


def _next(script: dict[str, list[T]], name: str, otherwise: T) -> T:
    return script[name].pop(0) if script.get(name) else otherwise


def kinds(history: Iterable[Event]) -> list[str]:
    """The names of the events, for a readable comparison."""
    return [type(event).__name__ for event in history]
