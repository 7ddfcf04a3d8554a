"""Whom the steps speak to: effects by idempotency key, in a world that fails, lies and is late."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import Permanent
from tests.simulation.faults import Faults
from tests.simulation.timeline import Timeline

HELD = 4.0
"""The longest time that a call is held; longer than a step may take."""


@dataclass(slots=True)
class Entry:
    """What became of one key. `void` was taken back, or will never happen.

    Of calls that began by `heard` nothing happens any more: they were refused, or it was said that
    it did not happen. `denied`: nobody may ask for it again, unless a person does.
    """

    state: str = "new"
    step: str = ""
    saga_id: str = ""
    applied_at: int = 0
    undone_at: int = 0
    heard: int = 0
    denied: bool = False


@dataclass(eq=False)
class Ledger:
    """All that was ever done, by key."""

    timeline: Timeline
    faults: Faults
    entries: dict[str, Entry] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    deaf: set[Any] = field(default_factory=set)
    """Tasks that do not let themselves be cancelled."""
    moments: int = 0
    begun: int = 0
    """Calls that have begun, ever."""
    asked_again: list[str] = field(default_factory=list)
    """Keys that were asked for although it had been said that they did not happen."""

    def entry(self, key: str, step: str, saga_id: str) -> Entry:
        return self.entries.setdefault(key, Entry("new", step, saga_id))

    def apply(self, key: str, step: str, saga_id: str, began: int) -> bool:
        """Whether the effect is there now; it is not once the key was taken back."""
        entry = self.entry(key, step, saga_id)
        if entry.state == "new" and began > entry.heard:
            self.moments += 1
            entry.state, entry.applied_at = "applied", self.moments
            self.timeline.say(f"LEDGER do {step} {_short(key)}")
        return entry.state == "applied"

    def take_back(self, key: str, step: str, saga_id: str) -> None:
        """Undo, or see to it that it never happens."""
        entry = self.entry(key, step, saga_id)
        if entry.state == "applied":
            self.moments += 1
            entry.undone_at = self.moments
            self.timeline.say(f"LEDGER undo {step} {_short(key)}")
        entry.state = "void"

    def standing(self, saga_id: str) -> dict[str, str]:
        """What stands of one instance's effects: step by key."""
        return {
            key: entry.step
            for key, entry in self.entries.items()
            if entry.saga_id == saga_id and entry.state == "applied"
        }


