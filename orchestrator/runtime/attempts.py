"""One command under way: its limits of time, its heartbeats, and the one report that it makes."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.domain.commands import (
    Command,
    Failed,
    InDoubt,
    Outcome,
    Postponed,
    RunCompensation,
    RunStep,
    Succeeded,
)
from orchestrator.domain.events import Failure
from orchestrator.domain.outcomes import failure_of, outcome_of
from orchestrator.domain.planning import CUT_OFF
from orchestrator.ports import Append
from orchestrator.runtime import machine
from orchestrator.runtime.guards import Settle

_EXACT_BELOW = 2.0
"""Limits below this many seconds have a timer of their own."""


class Prepared:
    """A transactional step that has run: it is done when its transaction takes the append."""

    def __init__(self, outcome: Succeeded) -> None:
        loop = asyncio.get_running_loop()
        self.outcome = outcome
        self.append: asyncio.Future[Append] = loop.create_future()
        self.written: asyncio.Future[int] = loop.create_future()

    async def commit(self, append: Append) -> int:
        """Write *append* in the step's own transaction; errors as those of the recorder."""
        self.append.set_result(append)
        return await self.written


Report = Callable[[Command, "Outcome | Prepared"], None]


class Keeper(Protocol):
    """What holds attempts: it looks at their time, and keeps what outlives them."""

    abandoned: set[asyncio.Task[Outcome]]

    def watch(self, attempt: Attempt, limit: float) -> None: ...

    def forget(self, attempt: Attempt) -> None: ...

    def postponed(self, by: str) -> Postponed: ...

    def conclude(self, taken: list[Settle], outcome: Outcome) -> None: ...


class Attempt:
    """One command under way. It reports once; what outlives its limit is abandoned, not awaited."""

    __slots__ = (
        "_beat_at",
        "_ends_at",
        "_keeper",
        "_limit",
        "_report",
        "_timer",
        "announced",
        "command",
        "costs",
        "silence",
        "since",
        "taken",
        "task",
    )

    def __init__(self, keeper: Keeper, command: Command, report: Report) -> None:
        self._keeper = keeper
        self._report: Report | None = report
        self._timer: asyncio.TimerHandle | None = None
        self._limit = 0.0
        self._ends_at = math.inf
        # Who has not begun cannot be silent: the first beat is that of its call.
        self._beat_at = math.inf
        self.silence = math.inf
        self.command = command
        self.task: asyncio.Task[Outcome] | None = None
        self.since = 0.0
        self.announced = False
        self.costs: list[float] = []
        self.taken: list[Settle] = []

    def run(self, call: Coroutine[Any, Any, Outcome], limit: float | None, name: str) -> None:
        """Run *call* as a task of its own for at most *limit* seconds."""
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        # A fresh context: what one step sets must not be seen by the next.
        self.task = loop.create_task(call, name=name, context=contextvars.Context())
        self.task.add_done_callback(self._done)
        if limit is not None:
            self._limit, self._ends_at = limit, self.since + limit
        self._watch(self._left())

    def beat(self) -> None:
        """It is alive. Called from any thread."""
        self._beat_at = machine.monotonic()

    def begin(self) -> None:
        """The call is made now: its outcome is in doubt until it is known."""
        if self._report is None:
            # Its time was over while it waited; whoever swallowed that must not call it now.
            raise asyncio.CancelledError
        self.beat()

    def rest(self) -> None:
        """The call is over, and known: those that are told of it take the time that they need."""
        self._beat_at = self._ends_at = math.inf

    def settle(self, outcome: Outcome) -> None:
        """Report *outcome*, unless something was reported before."""
        report, self._report = self._report, None
        if isinstance(outcome, InDoubt) and transaction_of(self.command) is not None:
            # What was not committed has not happened.
            outcome = Failed(outcome.failure, outcome.cost)
        if report is not None:
            report(self.command, outcome)

    def prepare(self, prepared: Prepared) -> bool:
        """Report what is to be committed; its time is the engine's then. False: nobody waits."""
        self._unwatch()
        report, self._report = self._report, None
        if report is not None:
            report(self.command, prepared)
        return report is not None

    def drop(self) -> None:
        """Stop caring: nothing is reported any more, and what runs is told to end."""
        self._report = None
        self._let_go()
        self._leave()

    def expire(self) -> None:
        """Its time is over, unless it beat meanwhile: whether it happened is not known."""
        left = self._left()
        if left > 0:
            self._watch(left)
            return
        outcome = self._overdue()
        self.settle(outcome)
        self._keeper.conclude(self.taken, outcome)
        self._leave()

    def _overdue(self) -> Outcome:
        if self._beat_at == math.inf and isinstance(self.command, RunStep):
            # What has not been called has not happened, and is no fault of the step.
            return self._keeper.postponed("turn to be called")
        silent = self._ends_at > asyncio.get_running_loop().time()
        late = (
            f"no heartbeat for {self.silence:g} s"
            if silent
            else f"no answer within {self._limit:g} s"
        )
        return InDoubt(failure_of(TimeoutError(late)), sum(self.costs))

    def cut_off(self) -> None:
        """Nobody waits for it any more: whether it happened is not known."""
        if self._report is None:
            return
        self.settle(InDoubt(CUT_OFF, sum(self.costs)))
        self._let_go()
        self._leave()

    def _let_go(self) -> None:
        """Tell the guards that it was cut off, which says nothing about what was called."""
        cut_off = Failed(replace(CUT_OFF, permanent=True), sum(self.costs))
        self._keeper.conclude(self.taken, cut_off)

    def _left(self) -> float:
        """Seconds until its time is over if it never beats again; infinite without a limit."""
        silent = machine.monotonic() - self._beat_at
        return min(self._ends_at - asyncio.get_running_loop().time(), self.silence - silent)

    def _watch(self, left: float) -> None:
        left = min(left, self.silence)
        if left < _EXACT_BELOW:
            self._timer = asyncio.get_running_loop().call_later(left, self.expire)
        elif left < math.inf:
            self._keeper.watch(self, left)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._keeper.forget(self)

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        self._unwatch()
        if task.cancelled():
            self.settle(InDoubt(Failure("CancelledError", "cut off from outside")))
        elif (error := task.exception()) is not None:
            self.settle(outcome_of(error))
        else:
            self.settle(task.result())

    def _leave(self) -> None:
        """Cancel without waiting: a step may swallow the cancellation and never end."""
        self._unwatch()
        task = self.task
        if task is None or task.done():
            return
        task.cancel()
        abandoned = self._keeper.abandoned
        abandoned.add(task)
        task.add_done_callback(abandoned.discard)


def transaction_of(command: Command) -> Any:
    """What kind of transaction the command's function asks for; None for none."""
    match command:
        case RunStep(step=step):
            return step.transaction
        case RunCompensation(undo=undo):
            return undo.transaction
        case _:
            return None
