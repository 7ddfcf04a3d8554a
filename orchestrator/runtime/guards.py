"""What is asked before a step is called, and told afterwards: budgets, caches, rates, circuits."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.commands import (
    CacheGuard,
    Failed,
    Guard,
    InDoubt,
    Outcome,
    Postponed,
    Remembered,
    RunStep,
    Succeeded,
)
from orchestrator.domain.events import Failure
from orchestrator.domain.policies import BudgetRule, Circuit, Rate
from orchestrator.errors import UnavailableError
from orchestrator.ports import Clock, Codec, Hit, SharedState

log = logging.getLogger(__name__)

Call = Callable[[], Awaitable[Outcome]]
Settle = Callable[[Outcome], Awaitable[None]]

_SOONEST = timedelta(milliseconds=20)
"""The shortest wait: each time that a step is held is an event."""

_AGAIN = timedelta(seconds=1)
"""When to ask again after the shared state could not be reached."""


class Gate:
    """Stands before the steps of one worker."""

    def __init__(self, shared: SharedState, codec: Codec, clock: Clock) -> None:
        self._shared = shared
        self._codec = codec
        self._clock = clock

    async def through(
        self,
        command: RunStep,
        receipt: str,
        patience: timedelta,
        call: Call,
        taken: list[Settle] | None = None,
    ) -> Outcome:
        """The outcome of *call*, or why it was not made. *receipt* names this attempt.

        *taken* holds who is to be told of the outcome, also by others where nobody waits for it.
        """
        # What takes nothing away is asked first; an open circuit is better found out last,
        # because a place among its probes would be lost to the others.
        guards = sorted(_once_each(command.guards), key=_order)
        taken = [] if taken is None else taken
        try:
            for guard in guards:
                refused, settle = await self._ask(guard, command, receipt, patience)
                if refused is not None:
                    await self.settle(taken, refused)
                    return refused
                if settle is not None:
                    taken.append(settle)
        except UnavailableError:
            return Postponed("shared state", self._clock.now() + _AGAIN)
        outcome = await call()
        told = tuple(taken)
        taken.clear()
        await self.settle(told, outcome)
        return outcome

    async def settle(self, taken: Iterable[Settle], outcome: Outcome) -> None:
        """Tell those who let a call through what became of it."""
        for tell in taken:
            try:
                await tell(outcome)
            except UnavailableError:
                # It is advice for other calls; this one is over whatever they think of it.
                continue
            except Exception:
                log.exception("a guard could not be told of a call; what it came to stands")

    async def _ask(
        self, guard: Guard, command: RunStep, receipt: str, patience: timedelta
    ) -> tuple[Outcome | None, Settle | None]:
        match guard:
            case BudgetRule():
                return await self._budget(guard, receipt)
            case CacheGuard():
                return await self._cache(guard, command, receipt, patience)
            case Rate():
                held = await self._shared.reserve(guard, command.turn)
                return (self._postponed("rate", guard.name, held.until) if held else None), None
            case Circuit():
                held = await self._shared.admit(guard)
                if held is not None:
                    return self._postponed("circuit", guard.name, held.until), None
                return None, lambda outcome: self._report(guard, outcome)

    def _postponed(self, what: str, name: str, until: datetime) -> Postponed:
        """Ask again then, by our own clock too: where it is ahead, `until` may be over already."""
        return Postponed(f"{what} {name}", max(until, self._clock.now() + _SOONEST))

    async def _budget(self, rule: BudgetRule, receipt: str) -> tuple[Outcome | None, Settle | None]:
        spent = await self._shared.spent(rule)
        if spent >= rule.limit:
            text = f"{spent:g} of {rule.limit:g} are spent; nothing more is begun"
            return Failed(Failure("BudgetExceeded", text, permanent=True)), None

        async def spend(outcome: Outcome) -> None:
            cost = getattr(outcome, "cost", 0.0)
            if cost:
                await self._shared.spend(rule, cost, receipt)

        return None, spend

    async def _cache(
        self, guard: CacheGuard, command: RunStep, receipt: str, patience: timedelta
    ) -> tuple[Outcome | None, Settle | None]:
        rule, key = guard.rule, self._key(guard, command)
        try:
            found = await self._shared.look_up(rule, key, receipt, patience)
        except UnavailableError:
            # A cache that cannot be reached holds nothing: the step is merely called more often.
            return None, None
        if isinstance(found, Hit):
            return Remembered(rule.name, found.output), None
        if found is not None:
            return self._postponed("cache", rule.name, found.until), None

        async def keep(outcome: Outcome) -> None:
            if isinstance(outcome, Succeeded):
                await self._shared.keep(rule, key, receipt, outcome.output)
            else:
                await self._shared.let_go(rule, key, receipt)

        return None, keep

    def _key(self, guard: CacheGuard, command: RunStep) -> str:
        if guard.node.key is None:
            text: str = command.input
        else:
            given = self._codec.decode(command.input, command.step.input_type)
            text = str(guard.node.key(given))
        return hashlib.sha256(text.encode()).hexdigest()

    async def _report(self, circuit: Circuit, outcome: Outcome) -> None:
        match outcome:
            case Succeeded():
                await self._shared.report(circuit, succeeded=True)
            case InDoubt():
                await self._shared.report(circuit, succeeded=False)
            case Failed(failure) if not failure.permanent:
                await self._shared.report(circuit, succeeded=False)
            case _:
                # A declined card says nothing about the bank.
                return


_KINDS: tuple[type[Any], ...] = (BudgetRule, CacheGuard, Rate, Circuit)


def _once_each(guards: Iterable[Guard]) -> Iterable[Guard]:
    """A rate or a circuit that stands around a step twice is asked once, by its stricter rule.

    Asked twice it would take two places for one call, and might never come by both at once.
    """
    kept: dict[object, Guard] = {}
    for guard in guards:
        key: object = (type(guard), guard.name) if isinstance(guard, Rate | Circuit) else id(guard)
        other = kept.get(key)
        if isinstance(guard, Rate) and isinstance(other, Rate) and other.each > guard.each:
            continue
        kept[key] = guard
    return kept.values()


def _order(guard: Guard) -> int:
    return _KINDS.index(type(guard))
