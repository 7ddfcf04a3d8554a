"""Policies that calls share across sagas: circuit breakers, rates, caches and budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator.domain.definition import In, Out, Primitive, Seconds, checked_name
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate, seconds
from orchestrator.domain.wrappers import Wrapper
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, eq=False, repr=False)
class CircuitBreaker(Wrapper[In, Out]):
    """Stop calling what keeps failing: after `failures` in a row, wait `reset`, then try `probes`.

    Shared by name through the database. Time-outs and failures count, `Permanent` does not. A
    call that is not admitted waits, and burns no retry.
    """

    inner: Primitive[In, Out]
    name: str
    failures: int = 5
    reset: Seconds = 60
    probes: int = 1

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_name(self.name, "circuit")
        if self.failures < 1 or self.probes < 1 or seconds(self.reset) <= timedelta(0):
            raise DefinitionError(
                f"circuit {self.name!r}: failures and probes are 1 or more, reset is above 0"
            )

    @property
    def rule(self) -> Circuit:
        return Circuit(self.name, self.failures, seconds(self.reset), self.probes)

    @property
    def label(self) -> str:
        return f"circuit {self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class RateLimit(Wrapper[In, Out]):
    """No more than `calls` in each `per`, for all who use the name. The others wait their turn."""

    inner: Primitive[In, Out]
    name: str
    calls: int
    per: Seconds = 1

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_name(self.name, "rate limit")
        if self.calls < 1 or seconds(self.per) <= timedelta(0):
            raise DefinitionError(f"rate limit {self.name!r}: at least 1 call in more than 0 s")

    @property
    def rule(self) -> Rate:
        return Rate(self.name, self.calls, seconds(self.per))

    @property
    def label(self) -> str:
        return f"at most {self.calls} in {seconds(self.per).total_seconds():g} s"


@dataclass(frozen=True, eq=False, repr=False)
class Cache(Wrapper[In, Out]):
    """Remember the output for `ttl`, by input; never on a step that is undone.

    One call at a time computes a key, the others wait for it. Errors are not kept. `name` is
    the step's unless given; `key` is the whole input unless given.
    """

    inner: Primitive[In, Out]
    ttl: Seconds
    name: str = ""
    max_size: int = 1_000
    key: Callable[[Any], str] | None = None

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name:
            checked_name(self.name, "cache")
        if seconds(self.ttl) <= timedelta(0) or self.max_size < 1:
            raise DefinitionError("a cache keeps at least 1 output, for more than 0 s")

    def rule(self, step: str) -> CacheRule:
        """The rule for the cache round the step of this name."""
        return CacheRule(self.name or step, seconds(self.ttl), self.max_size)

    @property
    def label(self) -> str:
        return f"cached for {seconds(self.ttl).total_seconds():g} s"


@dataclass(frozen=True, eq=False, repr=False)
class Budget(Wrapper[In, Out]):
    """Begin nothing below once `limit` is spent, as `ctx.cost(...)` counted it.

    Without a name it is this saga's own budget for what is below. With a name it is shared by
    all sagas, for each `per` or for ever.
    """

    inner: Primitive[In, Out]
    limit: float
    name: str = ""
    per: timedelta | None = None

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name:
            checked_name(self.name, "budget")
        if self.limit < 0 or (self.per is not None and self.per <= timedelta(0)):
            raise DefinitionError("a budget is 0 or more, for a period above 0")
        if self.per is not None and not self.name:
            raise DefinitionError("a budget for a period is shared between sagas; give it a name")

    @property
    def rule(self) -> BudgetRule | None:
        """The shared rule; None for a budget of this saga only."""
        return BudgetRule(self.name, self.limit, self.per) if self.name else None

    @property
    def label(self) -> str:
        return f"budget {self.name} of {self.limit:g}".replace("  ", " ")
