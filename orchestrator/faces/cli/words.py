"""What happened, in a sentence for each kind of event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from orchestrator.domain import events as ev
from orchestrator.domain.drawing import spelled
from orchestrator.domain.events import Event, Failure, Json
from orchestrator.faces.cli.render import columns, when
from orchestrator.runtime.service import HistoryEntry

BRIEF = 200
"""Longer payloads, messages and reasons are cut here; `--json` has them whole."""

_LISTED = 3


def sentence(event: Event) -> str:
    """What *event* says, for a person."""
    return WORDS[type(event)](event)


def history(entries: Iterable[HistoryEntry]) -> Text:
    """A line for each event, in order."""
    return columns(
        ("seq", "recorded (UTC)", "event", "node", "epoch", "what happened"),
        [
            (str(e.seq), when(e.at), e.type, e.node, str(e.row.epoch), sentence(e.event))
            for e in entries
        ],
    )


def brief(text: str) -> str:
    """*text*, cut when it is long."""
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 1]}…"


def why(failure: Failure) -> str:
    """What failed, in a line; what was merely not begun says only that."""
    return brief(
        failure.message if failure.type == "Halted" else f"{failure.type}: {failure.message}"
    )


# ---------------------------------------------------------------------------- parts of sentences


def _attempt(number: int) -> str:
    return f" (attempt {number})" if number > 1 else ""


def _cost(cost: float) -> str:
    return f", at a cost of {cost:g}" if cost else ""


def _because(reason: str) -> str:
    return f": {brief(reason)}" if reason else ""


def _value(output: Json | None, before: str = ": ") -> str:
    return "" if output is None else f"{before}{brief(output)}"


def _time(moment: datetime) -> str:
    return f"{when(moment)} UTC"


def _not_before(due_at: datetime) -> str:
    return f"not before {_time(due_at)}"


def _who(actor: str) -> str:
    return actor or "somebody"


def _under_way(running: Sequence[str]) -> str:
    if not running:
        return ""
    more = f" and {len(running) - _LISTED:,} more" if len(running) > _LISTED else ""
    return f"; {', '.join(running[:_LISTED])}{more} may be under way"


# ---------------------------------------------------------------------------- one by one


def _saga_started(e: ev.SagaStarted) -> str:
    parent = f", as a child of {e.parent}" if e.parent else ""
    limit = f", to be done by {_time(e.deadline)}" if e.deadline else ""
    return f"{e.saga} version {e.saga_version} began{parent}{limit}, on {brief(e.input)}"


def _step_held(e: ev.StepHeld) -> str:
    doubt = "; it may have been called before" if e.in_doubt else ""
    return f"{e.step} has to wait for the {e.by} until {_time(e.due_at)}{doubt}"


def _probe_answered(e: ev.ProbeAnswered) -> str:
    match e.answer:
        case "happened":
            return f"the probe of {e.step} says that it happened{_value(e.output)}"
        case "not_happened":
            return f"the probe of {e.step} says that it did not happen"
        case "unknown":
            return f"the probe of {e.step} cannot tell whether it happened"
        case _:
            failed = f": {why(e.failure)}" if e.failure else ""
            return f"the probe of {e.step} failed{failed}"


def _remote_requested(e: ev.RemoteRequested) -> str:
    until = f", and replied to until {_time(e.due_at)}" if e.due_at else ""
    if e.intent == "probe":
        return f"the participant behind {e.topic} is asked whether {e.step} happened{until}"
    what = f"the undo of {e.step}" if e.intent == "undo" else e.step
    return (
        f"{what} is asked for as {e.command} through {e.topic}{_attempt(e.attempt)}"
        f"{until}, on {brief(e.payload)}"
    )


def _remote_replied(e: ev.RemoteReplied) -> str:
    told = f": {why(e.failure)}" if e.failure else _value(e.output)
    what = {"undo": f"the undo of {e.step}", "probe": f"the question about {e.step}"}
    answer = e.answer.replace("_", " ")
    return f"{_who(e.actor)} replied to {what.get(e.intent, e.step)}, {answer}{told}"


def _item_failed(e: ev.ItemFailed) -> str:
    failed = "was" if e.failure.type == "Halted" else "failed:"
    return f"item {e.item} of {e.node} {failed} {why(e.failure)}"


def _wait_ended(e: ev.WaitEnded) -> str:
    if e.failure.type == "Halted":
        return f"the signal {e.signal} is not waited for any more: the saga turned round"
    return f"the signal {e.signal} did not come: {why(e.failure)}"


def _child_requested(e: ev.ChildRequested) -> str:
    key = f" with the key {e.key}" if e.key else ""
    return f"{e.saga} version {e.saga_version} is to run as child {e.child_id}{key}, on {brief(e.input)}"


def _child_ended(e: ev.ChildEnded) -> str:
    told = f": {why(e.failure)}" if e.failure else _value(e.output)
    if e.status == "refused":
        return f"child {e.child_id} could not be started{told}"
    return f"child {e.child_id} ended, {e.status}{told}"


def _branches_halted(e: ev.BranchesHalted) -> str:
    cut = ", and is not waited for" if e.cut and e.running else ""
    return f"nothing new begins at {e.node}{_under_way(e.running)}{cut}"


def _deadline_passed(e: ev.DeadlinePassed) -> str:
    what = f"the time-out at {e.node} is over" if e.node else "the deadline of the saga has passed"
    return f"{what}{_under_way(e.running)}"


def _compensation_started(e: ev.CompensationStarted) -> str:
    told = e.failure is None or e.failure.message in e.reason
    return f"the saga turns round{_because(e.reason)}" + (
        "" if told or e.failure is None else f" ({why(e.failure)})"
    )


def _step_compensated(e: ev.StepCompensated) -> str:
    scope = f", because {e.scope} failed" if e.scope else ""
    count = len(e.passed)
    passed = f"; {count:,} after it had nothing to be undone" if count else ""
    return f"{e.step} was undone{_attempt(e.attempt)}{scope}{passed}"


def _saga_stuck(e: ev.SagaStuck) -> str:
    at = f" at {e.step or e.node}" if e.step or e.node else ""
    return f"the saga is stuck{at}, a person is needed{_because(e.reason)}"


def _step_retried(e: ev.StepRetried) -> str:
    what = f"{e.step} run" if e.again else f"{e.step}, or its undo, tried"
    given = f"{_value(e.input, ', on the input ')}{_value(e.output, ', on the output ')}"
    return f"{_who(e.actor)} had {what} again{given}{_because(e.reason)}"


def _step_resolved(e: ev.StepResolved) -> str:
    found = f"happened{_value(e.output, ' and gave ')}" if e.happened else "did not happen"
    return f"{_who(e.actor)} found out that {e.step} {found}{_because(e.reason)}"


_STEPS: Mapping[type[Event], Callable[[Any], str]] = {
    ev.StepStarted: lambda e: f"{e.step} runs{_attempt(e.attempt)}",
    ev.StepSucceeded: lambda e: (
        f"{e.step} gave {brief(e.output)}{_attempt(e.attempt)}{_cost(e.cost)}"
    ),
    ev.StepFailed: lambda e: (
        f"{e.step} failed: {why(e.failure)}{_attempt(e.attempt)}{_cost(e.cost)}"
    ),
    ev.StepInDoubt: lambda e: (
        f"nobody knows whether {e.step} happened: {why(e.failure)}"
        f"{_attempt(e.attempt)}{_cost(e.cost)}"
    ),
    ev.StepHeld: _step_held,
    ev.CacheHit: lambda e: f"{e.step} was not called: cache {e.cache} has {brief(e.output)}",
    ev.ProbeAnswered: _probe_answered,
    ev.RemoteRequested: _remote_requested,
    ev.RemoteReplied: _remote_replied,
    ev.ProbeRetryScheduled: lambda e: (
        f"the probe of {e.step} is asked again{_attempt(e.attempt)}, {_not_before(e.due_at)}"
    ),
    ev.RetryScheduled: lambda e: (
        f"{e.target} is tried again{_attempt(e.attempt)}, {_not_before(e.due_at)}"
    ),
    ev.StepCompensated: _step_compensated,
    ev.CompensationFailed: lambda e: (
        f"the undo of {e.step} failed: {why(e.failure)}{_attempt(e.attempt)}"
    ),
    ev.CompensationRetryScheduled: lambda e: (
        f"the undo of {e.step} is tried again{_attempt(e.attempt)}, {_not_before(e.due_at)}"
    ),
}

_PARTS: Mapping[type[Event], Callable[[Any], str]] = {
    ev.ValueComputed: lambda e: f"{e.name} gave {brief(e.output)}",
    ev.ComputationFailed: lambda e: f"{e.name} failed: {why(e.failure)}",
    ev.InputBound: lambda e: f"{e.node} gets {brief(e.input)}, by {e.name}",
    ev.RouteChosen: lambda e: f"{e.node} takes the route {e.route}",
    ev.FallbackTaken: lambda e: (
        f"{e.node} takes alternative {e.alternative}, because of {why(e.failure)}"
    ),
    ev.EachStarted: lambda e: f"{e.node} begins {e.count:,} items, {e.concurrency:,} at once",
    ev.ItemSucceeded: lambda e: f"item {e.item} of {e.node} is done: {brief(e.output)}",
    ev.ItemFailed: _item_failed,
    ev.ConditionEvaluated: lambda e: (
        f"after iteration {e.iteration} the condition of {e.node} "
        + ("holds" if e.holds else "does not hold")
    ),
    ev.IterationScheduled: lambda e: (
        f"iteration {e.iteration} of {e.node} begins on {brief(e.input)}, {_not_before(e.due_at)}"
    ),
    ev.TimerSet: lambda e: f"{e.node} sleeps until {_time(e.due_at)}",
    ev.TimerFired: lambda e: f"the sleep at {e.node} is over",
    ev.FlowRequested: lambda e: (
        f"the code at {e.node} asked for {brief(spelled(e.request))} on {brief(e.input)}"
    ),
    ev.FlowReturned: lambda e: f"the code at {e.node} returned {brief(e.output)}",
    ev.FlowFailed: lambda e: f"the code at {e.node} failed: {why(e.failure)}",
    ev.BranchesHalted: _branches_halted,
    ev.PivotPassed: lambda e: "the point of no return: from here on nothing is undone",
    ev.DeadlineSet: lambda e: f"the time-out at {e.node} runs until {_time(e.due_at)}",
    ev.DeadlinePassed: _deadline_passed,
    ev.ChildRequested: _child_requested,
    ev.ChildStarted: lambda e: f"child {e.child_id} was started",
    ev.ChildCancelRequested: lambda e: f"child {e.child_id} was told to go back",
    ev.ChildEnded: _child_ended,
    ev.ChildUndoRequested: lambda e: f"child {e.child_id} was told to take back what it did",
}

_WHOLE: Mapping[type[Event], Callable[[Any], str]] = {
    ev.SagaStarted: _saga_started,
    ev.WaitStarted: lambda e: (
        f"the signal {e.signal} is waited for" + (f", until {_time(e.due_at)}" if e.due_at else "")
    ),
    ev.WaitEnded: _wait_ended,
    ev.SignalReceived: lambda e: (
        f"the signal {e.signal} came from {_who(e.actor)}{_value(e.payload)}"
    ),
    ev.SignalRejected: lambda e: (
        f"a signal {e.signal} from {_who(e.actor)} was rejected{_because(e.problem)}"
    ),
    ev.CancelRequested: lambda e: (
        f"{_who(e.actor)} cancelled it{_because(e.reason)}{_under_way(e.running)}"
    ),
    ev.CancelRefused: lambda e: (
        f"{_who(e.actor)} tried to cancel it after the point of no return{_because(e.reason)}"
    ),
    ev.DeadlineMissed: lambda e: (
        f"the deadline {_time(e.due_at)} passed after the point of no return: it goes on, late"
    ),
    ev.HistoryLimitReached: lambda e: (
        f"its history is too long for it to go on{_under_way(e.running)}"
    ),
    ev.CompensationStarted: _compensation_started,
    ev.SagaCompleted: lambda e: f"the saga completed{_value(e.output)}",
    ev.SagaCompensated: lambda e: f"all that may have happened was undone{_because(e.reason)}",
    ev.SagaStuck: _saga_stuck,
    ev.SagaTerminated: lambda e: (
        f"{_who(e.actor)} ended it where it stood, and nothing was undone{_because(e.reason)}"
    ),
    ev.SagaResumed: lambda e: f"{_who(e.actor)} let it go on{_because(e.reason)}",
    ev.StepRetried: _step_retried,
    ev.CompensationSkipped: lambda e: (
        f"{_who(e.actor)} took over the undo of {e.step}, which is not called{_because(e.reason)}"
    ),
    ev.StepResolved: _step_resolved,
    ev.ActionRefused: lambda e: (
        f"{_who(e.actor)} asked for {e.action}, and was refused{_because(e.problem)}"
    ),
    ev.UndoRequested: lambda e: (
        f"its parent {e.parent} goes back, and it goes back too{_because(e.reason)}"
    ),
}

WORDS: Mapping[type[Event], Callable[[Any], str]] = {**_STEPS, **_PARTS, **_WHOLE}
"""A sentence for each type of event; a test says when one is left out."""
