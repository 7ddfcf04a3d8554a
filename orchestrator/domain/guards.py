"""Policies that calls share across sagas: circuit breakers, rates, caches and budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.bounds import (
    checked_count,
    checked_duration,
    checked_name,
    checked_number,
    spell_number,
    spell_seconds,
)
from orchestrator.domain.definition import In, Out, Primitive, Seconds
from orchestrator.domain.node_state import NodeState
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate, seconds
from orchestrator.domain.signatures import check_plain
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
        place = f"circuit {checked_name(self.name, 'circuit')!r}"
        checked_count(self.failures, f"{place}: failures")
        checked_duration(self.reset, f"{place}: reset")
        checked_count(self.probes, f"{place}: probes")

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
        place = f"rate limit {checked_name(self.name, 'rate limit')!r}"
        checked_count(self.calls, f"{place}: calls")
        checked_duration(self.per, f"{place}: per")

    @property
    def rule(self) -> Rate:
        return Rate(self.name, self.calls, seconds(self.per))

    @property
    def label(self) -> str:
        return f"at most {self.calls} in {spell_seconds(self.per)} s"


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
        if self.name != "":
            checked_name(self.name, "cache")
        checked_duration(self.ttl, "Cache: ttl")
        checked_count(self.max_size, "Cache: max_size")
        if self.key is not None:
            check_plain(self.key, "Cache: key", self.inner.input_type, str)

    def rule(self, step: str) -> CacheRule:
        """The rule for the cache round the step of this name."""
        return CacheRule(self.name or step, seconds(self.ttl), self.max_size)

    @property
    def label(self) -> str:
        return f"cached for {spell_seconds(self.ttl)} s"


@dataclass(frozen=True, eq=False, repr=False)
class Budget(Wrapper[In, Out]):
    """Begin nothing below once `limit` is spent, as `ctx.cost(...)` counted it.

    Without a name it is this saga's own budget for what is below. With a name it is shared by
    all sagas, for each `per` or for ever.
    """

    inner: Primitive[In, Out]
    limit: float
    name: str = ""
    per: Seconds | None = None

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name != "":
            checked_name(self.name, "budget")
        checked_number(self.limit, "Budget: limit", least=0)
        if self.per is not None:
            checked_duration(self.per, "Budget: per")
            if not self.name:
                raise DefinitionError(
                    'a budget for a period is shared between sagas; give it a name: name="..."'
                )

    @property
    def rule(self) -> BudgetRule | None:
        """The shared rule; None for a budget of this saga only."""
        per = None if self.per is None else seconds(self.per)
        return BudgetRule(self.name, self.limit, per) if self.name else None

    @property
    def label(self) -> str:
        return f"budget {self.name} of {spell_number(self.limit)}".replace("  ", " ")

    def told(self, known: NodeState) -> str:
        return f"{spell_number(known.cost)} spent" if known.cost else ""
