"""What an action is told about the run it belongs to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from orchestrator.domain.steps import Step

T = TypeVar("T")


def _no_heartbeat() -> None:
    return None


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _no_input() -> Any:
    return None


def _no_output(step: Step[Any, Any]) -> Any:
    return None


def _no_cost(amount: float) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the shell lends to an action: resources, the clock, the saga's earlier values."""

    resources: Mapping[type, object] = field(default_factory=dict)
    now: Callable[[], datetime] = _utc_now
    read_input: Callable[[], Any] = _no_input
    read_output: Callable[[Step[Any, Any]], Any] = _no_output
    heartbeat: Callable[[], None] = _no_heartbeat
    spend: Callable[[float], None] = _no_cost


@dataclass(frozen=True, slots=True)
class WorkflowContext:
    """Who asked for this saga and which attempt of which step this is; never changes.

    A caller gives `correlation_id`, `causation_id`, `user_id`, `metadata`, `tags`, `baggage`
    and the trace; the orchestrator fills in the rest before it calls an action. Unknown fields
    are a `TypeError`. `idempotency_key` is the same on every attempt of one step.
    """

    correlation_id: str | None = None
    causation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    baggage: Mapping[str, str] = field(default_factory=dict)
    saga_id: str = ""
    saga_name: str = ""
    saga_version: int = 0
    attempt: int = 0
    idempotency_key: str = ""
    surroundings: Surroundings = field(default_factory=Surroundings, repr=False, compare=False)

    @property
    def workflow_id(self) -> str:
        """The saga's id, by its other common name."""
        return self.saga_id

    @property
    def input(self) -> Any:
        """The input of the saga."""
        return self.surroundings.read_input()

    def output(self, step: Step[Any, T]) -> T:
        """The recorded output of *step*; LookupError when it has not succeeded yet."""
        return cast("T", self.surroundings.read_output(step))

    def use(self, kind: type[T]) -> T:
        """The worker's resource of this type; LookupError when the worker was given none."""
        try:
            return cast("T", self.surroundings.resources[kind])
        except KeyError:
            known = ", ".join(sorted(k.__name__ for k in self.surroundings.resources)) or "none"
            raise LookupError(
                f"this worker has no resource of type {kind.__name__} (it has: {known}); "
                f"give it one: work(..., resources={{{kind.__name__}: ...}}), or for the command "
                f"line, in the module of the saga: resources = {{{kind.__name__}: ...}}"
            ) from None

    def now(self) -> datetime:
        """The time by the database's clock."""
        return self.surroundings.now()

    def heartbeat(self) -> None:
        """Say that this attempt is alive: for `@step(heartbeat=...)`, from any thread."""
        self.surroundings.heartbeat()

    def cost(self, amount: float) -> None:
        """Say what this attempt cost, in the unit of the budgets round it; adds up."""
        if not 0 <= amount < math.inf:
            raise ValueError(f"a cost is 0 or more and finite, not {amount!r}")
        self.surroundings.spend(float(amount))


@dataclass(frozen=True, slots=True)
class View:
    """What `.using(...)` looks at: the value that came in, the saga's input, earlier outputs."""

    value: Any
    ctx: WorkflowContext

    @property
    def input(self) -> Any:
        """The input of the saga."""
        return self.ctx.input

    def output(self, step: Step[Any, T]) -> T:
        """The recorded output of *step*; LookupError when it has not succeeded yet."""
        return self.ctx.output(step)
