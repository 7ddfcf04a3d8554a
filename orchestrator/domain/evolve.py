"""What each event does to the state; a history folded is the state that it leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Json, Status
from orchestrator.domain.node_state import Asked, Called, FanOut, Fellow, NodeState, Settled
from orchestrator.domain.state import Halt, SagaState
from orchestrator.domain.transitions import REPAIRS, TRANSITIONS
from orchestrator.errors import IllegalTransitionError


def fold(saga_id: str, history: Iterable[Event]) -> SagaState:
    """The state that *history* leads to. Raises IllegalTransitionError."""
    state = SagaState(saga_id)
    for event in history:
        evolve(state, event)
    return state


def evolve(state: SagaState, event: Event) -> SagaState:
    """Let *event* happen to *state*, which is changed and returned.

    Raises IllegalTransitionError, and changes nothing, when it may not follow.
    """
    kind = type(event)
    status = TRANSITIONS[state.status].get(kind)
    if status is None:
        raise IllegalTransitionError(
            f"{kind.__name__} cannot follow in saga {state.saga_id} "
            f"({state.status}, version {state.version}); nothing was changed"
        )
    if (apply := _APPLY.get(kind)) is not None:
        apply(state, event)
    if kind in REPAIRS:
        status, state.stuck = state.before_stuck, None
    elif kind is ev.SagaStuck and state.status is not Status.STUCK:
        state.before_stuck = state.status
    state.status = status
    state.version += 1
    return state


# ---------------------------------------------------------------------------- steps


def _step_succeeded(state: SagaState, event: ev.StepSucceeded) -> None:
    line = state.line(event.node)
    node = line[-1]
    _attempted(line, event, Settled.SUCCEEDED)
    _completed(state, line, event.node, event.step, event.output)
    node.failure = None


def _step_failed(state: SagaState, event: ev.StepFailed) -> None:
    line = state.line(event.node)
    _attempted(line, event, Settled.FAILED)
    line[-1].failure = event.failure


def _step_in_doubt(state: SagaState, event: ev.StepInDoubt) -> None:
    line = state.line(event.node)
    _attempted(line, event, Settled.IN_DOUBT)
    line[-1].failure = event.failure
    _doubted(line, event.node)


def _doubted(line: list[NodeState], path: str) -> None:
    node = line[-1]
    if not node.doubtful:
        node.doubtful = True
        _push(line, path)


def _attempted(
    line: list[NodeState], event: ev.StepSucceeded | ev.StepFailed | ev.StepInDoubt, how: Settled
) -> None:
    node = line[-1]
    node.step, node.attempts, node.settled = event.step, event.attempt, how
    node.held_until = None
    node.forget_asking()
    if event.cost:
        for above in line:
            above.cost += event.cost


def _completed(state: SagaState, line: list[NodeState], path: str, name: str, output: Json) -> None:
    """It is done from now on: it stands on top of what is to be undone."""
    node = line[-1]
    if node.doubtful:
        node.doubtful = False
        _drop(line, path)
    node.settled, node.output = Settled.SUCCEEDED, output
    state.outputs[name] = output
    _push(line, path)


def _push(line: list[NodeState], path: str) -> None:
    for node in line:
        if node.to_undo is None:
            node.to_undo = {}
        node.to_undo[path] = None


def _drop(line: list[NodeState], path: str) -> None:
    for node in line:
        waiting = node.to_undo
        if not waiting or path not in waiting:
            continue
        if next(reversed(waiting)) == path:
            # Deleting the last key one by one would leave holes that every look passes again.
            waiting.popitem()
        else:
            del waiting[path]


def _step_started(state: SagaState, event: ev.StepStarted) -> None:
    node = state.at(event.node)
    node.step, node.announced = event.step, event.attempt


def _step_held(state: SagaState, event: ev.StepHeld) -> None:
    line = state.line(event.node)
    line[-1].step, line[-1].held_until = event.step, event.due_at
    if event.in_doubt:
        _doubted(line, event.node)


def _remote_requested(state: SagaState, event: ev.RemoteRequested) -> None:
    node = state.at(event.node)
    node.step, node.replied, node.held_until = event.step, None, None
    node.asked = Asked(event.intent, event.command_id, event.attempt, event.number, event.due_at)
    node.sent = event.number


def _remote_replied(state: SagaState, event: ev.RemoteReplied) -> None:
    _heard(state, event)
    state.at(event.node).replied = event


def _cache_hit(state: SagaState, event: ev.CacheHit) -> None:
    node = state.at(event.node)
    node.step, node.settled, node.output = event.step, Settled.SUCCEEDED, event.output
    node.held_until = None
    state.outputs[event.step] = event.output


def _probe_answered(state: SagaState, event: ev.ProbeAnswered) -> None:
    line = state.line(event.node)
    node = line[-1]
    node.probes, node.answer = event.attempt, event.answer
    node.forget_asking()
    if event.answer == "happened":
        _completed(state, line, event.node, event.step, event.output or Json("null"))
    elif event.answer == "not_happened":
        _settled_as_not_happened(line, event.node)


def _settled_as_not_happened(line: list[NodeState], path: str) -> None:
    node = line[-1]
    node.settled, node.doubtful = Settled.FAILED, False
    _drop(line, path)


def _probe_retry(state: SagaState, event: ev.ProbeRetryScheduled) -> None:
    node = state.at(event.node)
    node.answer, node.probe_due_at = "", event.due_at


def _retry_scheduled(state: SagaState, event: ev.RetryScheduled) -> None:
    node = state.at(event.node)
    retries = node.retries
    if event.target == event.node:
        node.rearm()
        node.since = event.since
    elif again := node.children.get(event.target.rpartition("/")[2]):
        # A scope begins again under a fresh path, which has no state to forget.
        again.rearm()
    node.retries = retries + 1
    node.runs += 1
    node.due_at = event.due_at


# ---------------------------------------------------------------------------- values and choices


def _value(state: SagaState, event: ev.ValueComputed | ev.FlowReturned) -> None:
    node = state.at(event.node)
    node.settled, node.output = Settled.SUCCEEDED, event.output


def _no_value(state: SagaState, event: ev.ComputationFailed | ev.FlowFailed) -> None:
    node = state.at(event.node)
    node.settled, node.failure = Settled.FAILED, event.failure


def _input_bound(state: SagaState, event: ev.InputBound) -> None:
    state.at(event.node).bound = event.input


def _route_chosen(state: SagaState, event: ev.RouteChosen) -> None:
    state.at(event.node).route = event.route


def _fallback_taken(state: SagaState, event: ev.FallbackTaken) -> None:
    node = state.at(event.node)
    node.taken = event.alternative
    node.failures = (*node.failures, event.failure)


def _each_started(state: SagaState, event: ev.EachStarted) -> None:
    state.at(event.node).fan_out = FanOut.of(event.items, event.concurrency)


def _item_succeeded(state: SagaState, event: ev.ItemSucceeded) -> None:
    _fan_out(state, event.node).succeeded(event.item, event.output)


def _item_failed(state: SagaState, event: ev.ItemFailed) -> None:
    _fan_out(state, event.node).failed(event.item, event.failure)


def _fan_out(state: SagaState, path: str) -> FanOut:
    found = state.known(path).fan_out
    if found is None:
        raise IllegalTransitionError(
            f"{path} of saga {state.saga_id} has no list of items yet; nothing was changed"
        )
    return found


def _condition(state: SagaState, event: ev.ConditionEvaluated) -> None:
    node = state.at(event.node)
    node.iteration, node.holds = event.iteration, event.holds


def _iteration(state: SagaState, event: ev.IterationScheduled) -> None:
    node = state.at(event.node)
    node.iteration, node.holds, node.due_at = event.iteration, None, event.due_at
    del node.calls[event.iteration - 2 :]
    node.calls.append(Called("", event.input))


# ---------------------------------------------------------------------------- waiting


def _timer_set(state: SagaState, event: ev.TimerSet) -> None:
    state.at(event.node).due_at = event.due_at


def _timer_fired(state: SagaState, event: ev.TimerFired) -> None:
    state.at(event.node).settled = Settled.SUCCEEDED


def _wait_started(state: SagaState, event: ev.WaitStarted) -> None:
    node = state.at(event.node)
    node.waiting, node.due_at = True, event.due_at
    if kept := state.mailbox.get(event.signal):
        _deliver(node, kept.pop(0))
    else:
        state.waiters.setdefault(event.signal, []).append(event.node)


def _signal_received(state: SagaState, event: ev.SignalReceived) -> None:
    state.inbox_seen = max(state.inbox_seen, event.inbox_seq)
    if waiters := state.waiters.get(event.signal):
        _deliver(state.at(waiters.pop(0)), event.payload)
    else:
        state.mailbox.setdefault(event.signal, []).append(event.payload)


def _deliver(node: NodeState, payload: Json) -> None:
    node.waiting, node.settled, node.output = False, Settled.SUCCEEDED, payload


def _wait_ended(state: SagaState, event: ev.WaitEnded) -> None:
    node = state.known(event.node)
    waiters = state.waiters.get(event.signal, [])
    if event.node not in waiters:
        raise IllegalTransitionError(
            f"{event.node} of saga {state.saga_id} does not wait for {event.signal!r}; "
            "nothing was changed"
        )
    waiters.remove(event.node)
    node.waiting, node.settled, node.failure = False, Settled.FAILED, event.failure


# ---------------------------------------------------------------------------- children and flows


def _child_requested(state: SagaState, event: ev.ChildRequested) -> None:
    node = state.at(event.node)
    node.step = event.saga
    node.fellow = Fellow(event.child_id, event.key, event.input)
    state.children[event.child_id] = event.node


def _child_started(state: SagaState, event: ev.ChildStarted) -> None:
    _fellow(state, event.node).started = True


def _child_cancelled(state: SagaState, event: ev.ChildCancelRequested) -> None:
    _fellow(state, event.node).cancelled = True


def _child_undo(state: SagaState, event: ev.ChildUndoRequested) -> None:
    _fellow(state, event.node).undoing = True


def _child_ended(state: SagaState, event: ev.ChildEnded) -> None:
    _fellow(state, event.node).status = event.status
    line = state.line(event.node)
    node = line[-1]
    node.failure = event.failure
    if event.status == Status.COMPLETED:
        _completed(state, line, event.node, node.step, event.output or Json("null"))
    else:
        node.settled = Settled.FAILED
        state.children.pop(event.child_id, None)


def _fellow(state: SagaState, path: str) -> Fellow:
    found = state.known(path).fellow
    if found is None:
        raise IllegalTransitionError(
            f"{path} of saga {state.saga_id} has no child yet; nothing was changed"
        )
    return found


def _flow_requested(state: SagaState, event: ev.FlowRequested) -> None:
    node = state.at(event.node)
    del node.calls[event.index :]
    node.calls.append(Called(event.request, event.input))


# ---------------------------------------------------------------------------- turning round


def _branches_halted(state: SagaState, event: ev.BranchesHalted) -> None:
    node = state.at(event.node)
    node.halted, node.cut = _under_way(state, event.running), event.cut


def _pivot_passed(state: SagaState, event: ev.PivotPassed) -> None:
    state.pivoted = True
    state.halt = None


def _deadline_set(state: SagaState, event: ev.DeadlineSet) -> None:
    state.at(event.node).deadline = event.due_at


def _deadline_passed(state: SagaState, event: ev.DeadlinePassed) -> None:
    if event.node:
        state.at(event.node).halted = _under_way(state, event.running)
    else:
        _halt(state, "the deadline passed", event.running)


def _deadline_missed(state: SagaState, event: ev.DeadlineMissed) -> None:
    state.deadline = None


def _history_limit(state: SagaState, event: ev.HistoryLimitReached) -> None:
    _halt(state, "its history grew too long", event.running)


def _cancel_requested(state: SagaState, event: ev.CancelRequested) -> None:
    _heard(state, event)
    before = state.before_stuck in (Status.PENDING, Status.RUNNING)
    stuck_forward = state.status is Status.STUCK and before
    if (state.status is Status.RUNNING or stuck_forward) and state.cancel is None:
        state.cancel = event
        _halt(state, f"cancelled: {event.reason}", event.running)


def _halt(state: SagaState, reason: str, running: Iterable[str]) -> None:
    if state.halt is None:
        state.halt = Halt(reason, _under_way(state, running))


def _under_way(state: SagaState, running: Iterable[str]) -> frozenset[str]:
    """The steps that may be under way: no guard holds them any more."""
    for path in running:
        state.at(path).held_until = None
    return frozenset(running)


def _cancel_refused(state: SagaState, event: ev.CancelRefused) -> None:
    _heard(state, event)
    state.cancel = None


def _compensation_started(state: SagaState, event: ev.CompensationStarted) -> None:
    state.reason, state.failure = event.reason, event.failure


def _step_compensated(state: SagaState, event: ev.StepCompensated) -> None:
    _taken_back(state, event.node)
    if event.scope:
        state.at(event.scope).unwinding = True
    for path in event.passed:
        _drop(state.line(path), path)


def _taken_back(state: SagaState, path: str) -> None:
    if path not in (state.root.to_undo or ()):
        raise IllegalTransitionError(
            f"{path} of saga {state.saga_id} cannot be compensated: nothing there is to be "
            "undone; nothing was changed"
        )
    line = state.line(path)
    _drop(line, path)
    node = line[-1]
    node.undone, node.doubtful, node.undo_failure, node.undo_due_at = True, False, None, None
    node.forget_asking()
    state.undone.append(path)
    if node.fellow is not None:
        state.children.pop(node.fellow.child_id, None)


def _compensation_failed(state: SagaState, event: ev.CompensationFailed) -> None:
    node = state.at(event.node)
    node.undo_attempts, node.undo_failure = event.attempt, event.failure
    node.forget_asking()


def _compensation_retry(state: SagaState, event: ev.CompensationRetryScheduled) -> None:
    node = state.at(event.node)
    node.undo_failure, node.undo_due_at, node.undo_since = None, event.due_at, event.since


# ---------------------------------------------------------------------------- the whole instance


def _started(state: SagaState, event: ev.SagaStarted) -> None:
    state.saga, state.saga_version = event.saga, event.saga_version
    state.fingerprint, state.input, state.context = event.fingerprint, event.input, event.context
    state.deadline = event.deadline
    state.parent, state.parent_node = event.parent, event.parent_node


def _saga_completed(state: SagaState, event: ev.SagaCompleted) -> None:
    state.result = event.output


def _saga_stuck(state: SagaState, event: ev.SagaStuck) -> None:
    first = state.stuck
    if first is not None and not event.node:
        # The instance as a whole is in the way now; what is to be repaired then is still the same.
        event = replace(event, node=first.node, step=first.step)
    state.stuck = event


def _terminated(state: SagaState, event: ev.SagaTerminated) -> None:
    _heard(state, event)
    state.reason = f"terminated: {event.reason}"


def _undo_requested(state: SagaState, event: ev.UndoRequested) -> None:
    _heard(state, event)
    state.reason = event.reason


def _heard(state: SagaState, event: Any) -> None:
    state.inbox_seen = max(state.inbox_seen, event.inbox_seq)


# ---------------------------------------------------------------------------- operators


def _step_retried(state: SagaState, event: ev.StepRetried) -> None:
    _heard(state, event)
    line = state.line(event.node)
    node = line[-1]
    undoing = state.before_stuck is Status.COMPENSATING or event.node in (state.root.to_undo or ())
    node.edited_input = event.input if event.input is not None else node.edited_input
    node.edited_output = event.output if event.output is not None else node.edited_output
    if undoing and not event.again:
        node.undo_attempts, node.undo_failure = 0, None
        node.undo_due_at = node.undo_since = None
        node.forget_probes()
        return
    for above in line[:-1]:
        above.forgive()
    node.rearm()
    node.runs += 1
    if state.halt is not None:
        # It was to settle before the saga turns round, and that is what it does now.
        state.halt = replace(state.halt, running=state.halt.running | {event.node})


def _compensation_skipped(state: SagaState, event: ev.CompensationSkipped) -> None:
    _taken_back(state, event.node)
    _heard(state, event)


def _step_resolved(state: SagaState, event: ev.StepResolved) -> None:
    _heard(state, event)
    line = state.line(event.node)
    line[-1].forget_asking()
    if not event.happened:
        _settled_as_not_happened(line, event.node)
    elif event.output is not None:
        _completed(state, line, event.node, event.step, event.output)
    else:
        line[-1].answer = "happened"


_APPLY: Mapping[type[Event], Callable[[SagaState, Any], None]] = {
    ev.SagaStarted: _started,
    ev.StepStarted: _step_started,
    ev.StepSucceeded: _step_succeeded,
    ev.StepFailed: _step_failed,
    ev.StepInDoubt: _step_in_doubt,
    ev.StepHeld: _step_held,
    ev.RemoteRequested: _remote_requested,
    ev.RemoteReplied: _remote_replied,
    ev.CacheHit: _cache_hit,
    ev.ProbeAnswered: _probe_answered,
    ev.ProbeRetryScheduled: _probe_retry,
    ev.RetryScheduled: _retry_scheduled,
    ev.ValueComputed: _value,
    ev.FlowReturned: _value,
    ev.ComputationFailed: _no_value,
    ev.FlowFailed: _no_value,
    ev.InputBound: _input_bound,
    ev.RouteChosen: _route_chosen,
    ev.FallbackTaken: _fallback_taken,
    ev.EachStarted: _each_started,
    ev.ItemSucceeded: _item_succeeded,
    ev.ItemFailed: _item_failed,
    ev.ConditionEvaluated: _condition,
    ev.IterationScheduled: _iteration,
    ev.TimerSet: _timer_set,
    ev.TimerFired: _timer_fired,
    ev.WaitStarted: _wait_started,
    ev.WaitEnded: _wait_ended,
    ev.SignalReceived: _signal_received,
    ev.SignalRejected: _heard,
    ev.ChildRequested: _child_requested,
    ev.ChildStarted: _child_started,
    ev.ChildCancelRequested: _child_cancelled,
    ev.ChildEnded: _child_ended,
    ev.ChildUndoRequested: _child_undo,
    ev.FlowRequested: _flow_requested,
    ev.BranchesHalted: _branches_halted,
    ev.PivotPassed: _pivot_passed,
    ev.DeadlineSet: _deadline_set,
    ev.DeadlinePassed: _deadline_passed,
    ev.DeadlineMissed: _deadline_missed,
    ev.HistoryLimitReached: _history_limit,
    ev.CancelRequested: _cancel_requested,
    ev.CancelRefused: _cancel_refused,
    ev.CompensationStarted: _compensation_started,
    ev.StepCompensated: _step_compensated,
    ev.CompensationFailed: _compensation_failed,
    ev.CompensationRetryScheduled: _compensation_retry,
    ev.SagaCompleted: _saga_completed,
    ev.SagaStuck: _saga_stuck,
    ev.SagaTerminated: _terminated,
    ev.UndoRequested: _undo_requested,
    ev.SagaResumed: _heard,
    ev.StepRetried: _step_retried,
    ev.CompensationSkipped: _compensation_skipped,
    ev.StepResolved: _step_resolved,
    ev.ActionRefused: _heard,
}
"""What each event does to the state; SagaCompensated says all by its status."""
