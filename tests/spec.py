"""Given, when, then for sagas: the pure core driven by scripted outcomes, without an event loop.

given(saga).when_step_fails("ship").then_undoes("charge", "reserve").ends("compensated")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.commands import (
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    Plan,
    RunCompensation,
    RunStep,
    Succeeded,
)
from orchestrator.domain.decider import decide, frontier, plan
from orchestrator.domain.events import ENDED, RIDES_ALONG, Event, Failure, Json, Status
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState, evolve, fold

START = datetime(2024, 1, 1, tzinfo=UTC)
SAGA_ID = "0190-test"
BOUND = 20_000

Answer = tuple[Outcome, timedelta]
"""What a call comes to, and how long it takes."""

Play = Callable[[Command], Answer]

BROKEN = Failure("RuntimeError", "broken", ("builtins.RuntimeError", "builtins.Exception"))
DECLINED = Failure("Permanent", "declined", ("orchestrator.errors.Permanent",), permanent=True)
UNKNOWN = Failure("TimeoutError", "no answer", ("builtins.TimeoutError", "builtins.Exception"))


def begin(saga: Saga[Any, Any], input: str = "0") -> ev.SagaStarted:
    """The first event of an instance of *saga*."""
    return ev.SagaStarted(saga.name, saga.version, saga.fingerprint, START, Json(input))


@dataclass(slots=True)
class _Call:
    command: Command
    outcome: Outcome
    ends_at: datetime
    number: int


@dataclass(slots=True)
class Drive:
    """One instance carried by hand: virtual time, all that is planned runs side by side.

    It does what the engine does and nothing else: record decisions, begin commands, record the
    outcome that comes first, and tell a cancel or a deadline which steps are under way.
    """

    saga: Saga[Any, Any]
    play: Play
    input: str = "0"
    now: datetime = START
    history: list[Event] = field(default_factory=list)
    state: SagaState = field(default_factory=lambda: SagaState(SAGA_ID))
    calls: dict[tuple[type[Command], str], _Call] = field(default_factory=dict)
    begun: list[Command] = field(default_factory=list)
    cancel_at: datetime | None = None

    def __post_init__(self) -> None:
        self.note(begin(self.saga, self.input))

    @property
    def over(self) -> bool:
        return self.state.status in ENDED or self.state.status is Status.STUCK

    def note(self, event: Event) -> None:
        evolve(self.state, event)
        self.history.append(event)

    def run(self) -> Drive:
        """Until it has ended or is stuck. AssertionError when it never does."""
        for _ in range(BOUND):
            if self.over:
                return self
            self.turn()
        raise AssertionError(f"no end after {BOUND} turns: {self.history[-5:]}")

    def turn(self) -> None:
        """Let one thing happen: all decisions, or the next outcome, cancel or wake-up."""
        if self.cancel_at is not None and self.cancel_at <= self.now:
            self.cancel_at = None
            self.cancel()
        next_ = self._begin_all()
        if not next_.decisions:
            self._pass_time(next_.wake_at)

    def work(self) -> None:
        """Record what is decided and begin what is planned, but let no time pass."""
        while not self.over and self._begin_all().decisions:
            pass

    def _begin_all(self) -> Plan:
        next_ = plan(self.saga, self.state, self.now)
        for event in next_.decisions:
            self.note(self._as_recorded(event))
        for command in next_.commands:
            self._begin(command)
        return next_

    def cancel(self, reason: str = "changed my mind") -> None:
        seq = self.state.inbox_seen + 1
        self.note(ev.CancelRequested("ann", reason, seq, self.under_way))

    @property
    def under_way(self) -> tuple[str, ...]:
        return tuple(sorted(path for kind, path in self.calls if kind is RunStep))

    def crash(self, keep: int | None = None) -> None:
        """Lose all memory, and the trailing facts that had not asked for an append of their own.

        What comes after runs again from the log, as a new owner would: what the frontier holds
        may be under way.
        """
        kept = self.history[:keep]
        while len(kept) > 1 and isinstance(kept[-1], RIDES_ALONG):
            kept.pop()
        self.history, self.state, self.calls = kept, fold(SAGA_ID, kept), {}
        while pures := [c for c in frontier(self.saga, self.state, self.now) if _is_pure(c)]:
            for command in pures:
                self.note(decide(command, self.play(command)[0]))
        for command in frontier(self.saga, self.state, self.now):
            if isinstance(command, RunStep):
                self._begin(command)
                if command.step.once:
                    self.calls[RunStep, command.path].outcome = InDoubt(UNKNOWN)

    # ------------------------------------------------------------------ inside

    def _as_recorded(self, event: Event) -> Event:
        if not isinstance(event, ev.DeadlinePassed):
            return event
        running = tuple(path for path in event.running if path in self.under_way)
        return replace(event, running=running)

    def _begin(self, command: Command) -> None:
        place = (type(command), command.path)
        if place in self.calls:
            return
        self.begun.append(command)
        outcome, takes = self.play(command)
        ends_at = self.now + takes
        if isinstance(command, RunStep):
            limits = [command.deadline] if command.deadline else []
            limits += [self.now + command.timeout] if command.timeout else []
            if limits and min(limits) < ends_at:
                ends_at, outcome = max(min(limits), self.now), InDoubt(UNKNOWN)
        self.calls[place] = _Call(command, outcome, ends_at, len(self.begun))

    def _pass_time(self, wake_at: datetime | None) -> None:
        """On to what comes first. An outcome wins a tie: it had arrived by then."""
        first = min(self.calls.values(), key=lambda c: (c.ends_at, c.number), default=None)
        times = [t for t in (wake_at, self.cancel_at) if t is not None]
        if first is None and not times:
            raise AssertionError(f"it waits for nothing: {self.history[-3:]}")
        if first is None or (times and min(times) < first.ends_at):
            self.now = max(self.now, min(times))
            return
        self.now = max(self.now, first.ends_at)
        del self.calls[type(first.command), first.command.path]
        self.note(decide(first.command, first.outcome))


def _is_pure(command: Command) -> bool:
    return isinstance(command, Compute)


def name_of(command: Command) -> str:
    """The name of the step or function that a command calls."""
    return command.node.name if isinstance(command, Compute) else command.step.name


def given(saga: Saga[Any, Any], input: str = "0") -> Given:
    """A new instance of *saga*, in which everything succeeds at once unless told otherwise."""
    return Given(saga, input)


class Given:
    """Says how the world behaves; the first `then` or `ends` lets the instance run."""

    def __init__(self, saga: Saga[Any, Any], input: str) -> None:
        self._saga = saga
        self._input = input
        self._forward: dict[str, list[Outcome]] = {}
        self._undo: dict[str, list[Outcome]] = {}
        self._outputs: dict[str, str] = {}
        self._takes: dict[str, timedelta] = {}
        self._cancel_after: float | None = None
        self._drive: Drive | None = None

    # ------------------------------------------------------------------ when

    def when_step_fails(self, name: str, *, times: int = 1_000, failure: Failure = BROKEN) -> Given:
        self._forward.setdefault(name, []).extend([Failed(failure)] * times)
        return self

    def when_step_is_in_doubt(
        self, name: str, *, times: int = 1_000, failure: Failure = UNKNOWN
    ) -> Given:
        self._forward.setdefault(name, []).extend([InDoubt(failure)] * times)
        return self

    def when_undo_fails(self, name: str, *, times: int = 1_000, failure: Failure = BROKEN) -> Given:
        self._undo.setdefault(name, []).extend([Failed(failure)] * times)
        return self

    def when_step_gives(self, name: str, output: str) -> Given:
        self._outputs[name] = output
        return self

    def when_step_takes(self, name: str, seconds: float) -> Given:
        self._takes[name] = timedelta(seconds=seconds)
        return self

    def when_cancelled_after(self, seconds: float) -> Given:
        self._cancel_after = seconds
        return self

    # ------------------------------------------------------------------ then

    @property
    def drive(self) -> Drive:
        """The finished run."""
        if self._drive is None:
            drive = Drive(self._saga, self._play, self._input)
            if self._cancel_after is not None:
                drive.cancel_at = START + timedelta(seconds=self._cancel_after)
            self._drive = drive.run()
        return self._drive

    @property
    def history(self) -> list[Event]:
        return self.drive.history

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

    def ends(self, status: str, because: str = "") -> Given:
        """It ended (or is stuck) in *status*; *because* is part of the recorded reason."""
        state = self.drive.state
        assert state.status == status
        reason = state.stuck.reason if state.stuck else state.reason
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

    def _play(self, command: Command) -> Answer:
        name = name_of(command)
        takes = self._takes.get(name, timedelta(0))
        if isinstance(command, RunCompensation):
            return _next(self._undo, name, Succeeded()), timedelta(0)
        output = Json(self._outputs.get(name, f'"{name}"'))
        return _next(self._forward, name, Succeeded(output)), takes


def _next(script: dict[str, list[Outcome]], name: str, otherwise: Outcome) -> Outcome:
    return script[name].pop(0) if script.get(name) else otherwise


def kinds(history: Iterable[Event]) -> list[str]:
    """The names of the events, for a readable comparison."""
    return [type(event).__name__ for event in history]
