"""What can happen to a saga: facts in the past tense, frozen, one union.

A payload (input, output) is JSON text exactly as it was written, never a decoded value, so that
what is hashed, stored, folded and published is one and the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType, get_args

Json = NewType("Json", str)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed, in a form that outlives the process.

    `kinds` are the qualified names of the exception's classes, most special first, so that a
    policy can match them later without importing anything. `retry_after` is in seconds.
    """

    type: str
    message: str
    kinds: tuple[str, ...] = ()
    permanent: bool = False
    retry_after: float | None = None
    causes: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class SagaStarted:
    """The first owner took the request up. `requested_at` is the time of the request."""

    saga: str
    saga_version: int
    fingerprint: str
    requested_at: datetime
    input: Json
    context: Mapping[str, object] = field(default_factory=dict)
    deadline: datetime | None = None
    parent: str = ""
    parent_node: str = ""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """An attempt is running: written when it takes long, or before it when it must run once."""

    node: str
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """The action returned, and its output could be recorded. `cost` is what it said it cost."""

    node: str
    step: str
    attempt: int
    output: Json
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The action raised: it says that nothing happened."""

    node: str
    step: str
    attempt: int
    failure: Failure
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class StepInDoubt:
    """Nobody knows whether this attempt happened: time-out, lost connection, lost result."""

    node: str
    step: str
    attempt: int
    failure: Failure
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class StepHeld:
    """A policy lets the step wait: a circuit is open, a rate is used up, a cache is being filled.

    `in_doubt` says that an owner who died may have called it before.
    """

    node: str
    step: str
    by: str
    due_at: datetime
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class RemoteRequested:
    """A command for a participant: the relay carries it to `topic`. No reply counts after `due_at`.

    `intent` is `do`, `undo` or `probe`. `command_id` is the idempotency key, the same for every
    attempt; a probe asks for the command of that id. `number` counts what was sent from this
    place. `undoes` is the id of the command that an undo takes back in doubt.
    """

    node: str
    step: str
    attempt: int
    intent: str
    command: str
    topic: str
    command_id: str
    payload: Json
    due_at: datetime | None = None
    undoes: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True)
class RemoteReplied:
    """What a participant answered: `succeeded`, `failed` or `in_doubt`.

    To a probe: `happened`, `not_happened`, `unknown`, or `busy` while the command still runs.
    """

    node: str
    step: str
    attempt: int
    intent: str
    answer: str
    actor: str
    inbox_seq: int
    output: Json | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class CacheHit:
    """The step was not called: its output was known."""

    node: str
    step: str
    cache: str
    output: Json


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """What a probe said of a step in doubt: `happened`, `not_happened`, `unknown` or `failed`."""

    node: str
    step: str
    attempt: int
    answer: str
    output: Json | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ProbeRetryScheduled:
    """The probe failed, and is asked again, not before `due_at`."""

    node: str
    step: str
    attempt: int
    due_at: datetime


@dataclass(frozen=True, slots=True)
class ValueComputed:
    """A pure function gave its value."""

    node: str
    name: str
    output: Json


@dataclass(frozen=True, slots=True)
class ComputationFailed:
    """A pure function raised; no retry can help."""

    node: str
    name: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class InputBound:
    """A part got its input from earlier values instead of its neighbour's output."""

    node: str
    name: str
    input: Json


@dataclass(frozen=True, slots=True)
class RouteChosen:
    """A router chose one of its routes."""

    node: str
    route: str


@dataclass(frozen=True, slots=True)
class FallbackTaken:
    """What came before failed, and alternative number `alternative` (from 1) begins."""

    node: str
    alternative: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class EachStarted:
    """The list is known: `count` items, of which `concurrency` run at once."""

    node: str
    items: Json
    count: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class ItemSucceeded:
    """Item number `item` (from 0) of a list is done."""

    node: str
    item: int
    output: Json


