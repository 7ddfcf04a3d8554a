"""Where an instance stands: the fold of its history, and the table of legal moves.

The state needs no definition: any history can be folded, also one whose saga is long gone.
Paths are `saga/1/0`: the saga's name, then the index of the child at each level; a scope that
runs again carries its attempt in the segment (`saga/1/0@2`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import assert_never

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Failure, Json, Status
from orchestrator.errors import IllegalTransitionError

_FORWARD = {
    ev.StepStarted: Status.RUNNING,
    ev.StepSucceeded: Status.RUNNING,
    ev.StepFailed: Status.RUNNING,
    ev.StepInDoubt: Status.RUNNING,
    ev.ValueComputed: Status.RUNNING,
    ev.ComputationFailed: Status.RUNNING,
    ev.RetryScheduled: Status.RUNNING,
    ev.DeadlineSet: Status.RUNNING,
    ev.DeadlinePassed: Status.RUNNING,
}

TRANSITIONS: Mapping[Status, Mapping[type[Event], Status]] = {
    Status.PENDING: {ev.SagaStarted: Status.RUNNING, ev.SagaStuck: Status.STUCK},
    Status.RUNNING: {
        **_FORWARD,
        # A scope that failed is undone while the saga as a whole goes forward.
        ev.StepCompensated: Status.RUNNING,
        ev.CompensationFailed: Status.RUNNING,
        ev.CompensationRetryScheduled: Status.RUNNING,
        ev.CancelRequested: Status.RUNNING,
        ev.CompensationStarted: Status.COMPENSATING,
        ev.SagaCompleted: Status.COMPLETED,
        ev.SagaStuck: Status.STUCK,
    },
    Status.COMPENSATING: {
        ev.StepCompensated: Status.COMPENSATING,
        ev.CompensationFailed: Status.COMPENSATING,
        ev.CompensationRetryScheduled: Status.COMPENSATING,
        ev.CancelRequested: Status.COMPENSATING,
        ev.SagaCompensated: Status.COMPENSATED,
        ev.SagaStuck: Status.STUCK,
    },
    Status.WAITING: {},
    Status.COMPLETED: {},
    Status.COMPENSATED: {},
    Status.STUCK: {},
    Status.TERMINATED: {},
}
"""What may follow in which status. `waiting` is `running` as the work queue sees it: no event
leads there, because nothing happened."""


class Settled(Enum):
    """How the last attempt of a leaf ended."""

    SUCCEEDED = auto()
    FAILED = auto()
    IN_DOUBT = auto()


@dataclass(slots=True)
class NodeState:
    """What is known of one place of the tree; its children by path segment."""

    children: dict[str, NodeState] = field(default_factory=dict)
    step: str = ""
    settled: Settled | None = None
    output: Json | None = None
    failure: Failure | None = None
    attempts: int = 0
    announced: int = 0
    doubtful: bool = False
    retries: int = 0
    due_at: datetime | None = None
    deadline: datetime | None = None
    halted: frozenset[str] | None = None
    undone: bool = False
    undo_attempts: int = 0
    undo_failure: Failure | None = None
    undo_due_at: datetime | None = None
    undo_since: datetime | None = None

    def child(self, segment: str) -> NodeState:
        """The state of a child; one that nothing happened to is the blank, which nobody changes."""
        return self.children.get(segment, _BLANK)

    def rearm(self) -> None:
        """Forget how the last attempt ended, so that the leaf below runs again."""
        self.settled = None
        self.retries = 0
        self.due_at = self.deadline = self.halted = None
        for child in self.children.values():
            child.rearm()


_BLANK = NodeState()


@dataclass(slots=True)
class SagaState:
    """One instance, folded. It belongs to whoever folds it: `evolve` changes it in place."""

    saga_id: str
    status: Status = Status.PENDING
    version: int = 0
    saga: str = ""
    saga_version: int = 0
    fingerprint: str = ""
    input: Json = Json("null")
    context: Mapping[str, object] = field(default_factory=dict)
    root: NodeState = field(default_factory=NodeState)
    outputs: dict[str, Json] = field(default_factory=dict)
    undo_stack: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    cancel: ev.CancelRequested | None = None
    inbox_seen: int = 0
    result: Json | None = None
    failure: Failure | None = None
    reason: str = ""
    stuck: ev.SagaStuck | None = None

    def at(self, path: str) -> NodeState:
        """The state of the place *path*, made when it is not there yet."""
        node = self.root
        for segment in path.split("/")[1:]:
            found = node.children.get(segment)
            if found is None:
                found = node.children[segment] = NodeState()
            node = found
        return node


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
    status = TRANSITIONS[state.status].get(type(event))
    if status is None:
        raise IllegalTransitionError(
            f"{type(event).__name__} cannot follow in saga {state.saga_id} "
            f"({state.status}, version {state.version}); nothing was changed"
        )
    _apply(state, event)
    state.status = status
    state.version += 1
    return state


def _apply(state: SagaState, event: Event) -> None:
    match event:
        case ev.StepSucceeded(node=path, output=output):
            node = _attempted(state, event, Settled.SUCCEEDED)
            node.output, node.failure = output, None
            if node.doubtful:
                node.doubtful = False
                state.undo_stack.remove(path)
            state.outputs[event.step] = output
            state.undo_stack.append(path)
        case ev.StepFailed(failure=failure):
            _attempted(state, event, Settled.FAILED).failure = failure
        case ev.StepInDoubt(node=path, failure=failure):
            node = _attempted(state, event, Settled.IN_DOUBT)
            node.failure = failure
            if not node.doubtful:
                node.doubtful = True
                state.undo_stack.append(path)
        case ev.SagaStarted():
            state.saga, state.saga_version = event.saga, event.saga_version
            state.fingerprint, state.input = event.fingerprint, event.input
            state.context = event.context
        case ev.StepStarted(node=path, step=step, attempt=attempt):
            node = state.at(path)
            node.step, node.announced = step, attempt
        case ev.ValueComputed(node=path, name=name, output=output):
            node = state.at(path)
            node.step, node.settled, node.output = name, Settled.SUCCEEDED, output
        case ev.ComputationFailed(node=path, name=name, failure=failure):
            node = state.at(path)
            node.step, node.settled, node.failure = name, Settled.FAILED, failure
        case ev.RetryScheduled(node=path, target=target, due_at=due_at):
            node = state.at(path)
            # A scope begins again under a fresh path, which has no state to forget.
            if again := node.children.get(target.rpartition("/")[2]):
                again.rearm()
            node.retries += 1
            node.due_at = due_at
        case ev.DeadlineSet(node=path, due_at=due_at):
            state.at(path).deadline = due_at
        case ev.DeadlinePassed(node=path, running=running):
            state.at(path).halted = frozenset(running)
        case ev.CancelRequested(inbox_seq=seq):
            state.cancel = state.cancel or event
            state.inbox_seen = max(state.inbox_seen, seq)
        case ev.CompensationStarted(reason=reason, failure=why):
            state.reason, state.failure = reason, why
        case ev.StepCompensated(node=path):
            _compensated(state, path)
        case ev.CompensationFailed(node=path, attempt=attempt, failure=failure):
            node = state.at(path)
            node.undo_attempts, node.undo_failure = attempt, failure
        case ev.CompensationRetryScheduled(node=path, due_at=due_at, since=since):
            node = state.at(path)
            node.undo_failure, node.undo_due_at, node.undo_since = None, due_at, since
        case ev.SagaCompleted(output=output):
            state.result = output
        case ev.SagaCompensated():
            pass
        case ev.SagaStuck():
            state.stuck = event
        case _:
            assert_never(event)


def _attempted(
    state: SagaState, event: ev.StepSucceeded | ev.StepFailed | ev.StepInDoubt, settled: Settled
) -> NodeState:
    node = state.at(event.node)
    node.step, node.attempts, node.settled = event.step, event.attempt, settled
    return node


def _compensated(state: SagaState, path: str) -> None:
    stack = state.undo_stack
    # From the top: what is undone stands there, or near it.
    place = next((i for i in range(len(stack) - 1, -1, -1) if stack[i] == path), None)
    if place is None:
        raise IllegalTransitionError(
            f"{path} of saga {state.saga_id} cannot be compensated: nothing there is to be undone"
        )
    node = state.at(path)
    node.undone, node.doubtful, node.undo_failure, node.undo_due_at = True, False, None, None
    state.undone.append(path)
    if state.status is Status.COMPENSATING:
        # What stands above was passed over because it has no undo; it is never asked again.
        del stack[place:]
    else:
        del stack[place]
