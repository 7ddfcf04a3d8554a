"""What happens next, and what an outcome means. The heart: three kinds of leaves, one rule a node.

`plan` depends on the saga, the state and `now`, and on nothing else: not on what runs at this
moment, nor on where in a batch we were. So a plan made after a crash is the plan made before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

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
from orchestrator.domain.definition import Parallel, Primitive, Pure, Retry, Sequential, Timeout
from orchestrator.domain.events import Event, Failure, Json, Status
from orchestrator.domain.policies import seconds
from orchestrator.domain.saga import Saga, is_composite
from orchestrator.domain.state import NodeState, SagaState, Settled
from orchestrator.domain.steps import Step, Undo

Halted = frozenset[str] | None
"""None: go on. A set: these steps may be under way and settle; nothing else begins."""


@dataclass(frozen=True, slots=True)
class _Done:
    output: Json


@dataclass(frozen=True, slots=True)
class _Broken:
    failure: Failure


_Progress = _Done | _Broken | Plan

_HALTED = _Broken(Failure("Halted", "not begun, because the saga turned round"))


def plan(saga: Saga[Any, Any], state: SagaState, now: datetime) -> Plan:
    """What is to be recorded or run next. Empty when the instance waits or has ended."""
    next_ = _next(saga, state, now)
    # Decisions first: what they change is planned again before anything runs.
    return Plan(next_.decisions) if next_.decisions else next_


def frontier(saga: Saga[Any, Any], state: SagaState, now: datetime) -> tuple[Command, ...]:
    """All that may have been begun since the last event, whatever is to be recorded first.

    An owner that died may have recorded its last decisions in memory only.
    """
    return _next(saga, state, now).commands


def _next(saga: Saga[Any, Any], state: SagaState, now: datetime) -> Plan:
    run = _Run(saga, state, now)
    if state.status is Status.RUNNING:
        return run.forward()
    if state.status is Status.COMPENSATING:
        return run.unwind(saga.name) or Plan(decisions=(ev.SagaCompensated(state.reason),))
    return Plan()


def decide(command: Command, outcome: Outcome) -> Event:
    """The fact that *outcome* makes of *command*."""
    match command:
        case RunStep(path=path, step=step, attempt=attempt):
            match outcome:
                case Succeeded(output):
                    return ev.StepSucceeded(path, step.name, attempt, output)
                case Failed(failure):
                    return ev.StepFailed(path, step.name, attempt, failure)
                case InDoubt(failure):
                    return ev.StepInDoubt(path, step.name, attempt, failure)
        case RunCompensation(path=path, step=step, attempt=attempt):
            if isinstance(outcome, Succeeded):
                return ev.StepCompensated(path, step.name, attempt)
            return ev.CompensationFailed(path, step.name, attempt, outcome.failure)
        case Compute(path=path, node=node):
            if isinstance(outcome, Succeeded):
                return ev.ValueComputed(path, node.name, outcome.output)
            return ev.ComputationFailed(path, node.name, outcome.failure)
    assert_never(command)


@dataclass(frozen=True, slots=True)
class _Place:
    """One node of the tree with what it inherits from the nodes above it."""

    node: Primitive[Any, Any]
    state: NodeState
    path: str
    input: Json
    timeout: timedelta | None = None
    deadline: datetime | None = None
    halted: Halted = None

    def below(self, node: Primitive[Any, Any], segment: str, input: Json) -> _Place:
        return _Place(
            node,
            self.state.child(segment),
            f"{self.path}/{segment}",
            input,
            None,
            self.deadline,
            self.halted,
        )


@dataclass(frozen=True, slots=True)
class _Run:
    saga: Saga[Any, Any]
    state: SagaState
    now: datetime

    def forward(self) -> Plan:
        state = self.state
        halted = None if state.cancel is None else frozenset(state.cancel.running)
        progress = self.progress(
            _Place(self.saga.tree, state.root, self.saga.name, state.input, halted=halted)
        )
        match progress:
            case Plan():
                return progress
            case _ if state.cancel is not None:
                # Also when everything is done: who was told "accepted" never sees "completed".
                return Plan((ev.CompensationStarted(f"cancelled: {state.cancel.reason}"),))
            case _Done(output):
                return Plan((ev.SagaCompleted(output),))
            case _Broken(failure):
                reason = f"{failure.type}: {failure.message}" if failure.message else failure.type
                return Plan((ev.CompensationStarted(reason, failure),))

    def progress(self, place: _Place) -> _Progress:
        """How far the flow has come below *place*: one rule for each primitive."""
        match place.node:
            case Step() as step:
                return self.step(place, step)
            case Pure() as pure:
                return self.pure(place, pure)
            case Sequential(steps):
                return self.sequential(place, steps)
            case Parallel(branches):
                return self.parallel(place, branches)
            case Retry() as retry:
                return self.retry(place, retry)
            case Timeout() as timeout:
                return self.timeout(place, timeout)
            case _:
                raise TypeError(f"{place.node!r} has no rule")

    def step(self, place: _Place, step: Step[Any, Any]) -> _Progress:
        known = place.state
        if known.settled is Settled.SUCCEEDED:
            return _Done(known.output or Json("null"))
        if known.settled is not None:
            return _Broken(known.failure or _HALTED.failure)
        if place.halted is not None and place.path not in place.halted:
            return _HALTED
        attempt = known.attempts + 1
        announced = known.announced >= attempt
        if step.once and not announced:
            return Plan((ev.StepStarted(place.path, step.name, attempt),))
        run = RunStep(
            place.path,
            step,
            attempt,
            place.input,
            self.state.outputs,
            place.timeout,
            place.deadline,
            announced,
        )
        return Plan(commands=(run,))

    def pure(self, place: _Place, node: Pure[Any, Any]) -> _Progress:
        known = place.state
        if known.settled is Settled.SUCCEEDED:
            return _Done(known.output or Json("null"))
        if known.settled is not None:
            return _Broken(known.failure or _HALTED.failure)
        if place.halted is not None:
            return _HALTED
        return Plan(commands=(Compute(place.path, node, place.input),))

    def sequential(self, place: _Place, steps: tuple[Primitive[Any, Any], ...]) -> _Progress:
        text = place.input
        for index, child in enumerate(steps):
            progress = self.progress(place.below(child, str(index), text))
            if not isinstance(progress, _Done):
                return progress
            text = progress.output
        return _Done(text)

    def parallel(self, place: _Place, branches: tuple[Primitive[Any, Any], ...]) -> _Progress:
        """Branches settle before they fail: no undoing beside work still in flight."""
        parts = [
            self.progress(place.below(branch, str(index), place.input))
            for index, branch in enumerate(branches)
        ]
        if pending := [part for part in parts if isinstance(part, Plan)]:
            return _merged(pending)
        if broken := [part.failure for part in parts if isinstance(part, _Broken)]:
            return _Broken(_group(broken))
        return _Done(
            Json(f"[{','.join(part.output for part in parts if isinstance(part, _Done))}]")
        )

    def retry(self, place: _Place, retry: Retry[Any, Any]) -> _Progress:
        known = place.state
        scope = is_composite(retry.inner)
        segment = f"0@{known.retries + 1}" if scope and known.retries else "0"
        below = place.below(retry.inner, segment, place.input)
        if known.due_at is not None and self.now < known.due_at:
            return _HALTED if place.halted is not None else Plan(wake_at=known.due_at)
        progress = self.progress(below)
        if not isinstance(progress, _Broken):
            return progress
        if scope and (undo := self.unwind(below.path)):
            return undo
        failure = progress.failure
        used_up = known.retries >= retry.max_retries
        if (
            place.halted is not None
            or used_up
            or failure.permanent
            or not _matches(failure, retry.on)
        ):
            return progress
        return Plan((self._retry_event(place, retry, failure, scope=scope),))

    def _retry_event(
        self, place: _Place, retry: Retry[Any, Any], failure: Failure, *, scope: bool
    ) -> Event:
        retries = place.state.retries + 1
        delay = retry.backoff.delay(retries, f"{self.state.saga_id}/{place.path}")
        if failure.retry_after is not None:
            delay = max(delay, timedelta(seconds=failure.retry_after))
        target = f"{place.path}/0@{retries + 1}" if scope else f"{place.path}/0"
        return ev.RetryScheduled(place.path, target, retries + 1, self.now + delay)

    def timeout(self, place: _Place, timeout: Timeout[Any, Any]) -> _Progress:
        after = seconds(timeout.after)
        below = place.below(timeout.inner, "0", place.input)
        if _bounds_one_attempt(timeout):
            limit = after if place.timeout is None else min(after, place.timeout)
            return self.progress(_with(below, timeout=limit))
        known = place.state
        due = known.deadline
        deadline = due if place.deadline is None or due is None else min(due, place.deadline)
        halted = _both(place.halted, known.halted)
        progress = self.progress(_with(below, deadline=deadline or place.deadline, halted=halted))
        if isinstance(progress, Plan):
            return self._watched(place, progress, after)
        if isinstance(progress, _Broken):
            if is_composite(timeout.inner) and (undo := self.unwind(below.path)):
                return undo
            if known.halted is not None:
                return _Broken(_timed_out(after))
        return progress

    def _watched(self, place: _Place, progress: Plan, after: timedelta) -> Plan:
        """*progress* below a durable time-out: begin it, end it, or wake up for it."""
        known, commands = place.state, progress.commands
        if progress.decisions or known.halted is not None:
            return progress
        if known.deadline is None:
            if not commands:
                return progress
            return Plan((ev.DeadlineSet(place.path, self.now + after),), commands)
        if self.now >= known.deadline:
            running = tuple(c.path for c in commands if isinstance(c, RunStep))
            return Plan((ev.DeadlinePassed(place.path, running),), commands)
        return Plan((), commands, _earliest(progress.wake_at, known.deadline))

    def unwind(self, prefix: str) -> Plan | None:
        """The next undo below *prefix*, in reverse order of completion; None when it is clean."""
        for path in reversed(self.state.undo_stack):
            if path != prefix and not path.startswith(f"{prefix}/"):
                continue
            known = self.state.at(path)
            step = self.saga.steps[known.step]
            completed = known.settled is Settled.SUCCEEDED
            undo = step.undo_of_completed if completed else step.undo_attempted
            if undo is not None:
                return self._undo(path, known, step, undo)
            if not completed and step.undo_completed is not None:
                return Plan((_unsettled(path, step, known),))
        return None

    def _undo(self, path: str, known: NodeState, step: Step[Any, Any], undo: Undo) -> Plan:
        if known.undo_failure is not None:
            return Plan((self._after_failed_undo(path, known, step, undo, known.undo_failure),))
        if known.undo_due_at is not None and self.now < known.undo_due_at:
            return Plan(wake_at=known.undo_due_at)
        completed = known.settled is Settled.SUCCEEDED
        command = RunCompensation(
            path,
            step,
            undo,
            known.undo_attempts + 1,
            self._input_at(path),
            known.output if completed else None,
            self.state.outputs,
            on_doubt=undo is step.undo_attempted,
        )
        return Plan(commands=(command,))

    def _after_failed_undo(
        self, path: str, known: NodeState, step: Step[Any, Any], undo: Undo, failure: Failure
    ) -> Event:
        policy = undo.policy
        since = known.undo_since or self.now
        tried = known.undo_attempts
        used_up = policy.max_retries is not None and tried > policy.max_retries
        if failure.permanent or used_up or self.now - since >= policy.give_up_after:
            return ev.SagaStuck(
                path,
                step.name,
                f"the compensation of {step.name} failed {tried} time(s), "
                f"the last with {failure.type}: {failure.message}",
            )
        delay = policy.backoff.delay(tried, f"{self.state.saga_id}/{path}/undo")
        if failure.retry_after is not None:
            delay = max(delay, timedelta(seconds=failure.retry_after))
        return ev.CompensationRetryScheduled(path, step.name, tried + 1, self.now + delay, since)

    def _input_at(self, path: str) -> Json:
        """The input that the place *path* had, read off the outputs recorded before it."""
        node, known, text = self.saga.tree, self.state.root, self.state.input
        for segment in path.split("/")[1:]:
            index = int(segment.partition("@")[0])
            if isinstance(node, Sequential) and index:
                text = _output_of(node.steps[index - 1], known.child(str(index - 1)))
            node, known = node.children[index], known.child(segment)
        return text


def _output_of(node: Primitive[Any, Any], known: NodeState) -> Json:
    """The recorded output of a place that is done."""
    match node:
        case Sequential(steps):
            return _output_of(steps[-1], known.child(str(len(steps) - 1)))
        case Parallel(branches):
            outputs = (_output_of(b, known.child(str(i))) for i, b in enumerate(branches))
            return Json(f"[{','.join(outputs)}]")
        case Retry(inner):
            again = is_composite(inner) and known.retries
            return _output_of(inner, known.child(f"0@{known.retries + 1}" if again else "0"))
        case Timeout(inner):
            return _output_of(inner, known.child("0"))
        case _:
            return known.output or Json("null")


def _bounds_one_attempt(timeout: Timeout[Any, Any]) -> bool:
    inner: Primitive[Any, Any] = timeout
    while isinstance(inner, Timeout):
        inner = inner.inner
    return isinstance(inner, Step | Pure)


def _with(
    place: _Place,
    *,
    timeout: timedelta | None = None,
    deadline: datetime | None = None,
    halted: Halted = None,
) -> _Place:
    return _Place(
        place.node,
        place.state,
        place.path,
        place.input,
        timeout,
        deadline or place.deadline,
        _both(place.halted, halted),
    )


def _merged(plans: list[Plan]) -> Plan:
    """All that the branches want; one that is stuck speaks when the others have nothing to do."""
    commands = tuple(command for part in plans for command in part.commands)
    wanted = [event for part in plans for event in part.decisions]
    stuck = tuple(event for event in wanted if isinstance(event, ev.SagaStuck))
    decisions = tuple(event for event in wanted if not isinstance(event, ev.SagaStuck))
    if stuck and not decisions and not commands:
        return Plan(stuck[:1])
    wake_at: datetime | None = None
    for part in plans:
        wake_at = _earliest(wake_at, part.wake_at)
    return Plan(decisions, commands, wake_at)


def _group(failures: list[Failure]) -> Failure:
    if len(failures) == 1:
        return failures[0]
    waits = [f.retry_after for f in failures if f.retry_after is not None]
    return Failure(
        "ExceptionGroup",
        "; ".join(f"{f.type}: {f.message}" for f in failures),
        ("builtins.ExceptionGroup",),
        any(f.permanent for f in failures),
        max(waits, default=None),
        tuple(failures),
    )


def _matches(failure: Failure, on: tuple[type[BaseException], ...]) -> bool:
    if not on:
        return True
    wanted = {f"{kind.__module__}.{kind.__qualname__}" for kind in on}
    return not wanted.isdisjoint(failure.kinds) or any(_matches(f, on) for f in failure.causes)


def _timed_out(after: timedelta) -> Failure:
    kinds = tuple(f"builtins.{kind.__name__}" for kind in TimeoutError.__mro__[:-1])
    return Failure("TimeoutError", f"not done within {after.total_seconds():g} s", kinds)


def _unsettled(path: str, step: Step[Any, Any], known: NodeState) -> Event:
    why = f" ({known.failure.type}: {known.failure.message})" if known.failure else ""
    return ev.SagaStuck(
        path,
        step.name,
        f"nobody knows whether {step.name} happened{why}, and it declares no "
        "compensation_on_doubt; find out, and settle it by hand",
    )


def _both(one: Halted, other: Halted) -> Halted:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