@dataclass(frozen=True, slots=True)
class ItemFailed:
    """Item number `item` (from 0) of a list failed, or was not begun because another one did."""

    node: str
    item: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class ConditionEvaluated:
    """Whether the loop may end after this iteration (from 1)."""

    node: str
    iteration: int
    holds: bool


@dataclass(frozen=True, slots=True)
class IterationScheduled:
    """The next iteration (from 2) of a loop begins on `input`, not before `due_at`."""

    node: str
    iteration: int
    due_at: datetime
    input: Json


@dataclass(frozen=True, slots=True)
class TimerSet:
    """A sleep began."""

    node: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A sleep is over."""

    node: str


@dataclass(frozen=True, slots=True)
class WaitStarted:
    """The instance waits for a signal, at the longest until `due_at`."""

    node: str
    signal: str
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """The instance waits no longer for that signal: it took too long, or is not needed now."""

    node: str
    signal: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal came. The wait that began first gets it; without one it is kept."""

    signal: str
    payload: Json
    actor: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class SignalRejected:
    """A signal came whose payload is not what the saga's code expects."""

    signal: str
    problem: str
    actor: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class ChildRequested:
    """A child saga will be started, under this id whatever happens."""

    node: str
    saga: str
    saga_version: int
    child_id: str
    input: Json
    key: str = ""


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The child saga's request is stored."""

    node: str
    child_id: str


@dataclass(frozen=True, slots=True)
class ChildCancelRequested:
    """The child saga was told to go back, because what it is for is not wanted any more."""

    node: str
    child_id: str


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The child saga ended: `completed`, `compensated`, `terminated`, or `refused` at its start."""

    node: str
    child_id: str
    status: str
    output: Json | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ChildUndoRequested:
    """The completed child saga was told to take back what it did."""

    node: str
    child_id: str


@dataclass(frozen=True, slots=True)
class FlowRequested:
    """The code of a flow asked for its request number `index` (from 0)."""

    node: str
    index: int
    request: str
    input: Json


@dataclass(frozen=True, slots=True)
class FlowReturned:
    """The code of a flow came to its end."""

    node: str
    output: Json


@dataclass(frozen=True, slots=True)
class FlowFailed:
    """The code of a flow raised."""

    node: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class BranchesHalted:
    """A branch failed, and nothing new begins in the others. `running` may be under way.

    With `cut` they are not waited for: they are in doubt.
    """

    node: str
    running: tuple[str, ...]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class PivotPassed:
    """The point of no return: from here on nothing is undone any more."""

    node: str


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """What failed below *node* runs again, as attempt number `attempt`, not before `due_at`.

    `target` is the path that runs again: the step itself, or a fresh path for a scope. `since` is
    the first failure of a step that is retried because there is no way back.
    """

    node: str
    target: str
    attempt: int
    due_at: datetime
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeadlineSet:
    """The time-out at *node* began to run."""

    node: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time-out at *node* is over; without a node, the deadline of the whole saga.

    `running` are the steps that may be under way below it.
    """

    node: str
    running: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked to take the saga back. `running` are the steps that may be under way."""

    actor: str
    reason: str
    inbox_seq: int
    running: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """A cancel came too late: the pivot had been passed."""

    actor: str
    reason: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class DeadlineMissed:
    """The deadline of the saga passed after its pivot: it goes on, and is late."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class HistoryLimitReached:
    """The instance has too many events to go on. `running` are the steps that may be under way."""

    running: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompensationStarted:
    """The saga turned round; everything that may have happened is undone from here on."""

    reason: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class StepCompensated:
    """The undo of a step is done. `passed` had nothing to be undone and came after it.

    `scope` is the part that failed and leaves nothing behind; without one the whole saga goes back.
    """

    node: str
    step: str
    attempt: int
    passed: tuple[str, ...] = ()
    scope: str = ""


@dataclass(frozen=True, slots=True)
class CompensationFailed:
    """An attempt to undo a step failed."""

    node: str
    step: str
    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class CompensationRetryScheduled:
    """The undo of a step is tried again, not before `due_at`. `since` is its first failure."""

    node: str
    step: str
    attempt: int
    due_at: datetime
    since: datetime


