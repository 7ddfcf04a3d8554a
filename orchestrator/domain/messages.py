"""What a message means to an instance: the fact that its owner records, accepted or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Json, Status
from orchestrator.domain.exchange import failure_from
from orchestrator.domain.node_state import NodeState, Settled
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.state import SagaState
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import Signal, Wait
from orchestrator.domain.wrappers import Pivot, below_adapters

Check = Callable[[Json, Any], str | None]
"""What is wrong with a text as a value of a type; None when nothing is."""


def signals(saga: Saga[Any, Any]) -> dict[str, Signal[Any]]:
    """The signals that *saga* is seen to wait for, by name; the code of flows may wait for more."""
    return {node.signal.name: node.signal for node in walk(saga.tree) if isinstance(node, Wait)}


def hear(
    saga: Saga[Any, Any],
    state: SagaState,
    kind: str,
    payload: Mapping[str, Any],
    *,
    actor: str,
    seq: int,
    running: tuple[str, ...],
    check: Check,
) -> Event:
    """The event that a message of this *kind* becomes."""
    reason = str(payload.get("reason", ""))
    match kind:
        case "cancel" if state.pivoted:
            return ev.CancelRefused(actor, reason, seq)
        case "cancel":
            return ev.CancelRequested(actor, reason, seq, running)
        case "signal":
            return _signal(saga, payload, actor, seq, check)
        case "terminate":
            return ev.SagaTerminated(actor, reason, seq)
        case "undo":
            if state.pivoted:
                return ev.ActionRefused(kind, actor, "it has passed its point of no return", seq)
            if state.status is Status.COMPLETED:
                return ev.UndoRequested(actor, reason, seq)
            return ev.ActionRefused(kind, actor, f"it is {state.status}, not completed", seq)
        case "resume" | "retry" | "skip" | "resolve":
            if state.status is not Status.STUCK:
                return ev.ActionRefused(kind, actor, f"it is {state.status}, not stuck", seq)
            return _repair(saga, state, kind, payload, actor, reason, seq, check)
        case _:
            return ev.ActionRefused(kind, actor, "nobody here knows what this asks for", seq)


def hear_reply(
    state: SagaState, payload: Mapping[str, Any], *, actor: str, seq: int
) -> ev.RemoteReplied | None:
    """The event that a participant's reply becomes; None when nobody waits for it (any more)."""
    command_id, intent = str(payload["command_id"]), str(payload["intent"])
    path = command_id.removeprefix(f"{state.saga_id}/")
    known = state.find(path.removesuffix("/undo") if intent == "undo" else path)
    if known is None or (asked := known.asked) is None or known.replied is not None:
        return None
    answer, number = str(payload["answer"]), int(payload["number"])
    # What has happened answers whatever was sent; all else answers only what it was sent for.
    settled = answer == "succeeded" and intent != "probe"
    if (asked.command_id, asked.intent) != (command_id, intent):
        return None
    if number != asked.number and not settled:
        return None
    found = payload.get("failure")
    return ev.RemoteReplied(
        path.removesuffix("/undo") if intent == "undo" else path, known.step, asked.attempt,
        intent, answer, actor, seq, _text(payload.get("output")),
        None if found is None else failure_from(found),
    )  # fmt: skip


def _signal(
    saga: Saga[Any, Any], payload: Mapping[str, Any], actor: str, seq: int, check: Check
) -> Event:
    name, text = str(payload["name"]), Json(str(payload["data"]))
    known = signals(saga).get(name)
    problem = check(text, Any if known is None else known.model)
    if problem is not None:
        return ev.SignalRejected(name, problem, actor, seq)
    return ev.SignalReceived(name, text, actor, seq)


def _repair(
    saga: Saga[Any, Any],
    state: SagaState,
    kind: str,
    payload: Mapping[str, Any],
    actor: str,
    reason: str,
    seq: int,
    check: Check,
) -> Event:
    def refused(problem: str) -> Event:
        return ev.ActionRefused(kind, actor, problem, seq)

    path = _place(state, str(payload.get("step") or ""))
    if kind == "resume" or (kind == "retry" and path == ""):
        return ev.SagaResumed(actor, reason, seq)
    if path is None or path == "":
        return refused(f"no step {payload.get('step')!r} of it is stuck or to be undone")
    name = state.at(path).step
    step = saga.steps.get(name)
    texts = {part: _text(payload.get(part)) for part in ("input", "output")}
    for part, text in texts.items():
        # The steps of a flow are not known here; what is no JSON would spoil the history.
        kind_of = Any if step is None else getattr(step, f"{part}_type") or Any
        if text is not None and (wrong := check(text, kind_of)):
            return refused(f"{part}: {wrong}")
    if kind == "retry":
        forward = state.before_stuck is Status.RUNNING
        if forward and _is_settled(state.at(path)):
            return refused(f"{name} is neither stuck nor failed")
        again = forward and (state.pivoted or _is_pivot(saga, step))
        return ev.StepRetried(
            path, name, actor, reason, seq, texts["input"], texts["output"], again
        )
    if kind == "skip":
        if path not in (state.root.to_undo or ()):
            return refused(f"{name} is not to be undone, so there is no undo to be skipped")
        return ev.CompensationSkipped(path, name, actor, reason, seq)
    if not state.at(path).doubtful:
        return refused(f"{name} is not in doubt")
    happened, output = bool(payload.get("happened")), texts["output"]
    undoable = step is not None and step.undo_attempted is not None
    if happened and output is None and not (undoable and state.before_stuck is Status.COMPENSATING):
        return refused(f"say what {name} gave, because that is needed to go on: --output JSON")
    return ev.StepResolved(path, name, happened, actor, reason, seq, output)


def _place(state: SagaState, named: str) -> str | None:
    """The path of the step that an operator means: by name, by path, or the one that is stuck."""
    stuck = state.stuck
    if not named:
        return stuck.node if stuck is not None else None
    if stuck is not None and named in (stuck.step, stuck.node):
        return stuck.node
    places = [
        path for path in reversed(state.root.to_undo or {}) if named in (path, state.at(path).step)
    ]
    return places[0] if places else None


def _is_settled(node: NodeState) -> bool:
    """Whether it succeeded, and there is nothing to be tried again."""
    return node.settled is Settled.SUCCEEDED and node.undo_failure is None


def _is_pivot(saga: Saga[Any, Any], step: Step[Any, Any] | None) -> bool:
    pivots = (node for node in walk(saga.tree) if isinstance(node, Pivot))
    return any(below_adapters(pivot) is step for pivot in pivots)


def _text(value: object) -> Json | None:
    return None if value is None else Json(str(value))
