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


@dataclass(frozen=True, slots=True)
class StepStarted:
    """An attempt is running: written when it takes long, or before it when it must run once."""

    node: str
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """The action returned, and its output could be recorded."""

    node: str
    step: str
    attempt: int
    output: Json


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The action raised: it says that nothing happened."""

    node: str
    step: str
    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class StepInDoubt:
    """Nobody knows whether this attempt happened: time-out, lost connection, lost result."""

    node: str
    step: str
    attempt: int
    failure: Failure


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
class RetryScheduled:
    """What failed below *node* runs again, as attempt number `attempt`, not before `due_at`.

    `target` is the path that runs again: the step itself, or a fresh path for a scope.
    """

    node: str
    target: str
    attempt: int
    due_at: datetime


@dataclass(frozen=True, slots=True)
class DeadlineSet:
    """The time-out at *node* began to run."""

    node: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time-out at *node* is over. `running` are the steps that may be under way below it."""

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
class CompensationStarted:
    """The saga turned round; everything that may have happened is undone from here on."""

    reason: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class StepCompensated:
    """The undo of a step is done."""

    node: str
    step: str
    attempt: int


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


Event = (
    SagaStarted
    | StepStarted
    | StepSucceeded
    | StepFailed
    | StepInDoubt
    | ValueComputed
    | ComputationFailed
    | RetryScheduled
    | DeadlineSet
    | DeadlinePassed
    | CancelRequested
    | CompensationStarted
    | StepCompensated
    | CompensationFailed
    | CompensationRetryScheduled
    | SagaCompleted
    | SagaCompensated
    | SagaStuck
)

EVENT_TYPES: Mapping[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}

RIDES_ALONG = (SagaStarted, ValueComputed, DeadlineSet)
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