class Account:
    """One process's connection to the ledger: what steps find as a resource."""

    def __init__(self, ledger: Ledger, place: Any) -> None:
        self._ledger = ledger
        self._place = place

    async def do(self, ctx: Any, step: str, *, honest: bool = False) -> str:
        """Have the effect of *step* happen, once for its key; what it gives is always the same.

        An *honest* participant refuses no key whose effect is there, and what it refused does not
        happen late: that is what a step needs that cannot settle a doubt (decision 0010).
        """
        ledger, faults, key = self._ledger, self._ledger.faults, ctx.idempotency_key
        ledger.calls[key] += 1
        ledger.begun += 1
        began = ledger.begun
        self._check(key, step, ctx)
        await self._reach("do", step)
        entry = ledger.entry(key, step, ctx.saga_id)
        for fault in ("effect fails", "effect declined"):
            if not (honest and entry.state == "applied") and faults.strikes(fault, step):
                if honest:
                    entry.heard = ledger.begun
                raise Permanent("declined") if fault.endswith("declined") else RuntimeError("no")
        if faults.strikes("effect not applied, answer lost", step):
            raise ConnectionResetError("the answer was lost")
        if faults.strikes("effect deaf", step):
            await self._never()
        if faults.strikes("effect held", step):
            ledger.timeline.after(HELD, ledger.apply, key, step, ctx.saga_id, began)
            await asyncio.sleep(HELD)
        if not ledger.apply(key, step, ctx.saga_id, began):
            raise Permanent("it was taken back")
        lost = faults.strikes("effect applied, answer lost", step)
        await self._reach("did", step)
        if lost:
            raise ConnectionResetError("the answer was lost")
        return f"{step} of {_short(key)}"

    async def _never(self) -> None:
        """Wait for ever, and do not hear of any cancellation."""
        self._ledger.deaf.add(asyncio.current_task())
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await self._place.loop.create_future()

    async def undo(self, key: str, ctx: Any, step: str) -> None:
        """Take the effect of *key* back; nothing to take back is as good."""
        ledger, faults = self._ledger, self._ledger.faults
        ledger.calls[f"{key}/undo"] += 1
        self._check(None, step, ctx)
        if ctx.idempotency_key != f"{key}/undo":
            ledger.wrong.append(f"undo of {key} came under the key {ctx.idempotency_key}")
        await self._reach("undo", step)
        if faults.strikes("undo fails", step):
            raise RuntimeError("not now")
        ledger.take_back(key, step, ctx.saga_id)
        lost = faults.strikes("undo applied, answer lost", step)
        await self._reach("undid", step)
        if lost:
            raise ConnectionResetError("the answer was lost")

    async def ask(self, key: str, ctx: Any, step: str) -> str | None:
        """Whether the effect of *key* happened: then what it gave.

        Else nothing that was sent before makes it happen any more.
        """
        ledger, faults = self._ledger, self._ledger.faults
        await self._reach("ask", step)
        if faults.strikes("probe fails", step):
            raise RuntimeError("not now")
        if faults.strikes("probe unknown", step):
            return ""
        entry = ledger.entry(key, step, ctx.saga_id)
        if entry.state == "applied":
            return f"{step} of {_short(key)}"
        entry.heard, entry.denied = ledger.begun, True
        return None

    async def write(self, db: Any, ctx: Any, step: str) -> str:
        """Have the effect of *step* happen together with the append, or not at all."""
        ledger, key = self._ledger, ctx.idempotency_key
        ledger.begun += 1
        began = ledger.begun
        self._check(key, step, ctx)
        await self._reach("write", step)
        if ledger.faults.strikes("effect fails", step):
            raise RuntimeError("no")

        def commit() -> None:
            if ledger.entry(key, step, ctx.saga_id).state != "new":
                ledger.wrong.append(f"{step} {key} was committed twice")
            ledger.apply(key, step, ctx.saga_id, began)

        db.written.append(commit)
        return f"{step} of {_short(key)}"

    async def erase(self, db: Any, key: str, ctx: Any, step: str) -> None:
        """Take the effect of *key* back together with the append, or not at all."""
        ledger = self._ledger
        self._check(None, step, ctx)
        await self._reach("erase", step)

        def commit() -> None:
            if ledger.entry(key, step, ctx.saga_id).state != "applied":
                ledger.wrong.append(f"the undo of {step} {key} was committed for nothing")
            ledger.take_back(key, step, ctx.saga_id)

        db.written.append(commit)

    async def _reach(self, what: str, step: str) -> None:
        await self._place.point(f"{what} {step}")
        await asyncio.sleep(self._ledger.timeline.random.uniform(0.001, 0.02))

    def _check(self, key: str | None, step: str, ctx: Any) -> None:
        ledger = self._ledger
        ledger.timeline.say(f"{self._place.name} calls {step} {_short(ctx.idempotency_key)}")
        why = self._place.may_not_act_for(ctx.saga_id)
        if why:
            ledger.wrong.append(f"{step} of {ctx.saga_id} began on {self._place.name}, {why}")
        if key is None or why or not self._place.owns(ctx.saga_id):
            return
        entry = ledger.entry(key, step, ctx.saga_id)
        if entry.state == "void":
            ledger.wrong.append(f"{step} {key} was called again after it was taken back")
        if entry.denied:
            ledger.asked_again.append(key)


def _short(key: str) -> str:
    saga, _, rest = key.partition("/")
    return f"{saga[-2:]}/{rest}"
