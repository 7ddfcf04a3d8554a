"""Circuits, rates, caches and budgets in memory, by the arithmetic of `domain.policies`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.domain.events import Json
from orchestrator.domain.policies import (
    Bucket,
    BudgetRule,
    CacheRule,
    Circuit,
    CircuitState,
    Rate,
    bucket_after,
    circuit_after,
    held_by_circuit,
    look_again,
    period_start,
    spent_after,
)
from orchestrator.errors import InvalidInputError
from orchestrator.ports import Clock, Held, Hit


@dataclass(slots=True)
class _Breaker:
    """A circuit, and when the probes that have not reported were let through."""

    state: CircuitState = field(default_factory=CircuitState)
    probes: list[datetime] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Who computes an output, and until when others wait for it."""

    holder: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key of a cache: what was kept for it, and who computes it anew."""

    output: Json | None = None
    kept_at: datetime | None = None
    turn: _Turn | None = None

    def is_fresh(self, ttl: timedelta, now: datetime) -> bool:
        return self.kept_at is not None and now < self.kept_at + ttl

    def is_in_use(self, now: datetime) -> bool:
        return self.turn is not None and now < self.turn.until


@dataclass(slots=True)
class MemorySharedState:
    """orchestrator.ports.SharedState."""

    clock: Clock
    _breakers: dict[str, _Breaker] = field(default_factory=dict)
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _caches: dict[str, dict[str, _Entry]] = field(default_factory=dict)
    _budgets: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    _receipts: set[tuple[str, str]] = field(default_factory=set)

    # ------------------------------------------------------------------ circuits

    async def admit(self, circuit: Circuit) -> Held | None:
        breaker, now = self._breakers.setdefault(circuit.name, _Breaker()), self.clock.now()
        until = held_by_circuit(circuit, breaker.state, breaker.probes, now)
        if until is not None:
            return Held(until)
        if breaker.state.opened_at is not None:
            out = (at for at in breaker.probes if now < at + circuit.reset)
            breaker.probes = [*out, now]
        return None

    async def report(self, circuit: Circuit, *, succeeded: bool) -> None:
        breaker = self._breakers.setdefault(circuit.name, _Breaker())
        before = breaker.state
        breaker.state = circuit_after(circuit, before, self.clock.now(), succeeded=succeeded)
        if breaker.state.passed > before.passed:
            breaker.probes = breaker.probes[1:]

    # ------------------------------------------------------------------ rates

    async def reserve(self, rate: Rate, turn: datetime | None = None) -> Held | None:
        before = self._buckets.get(rate.name)
        self._buckets[rate.name], until = bucket_after(rate, before, self.clock.now(), turn)
        return None if until is None else Held(until)

    # ------------------------------------------------------------------ caches

    async def look_up(
        self, cache: CacheRule, key: str, holder: str, patience: timedelta
    ) -> Hit | Held | None:
        entries, now = self._caches.setdefault(cache.name, {}), self.clock.now()
        entry = entries.get(key, _Entry())
        if entry.output is not None and entry.is_fresh(cache.ttl, now):
            return Hit(entry.output)
        turn = entry.turn
        if turn is not None and now < turn.until and turn.holder != holder:
            return Held(look_again(turn.since, now, turn.until))
        entries[key] = replace(entry, turn=_Turn(holder, now, now + patience))
        return None

    async def keep(self, cache: CacheRule, key: str, holder: str, output: Json) -> None:
        """As the port says; who has lost its turn stores nothing."""
        entries, now = self._caches.setdefault(cache.name, {}), self.clock.now()
        if _holds(entries.get(key), holder):
            # The last to be kept is the last in order.
            del entries[key]
            entries[key] = _Entry(output, now)
            _sweep(entries, cache.max_size, now)

    async def let_go(self, cache: CacheRule, key: str, holder: str) -> None:
        entries = self._caches.setdefault(cache.name, {})
        if _holds(entries.get(key), holder):
            del entries[key]

    # ------------------------------------------------------------------ budgets

    async def spent(self, budget: BudgetRule) -> float:
        period = period_start(budget, self.clock.now())
        spent, since = self._budgets.get(budget.name, (0.0, period))
        return spent_after(spent, since, 0.0, period)[0]

    async def spend(self, budget: BudgetRule, amount: float, receipt: str) -> None:
        if (budget.name, receipt) in self._receipts:
            return
        period = period_start(budget, self.clock.now())
        spent, since = self._budgets.get(budget.name, (0.0, period))
        after = spent_after(spent, since, float(amount), period)
        if not math.isfinite(after[0]):
            raise InvalidInputError(f"{amount} cannot be added to what was spent")
        self._budgets[budget.name] = after
        self._receipts.add((budget.name, receipt))


def _holds(entry: _Entry | None, holder: str) -> bool:
    return entry is not None and entry.turn is not None and entry.turn.holder == holder


def _sweep(entries: dict[str, _Entry], max_size: int, now: datetime) -> None:
    """Drop the oldest outputs over *max_size*, and what silent holders left empty."""
    kept = [key for key, entry in entries.items() if entry.kept_at is not None]
    empty = [key for key, entry in entries.items() if entry.kept_at is None]
    for key in kept[: max(len(kept) - max(max_size, 1), 0)] + empty:
        if not entries[key].is_in_use(now):
            del entries[key]
