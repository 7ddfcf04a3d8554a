"""What happens next, and what an outcome means. The heart; its rules are in forward and backward.

`plan` depends on the saga, the state and `now`, and on nothing else: not on what runs at this
moment, nor on where in a batch we were. So a plan made after a crash is the plan made before it.
(What the code of a flow has asked for follows from the saga and the state; it is handed in.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Loop, Router
from orchestrator.domain.commands import (
    Answered,
    Asked,
    CancelChild,
    ChildOver,
    Command,
    Compute,
    Diverged,
    Failed,
    InDoubt,
    Outcome,
    Plan,
    Postponed,
    Remembered,
    Requested,
    ResumeFlow,
    RunCompensation,
    RunProbe,
    RunStep,
    StartChild,
    Succeeded,
    UndoChild,
    WatchChild,
)
from orchestrator.domain.events import RIDES_ALONG, Event, Failure, Status
from orchestrator.domain.forward import Forward, running_steps
from orchestrator.domain.planning import (
    Around,
    Broken,
    Done,
    Flows,
    Place,
    earliest,
)
from orchestrator.domain.saga import Child, Saga
from orchestrator.domain.state import SagaState
from orchestrator.domain.steps import Remote
from orchestrator.domain.wrappers import Using

EVENT_LIMIT = 200_000
"""Events of one instance, after which it turns round: folding more takes too long to be safe."""

_NO_FLOWS: Flows = {}


def plan(saga: Saga[Any, Any], state: SagaState, now: datetime, flows: Flows = _NO_FLOWS) -> Plan:
    """What is to be recorded or run next. Empty when the instance waits or has ended."""
    next_ = _next(saga, state, now, flows)
    # Decisions first: what they change is planned again before anything runs.
    return Plan(next_.decisions) if next_.decisions else next_


def frontier(
    saga: Saga[Any, Any], state: SagaState, now: datetime, flows: Flows = _NO_FLOWS
) -> Plan:
    """All that may have been begun since the last event, whatever is to be recorded first.

    An owner that died may have recorded its last decisions in memory only.
    """
    return _next(saga, state, now, flows)


def _next(saga: Saga[Any, Any], state: SagaState, now: datetime, flows: Flows) -> Plan:
    run = Forward(saga, state, now, flows)
    if state.status is Status.RUNNING:
        return _forward(run)
    if state.status is Status.COMPENSATING:
        return run.unwind(state.root, saga.name) or Plan((ev.SagaCompensated(state.reason),))
    return Plan()


def _forward(run: Forward) -> Plan:
    state, now = run.state, run.now
    if state.pivoted and state.cancel is not None:
        late = state.cancel
        return Plan((ev.CancelRefused(late.actor, late.reason, late.inbox_seq),))
    deadline = None if state.pivoted else state.deadline
    around = Around(deadline, None if state.halt is None else state.halt.running)
    progress = run.progress(Place(run.saga.tree, state.root, run.saga.name, state.input, around))
    match progress:
        case Plan():
            return _bounded(state, progress, now)
        case _ if state.halt is not None:
            # Also when everything is done: who was told "accepted" never sees "completed".
            return Plan((ev.CompensationStarted(state.halt.reason, state.halt.failure),))
        case Done(output):
            return Plan((ev.SagaCompleted(output),))
        case Broken() if _is_late(state, now):
            # What it cut off failed because of it, and not the other way round.
            return Plan((ev.DeadlinePassed("", ()),))
        case Broken(failure, path):
            reason = f"{failure.type}: {failure.message}" if failure.message else failure.type
            if state.pivoted:
                name = state.at(path).step or path
                why = f"it failed after the point of no return, {reason}"
                return Plan((ev.SagaStuck(path, name, why),))
            return Plan((ev.CompensationStarted(reason, failure),))


def _is_late(state: SagaState, now: datetime) -> bool:
    return not state.pivoted and state.deadline is not None and now >= state.deadline


def _bounded(state: SagaState, progress: Plan, now: datetime) -> Plan:
    """*progress* of an instance as a whole: within its deadline, and its number of events."""
    bound = _bound(state, now, running_steps(progress))
    if bound is not None:
        # An earlier owner may have gone on from what rides along, unseen: that comes first.
        along = tuple(event for event in progress.decisions if isinstance(event, RIDES_ALONG))
        return Plan(along or (bound,), progress.commands)
    if state.deadline is None or state.halt is not None:
        return progress
    return Plan(progress.decisions, progress.commands, earliest(progress.wake_at, state.deadline))


def _bound(state: SagaState, now: datetime, running: tuple[str, ...]) -> Event | None:
    """What is to be said of an instance that is late, or has grown too long."""
    if state.halt is not None:
        return None
    if state.version >= EVENT_LIMIT:
        why = f"its history has {state.version:,} events"
        return ev.SagaStuck("", "", why) if state.pivoted else ev.HistoryLimitReached(running)
    if state.deadline is None or now < state.deadline:
        return None
    return ev.DeadlineMissed(state.deadline) if state.pivoted else ev.DeadlinePassed("", running)


# ---------------------------------------------------------------------------- outcomes


def decide(command: Command, outcome: Outcome) -> Event:
    """The fact that *outcome* makes of *command*."""
    return _DECIDE[type(command)](command, outcome)


def _ran_step(command: RunStep, outcome: Outcome) -> Event:
    path, name, attempt = command.path, command.step.name, command.attempt
    match outcome:
        case Succeeded(output, cost):
            return ev.StepSucceeded(path, name, attempt, output, cost)
        case Failed(failure, cost):
            return ev.StepFailed(path, name, attempt, failure, cost)
        case InDoubt(failure, cost):
            return ev.StepInDoubt(path, name, attempt, failure, cost)
        case Postponed(by, until, in_doubt):
            return ev.StepHeld(path, name, by, until, in_doubt)
        case Requested():
            return _requested(command, outcome, "do", command.step.remote)
        case Remembered(cache, output):
            return ev.CacheHit(path, name, cache, output)
        case _:
            raise _unfit(command, outcome)


def _ran_compensation(command: RunCompensation, outcome: Outcome) -> Event:
    path, name, attempt = command.path, command.step.name, command.attempt
    match outcome:
        case Succeeded():
            return ev.StepCompensated(path, name, attempt, command.passed, command.scope)
        case Failed(failure) | InDoubt(failure):
            return ev.CompensationFailed(path, name, attempt, failure)
        case Requested():
            return _requested(command, outcome, "undo", command.undo.remote)
        case _:
            raise _unfit(command, outcome)


def _ran_probe(command: RunProbe, outcome: Outcome) -> Event:
    path, name, attempt = command.path, command.step.name, command.attempt
    match outcome:
        case Answered(answer, output):
            return ev.ProbeAnswered(path, name, attempt, answer, output)
        case Failed(failure) | InDoubt(failure):
            return ev.ProbeAnswered(path, name, attempt, "failed", None, failure)
        case Requested():
            return _requested(command, outcome, "probe", command.probe.remote)
        case _:
            raise _unfit(command, outcome)


def _requested(
    command: RunStep | RunCompensation | RunProbe,
    outcome: Requested,
    intent: str,
    remote: Remote | None,
) -> Event:
    if remote is None:
        raise _unfit(command, outcome)
    return ev.RemoteRequested(
        command.path, command.step.name, command.attempt, intent, remote.command, remote.topic,
        outcome.command_id, outcome.payload, outcome.due_at, outcome.undoes, outcome.number,
    )  # fmt: skip


def _computed(command: Compute, outcome: Outcome) -> Event:
    path, name, node = command.path, command.name, command.node
    if isinstance(outcome, Failed | InDoubt):
        return ev.ComputationFailed(path, name, replace(outcome.failure, permanent=True))
    if not isinstance(outcome, Succeeded):
        raise _unfit(command, outcome)
    text = outcome.output
    match node:
        case Router():
            return _chosen(path, node, json.loads(text))
        case Loop():
            return ev.ConditionEvaluated(path, command.detail, text == "true")
        case Using():
            return ev.InputBound(path, name, text)
        case Child(saga=saga):
            key = json.loads(text)
            return ev.ChildRequested(
                path, saga.name, saga.version, command.detail, command.input, key
            )
        case _:
            return ev.ValueComputed(path, name, text)


def _chosen(path: str, node: Router[Any, Any], route: str) -> Event:
    if route in node.routes:
        return ev.RouteChosen(path, route)
    if node.default is not None:
        return ev.RouteChosen(path, node.default)
    why = f"there is no route {route!r}, and no default; there are {', '.join(node.routes)}"
    return ev.ComputationFailed(path, "router", Failure("RouteUnknown", why, permanent=True))


def _resumed(command: ResumeFlow, outcome: Outcome) -> Event:
    path, name = command.path, command.node.name
    match outcome:
        case Asked(index, request, text):
            return ev.FlowRequested(path, index, request, text)
        case Succeeded(output):
            return ev.FlowReturned(path, output)
        case Failed(failure) | InDoubt(failure):
            return ev.FlowFailed(path, failure)
        case Diverged(index, expected, found):
            return ev.SagaStuck(
                path,
                name,
                f"the code of flow {name} is not the code that made the record: request "
                f"{index} was {expected}, and is now {found}; run the code that it began with, "
                "or give the changed saga a new version; then: saga resume ID",
            )
        case _:
            raise _unfit(command, outcome)


def _started_child(command: StartChild, outcome: Outcome) -> Event:
    match outcome:
        case Succeeded():
            return ev.ChildStarted(command.path, command.child_id)
        case Failed(failure) | InDoubt(failure):
            return ev.ChildEnded(command.path, command.child_id, "refused", None, failure)
        case _:
            raise _unfit(command, outcome)


def _watched_child(command: WatchChild, outcome: Outcome) -> Event:
    if not isinstance(outcome, ChildOver):
        raise _unfit(command, outcome)
    path, status = command.path, outcome.status
    if command.undone:
        if status == Status.COMPENSATED:
            return ev.StepCompensated(path, command.name, 1, command.passed, command.scope)
        why = f"saga {command.child_id} was to be undone, but it is {status}"
        return ev.CompensationFailed(path, command.name, 1, Failure("ChildNotUndone", why))
    failure = outcome.failure
    if status != Status.COMPLETED and failure is None:
        failure = Failure("ChildFailed", f"saga {command.child_id} ended as {status}")
    return ev.ChildEnded(path, command.child_id, status, outcome.output, failure)


def _unfit(command: Command, outcome: Outcome) -> TypeError:
    return TypeError(f"{type(outcome).__name__} is no outcome of {type(command).__name__}")


_DECIDE: Mapping[type[Command], Callable[[Any, Outcome], Event]] = {
    RunStep: _ran_step,
    RunCompensation: _ran_compensation,
    RunProbe: _ran_probe,
    Compute: _computed,
    ResumeFlow: _resumed,
    StartChild: _started_child,
    CancelChild: lambda command, _: ev.ChildCancelRequested(command.path, command.child_id),
    UndoChild: lambda command, _: ev.ChildUndoRequested(command.path, command.child_id),
    WatchChild: _watched_child,
}
