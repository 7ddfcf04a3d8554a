"""What is asked before a step is called, and told afterwards: budgets, caches, rates, circuits."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
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

Call = Callable[[], Awaitable[Outcome]]

_AGAIN = timedelta(seconds=1)
"""When to ask again after the shared state could not be reached."""


class Gate:
    """Stands before the steps of one worker."""

    def __init__(self, shared: SharedState, codec: Codec, clock: Clock) -> None:
        self._shared = shared
        self._codec = codec
        self._clock = clock

    async def through(
        self, command: RunStep, receipt: str, patience: timedelta, call: Call
    ) -> Outcome:
        """The outcome of *call*, or why it was not made. *receipt* names this attempt."""
        # What takes nothing away is asked first; an open circuit is better found out last,
        # because a place among its probes would be lost to the others.
        guards = sorted(command.guards, key=_order)
        taken: list[Callable[[Outcome], Awaitable[None]]] = []
        try:
            for guard in guards:
                refused, settle = await self._ask(guard, command, receipt, patience)
                if refused is not None:
                    await self._settle(taken, refused)
                    return refused
                if settle is not None:
                    taken.append(settle)
        except UnavailableError:
            return Postponed("shared state", self._clock.now() + _AGAIN)
        outcome = await call()
        await self._settle(taken, outcome)
        return outcome

    async def _settle(
        self, taken: list[Callable[[Outcome], Awaitable[None]]], outcome: Outcome
    ) -> None:
        for settle in taken:
            try:
                await settle(outcome)
            except UnavailableError:
                # It is advice for other calls; this one is over whatever they think of it.
                continue

    async def _ask(
        self, guard: Guard, command: RunStep, receipt: str, patience: timedelta
    ) -> tuple[Outcome | None, Callable[[Outcome], Awaitable[None]] | None]:
        match guard:
            case BudgetRule():
                return await self._budget(guard, receipt)
            case CacheGuard():
                return await self._cache(guard, command, receipt, patience)
            case Rate():
                held = await self._shared.reserve(guard)
                return (Postponed(f"rate {guard.name}", held.until) if held else None), None
            case Circuit():
                held = await self._shared.admit(guard)
                if held is not None:
                    return Postponed(f"circuit {guard.name}", held.until), None
                return None, lambda outcome: self._report(guard, outcome)

    async def _budget(
        self, rule: BudgetRule, receipt: str
    ) -> tuple[Outcome | None, Callable[[Outcome], Awaitable[None]] | None]:
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
    ) -> tuple[Outcome | None, Callable[[Outcome], Awaitable[None]] | None]:
        rule, key = guard.rule, self._key(guard, command)
        try:
            found = await self._shared.look_up(rule, key, receipt, patience)
        except UnavailableError:
            # A cache that cannot be reached holds nothing: the step is merely called more often.
            return None, None
        if isinstance(found, Hit):
            return Remembered(rule.name, found.output), None
        if found is not None:
            return Postponed(f"cache {rule.name}", found.until), None

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


def _order(guard: Guard) -> int:
    return _KINDS.index(type(guard))
