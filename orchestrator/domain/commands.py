"""What the core asks of the shell, and what may come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.definition import Pure
from orchestrator.domain.events import Event, Failure, Json
from orchestrator.domain.steps import Step, Undo


@dataclass(frozen=True, slots=True)
class RunStep:
    """Call the action of *step*. `timeout` bounds the attempt, `deadline` whatever is round it."""

    path: str
    step: Step[Any, Any]
    attempt: int
    input: Json
    outputs: Mapping[str, Json]
    timeout: timedelta | None = None
    deadline: datetime | None = None
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Compute:
    """Call a pure function."""

    path: str
    node: Pure[Any, Any]
    input: Json


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


Command = RunStep | Compute | RunCompensation


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The call returned."""

    output: Json = Json("null")


@dataclass(frozen=True, slots=True)
class Failed:
    """The call says that nothing happened."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Nobody knows whether it happened."""

    failure: Failure


Outcome = Succeeded | Failed | InDoubt


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record, or else what to run; and when to look again if nothing happens before."""

    decisions: tuple[Event, ...] = ()
    commands: tuple[Command, ...] = ()
    wake_at: datetime | None = None
