"""What the core asks of the shell, and what may come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.definition import Primitive
from orchestrator.domain.events import Event, Failure, Json, RemoteReplied
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.guards import Cache
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Probe, Step, Undo


@dataclass(frozen=True, slots=True)
class CacheGuard:
    """A cache round one step: its rule, and the node that says how keys are made."""

    rule: CacheRule
    node: Cache[Any, Any]


Guard = Circuit | Rate | BudgetRule | CacheGuard
"""What is asked before a step is called, from the outermost inward."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """Call the action of *step*. `timeout` bounds the attempt, `deadline` whatever is round it.

    `cut` says that nobody waits for it any more; `turn` is until when it was held back. `reply` is
    what a participant answered: of a remote step it is read, and without one its command is made, as
    that number of all from here.
    """

    path: str
    step: Step[Any, Any]
    attempt: int
    input: Json
    outputs: Mapping[str, Json]
    timeout: timedelta | None = None
    deadline: datetime | None = None
    announced: bool = False
    guards: tuple[Guard, ...] = ()
    cut: bool = False
    turn: datetime | None = None
    reply: RemoteReplied | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class Compute:
    """Call a plain function of the node: `call(value, ctx)`, *value* being read as *takes*.

    A value that rides along (`events.RIDES_ALONG`) is made again by the next owner.
    """

    path: str
    node: Primitive[Any, Any]
    name: str
    call: Callable[[Any, Any], Any] = field(compare=False)
    input: Json
    takes: Any
    gives: Any
    outputs: Mapping[str, Json]
    detail: Any = None
    rides_along: bool = False


@dataclass(frozen=True, slots=True)
class RunCompensation:
    """Call what undoes *step*; `output` is None when it is not known."""

    path: str
    step: Step[Any, Any]
    undo: Undo
    attempt: int
    input: Json
    output: Json | None
    outputs: Mapping[str, Json]
    on_doubt: bool
    passed: tuple[str, ...] = ()
    scope: str = ""
    reply: RemoteReplied | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class RunProbe:
    """Ask whether *step* happened."""

    path: str
    step: Step[Any, Any]
    probe: Probe
    attempt: int
    input: Json
    outputs: Mapping[str, Json]
    reply: RemoteReplied | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class ResumeFlow:
    """Run the code of a flow up to its next request, on the answers that it has so far.

    `requests` is what was recorded; `answers` may be one shorter, when the last is not answered.
    """

    path: str
    node: FlowNode[Any, Any]
    input: Json
    requests: tuple[tuple[str, Json], ...]
    answers: tuple[Json | Failure, ...]


@dataclass(frozen=True, slots=True)
class StartChild:
    """Store the request of a child saga; it is known by its id if it was stored before."""

    path: str
    saga: Saga[Any, Any]
    child_id: str
    key: str
    input: Json


@dataclass(frozen=True, slots=True)
class CancelChild:
    """Tell a live child to go back."""

    path: str
    child_id: str


@dataclass(frozen=True, slots=True)
class UndoChild:
    """Tell a completed child to take back what it did."""

    path: str
    child_id: str


@dataclass(frozen=True, slots=True)
class WatchChild:
    """Look whether a child has ended; `undone` when it is being undone. It may take for ever."""

    path: str
    name: str
    child_id: str
    undone: bool = False
    passed: tuple[str, ...] = ()
    scope: str = ""


Attempted = RunStep | RunCompensation | RunProbe
Command = Attempted | Compute | ResumeFlow | StartChild | CancelChild | UndoChild | WatchChild


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The call returned."""

    output: Json = Json("null")
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """The call says that nothing happened."""

    failure: Failure
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Nobody knows whether it happened."""

    failure: Failure
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Requested:
    """A participant is to be asked: its command, and until when its reply is waited for."""

    command_id: str
    payload: Json
    due_at: datetime | None
    undoes: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True)
class Postponed:
    """A guard let the call wait; it was not made. `in_doubt`: an earlier one may have been."""

    by: str
    until: datetime
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Remembered:
    """A cache had the output; the call was not made."""

    cache: str
    output: Json


@dataclass(frozen=True, slots=True)
class Answered:
    """What a probe said: `happened`, `not_happened` or `unknown`."""

    answer: str
    output: Json | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The code of a flow asks for a part to be run."""

    index: int
    request: str
    input: Json


@dataclass(frozen=True, slots=True)
class Diverged:
    """The code of a flow is not the code that made the record."""

    index: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class ChildOver:
    """A child ended, with this status."""

    status: str
    output: Json | None = None
    failure: Failure | None = None


Outcome = (
    Succeeded
    | Failed
    | InDoubt
    | Requested
    | Postponed
    | Remembered
    | Answered
    | Asked
    | Diverged
    | ChildOver
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record, or else what to run; and when to look again if nothing happens before."""

    decisions: tuple[Event, ...] = ()
    commands: tuple[Command, ...] = ()
    wake_at: datetime | None = None