@dataclass(frozen=True, slots=True)
class SagaCompleted:
    """The saga reached its end."""

    output: Json


@dataclass(frozen=True, slots=True)
class SagaCompensated:
    """Everything that may have happened was undone."""

    reason: str


@dataclass(frozen=True, slots=True)
class SagaStuck:
    """The saga cannot go on by itself; a person is needed."""

    node: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class SagaTerminated:
    """Somebody ended the instance where it stood; nothing was undone."""

    actor: str
    reason: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class SagaResumed:
    """Somebody let a stuck instance go on where it stood."""

    actor: str
    reason: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class StepRetried:
    """Somebody had a stuck step, or its compensation, tried again; perhaps on other values.

    `again` says that it is the step, though it is in doubt and may have to be undone.
    """

    node: str
    step: str
    actor: str
    reason: str
    inbox_seq: int
    input: Json | None = None
    output: Json | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class CompensationSkipped:
    """Somebody took the undo of a step on himself; it is not called any more."""

    node: str
    step: str
    actor: str
    reason: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class StepResolved:
    """Somebody found out whether a step in doubt happened."""

    node: str
    step: str
    happened: bool
    actor: str
    reason: str
    inbox_seq: int
    output: Json | None = None


@dataclass(frozen=True, slots=True)
class ActionRefused:
    """Somebody asked for what could not be done; nothing was changed."""

    action: str
    actor: str
    problem: str
    inbox_seq: int


@dataclass(frozen=True, slots=True)
class UndoRequested:
    """The parent of this completed instance goes back, and this one with it."""

    parent: str
    reason: str
    inbox_seq: int


Event = (
    SagaStarted
    | StepStarted
    | StepSucceeded
    | StepFailed
    | StepInDoubt
    | StepHeld
    | RemoteRequested
    | RemoteReplied
    | CacheHit
    | ProbeAnswered
    | ProbeRetryScheduled
    | ValueComputed
    | ComputationFailed
    | InputBound
    | RouteChosen
    | FallbackTaken
    | EachStarted
    | ItemSucceeded
    | ItemFailed
    | ConditionEvaluated
    | IterationScheduled
    | TimerSet
    | TimerFired
    | WaitStarted
    | WaitEnded
    | SignalReceived
    | SignalRejected
    | ChildRequested
    | ChildStarted
    | ChildCancelRequested
    | ChildEnded
    | ChildUndoRequested
    | FlowRequested
    | FlowReturned
    | FlowFailed
    | BranchesHalted
    | PivotPassed
    | RetryScheduled
    | DeadlineSet
    | DeadlinePassed
    | CancelRequested
    | CancelRefused
    | DeadlineMissed
    | HistoryLimitReached
    | CompensationStarted
    | StepCompensated
    | CompensationFailed
    | CompensationRetryScheduled
    | SagaCompleted
    | SagaCompensated
    | SagaStuck
    | SagaTerminated
    | SagaResumed
    | StepRetried
    | CompensationSkipped
    | StepResolved
    | ActionRefused
    | UndoRequested
)

EVENT_TYPES: Mapping[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


@dataclass(frozen=True, slots=True)
class SagaRemoved:
    """The instance and its history were removed, long after it ended: the last that is heard of it.

    No history that is folded holds it: it is published, and stays behind only until then.
    """

    saga: str
    saga_version: int


RIDES_ALONG = (
    SagaStarted,
    ValueComputed,
    InputBound,
    DeadlineSet,
    EachStarted,
    ItemSucceeded,
    ItemFailed,
    TimerFired,
    PivotPassed,
)
"""Facts that no effect depends on: the same would be decided again after a crash, so they may
wait for the next append instead of asking for one of their own."""


class Status(StrEnum):
    """Where an instance stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    STUCK = "stuck"
    TERMINATED = "terminated"


ENDED = frozenset({Status.COMPLETED, Status.COMPENSATED, Status.TERMINATED})
