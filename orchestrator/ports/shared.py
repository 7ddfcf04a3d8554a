"""Policies that all workers share: circuits, rates, caches and budgets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.domain.events import Json
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate


@dataclass(frozen=True, slots=True)
class Hit:
    """A cached output."""

    output: Json


@dataclass(frozen=True, slots=True)
class Held:
    """Not now: ask again, at the earliest at `until`."""

    until: datetime


class SharedState(Protocol):
    """What sagas know of each other: circuits, rates, caches and budgets, each by its name.

    All of it is advice for calls that have not been made. What an instance saw of it is in its
    events, so losing it loses no saga. Policies are described in `domain.policies`.
    """

    async def admit(self, circuit: Circuit) -> Held | None:
        """None: a call may go through now. Half open, at most `probes` calls are let through
        at a time; a probe that never reports counts no longer after another `reset`."""
        ...

    async def report(self, circuit: Circuit, *, succeeded: bool) -> None:
        """Say what became of an admitted call. Opening and closing are `policies.circuit_after`."""
        ...

    async def reserve(self, rate: Rate, turn: datetime | None = None) -> Held | None:
        """None: one call was taken out of the allowance. Held: nothing was taken, but a place in
        the line: who comes back with that time as its *turn* goes before who comes now."""
        ...

    async def look_up(
        self, cache: CacheRule, key: str, holder: str, patience: timedelta
    ) -> Hit | Held | None:
        """A fresh output; Held while another holder computes it; None: *holder* is to compute it.

        A holder that is silent for *patience* has lost its turn. The same holder that asks
        again gets None again.
        """
        ...

    async def keep(self, cache: CacheRule, key: str, holder: str, output: Json) -> None:
        """Store what *holder* computed; the oldest entries over `max_size` are dropped."""
        ...

    async def let_go(self, cache: CacheRule, key: str, holder: str) -> None:
        """Say that *holder* failed to compute it: the next may try at once."""
        ...

    async def spent(self, budget: BudgetRule) -> float:
        """What was spent in the present period."""
        ...

    async def spend(self, budget: BudgetRule, amount: float, receipt: str) -> None:
        """Add to what was spent; the same *receipt* counts once."""
        ...
