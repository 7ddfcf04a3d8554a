"""Where the functions of simulated steps are called: the only place where the script is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from orchestrator.domain.steps import Step
from orchestrator.errors import Permanent, Retryable
from orchestrator.ports import Append
from orchestrator.testing.arrivals import Arrivals, Chooser
from orchestrator.testing.choices import Topic
from orchestrator.testing.journal import Call, Journal
from orchestrator.testing.mortality import Life
from orchestrator.testing.script import Script, Stub, Trouble
from orchestrator.testing.snapshot import Snapshot, difference
from orchestrator.testing.virtual_time import VirtualLoop

LOST = "the answer was lost on its way back"


class Act(Protocol):
    async def __call__(self, stub: Stub | None) -> Any: ...


class Commits(Protocol):
    """A transaction that says so when it has committed."""

    commits: Callable[[], None] | None


@dataclass(slots=True)
class Stage:
    """One world's steps: their script, their journal, and who decides what happens to them."""

    loop: VirtualLoop
    script: Script
    journal: Journal
    chooser: Chooser
    arrivals: Arrivals
    resources: dict[type, Any] = field(default_factory=dict)
    exploring: frozenset[Topic] = frozenset()
    pivoted: Callable[[str], bool] = lambda saga_id: False
    watch: Callable[[], Snapshot] | None = None
    deaths: list[str] = field(default_factory=list)
    steps: dict[str, Step[Any, Any]] = field(default_factory=dict)
    unheard: set[str] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)
    pivots: set[str] = field(default_factory=set)
    parents: dict[str, str] = field(default_factory=dict)
    transactions: WeakKeyDictionary[Any, Commits] = field(default_factory=WeakKeyDictionary)
    _acting: list[Call] = field(default_factory=list)

    async def perform(self, life: Life, call: Call, step: Step[Any, Any], act: Act) -> Any:
        """Call what *act* says, with all that the script and the chooser have in mind for it."""
        self.journal.calls.append(call)
        self.steps[step.name] = step
        self.tell(f"{call.what} begins ({call.key}, attempt {call.attempt})")
        for hook in self.script.begun.pop(call.step, ()) if call.kind == "step" else ():
            hook()
        if not self.exploring:
            await self.arrivals.pass_one_by_one(life, call.what)
        await self.moment(life, f"before {call.what} was called", call, "before")
        trouble = self.script.next_trouble(call) or self._chosen_trouble(call, step)
        try:
            output = await self._act(life, call, step, act, trouble)
            await self.arrivals.pass_one_by_one(life, call.what)
        except BaseException as error:
            call.outcome = f"{type(error).__name__}: {error}".removesuffix(": ")
            self.tell(f"{call.what} raises {call.outcome} ({call.key})")
            raise
        call.outcome = "done"
        self.tell(f"{call.what} answers ({call.key})")
        return output

    async def _act(
        self, life: Life, call: Call, step: Step[Any, Any], act: Act, trouble: Trouble | None
    ) -> Any:
        if trouble is not None and (trouble.error is not None or not trouble.happened):
            await self.arrivals.pass_one_by_one(life, call.what)
            if trouble.error is not None:
                raise trouble.raised()
            await self._lose(step)
        stub = self.script.stand_in(step, call.kind, self.journal)
        with self._watching(call):
            output = await act(stub)
        call.output = output
        if (transaction := self._transaction()) is not None:
            # It has happened when, and only if, its transaction commits.
            transaction.commits = partial(self.journal.apply, call)
        else:
            self.journal.apply(call)
        await self.moment(life, f"when {call.what} was done, and nobody knew", call, "middle")
        if trouble is not None:
            await self.arrivals.pass_one_by_one(life, call.what)
            await self._lose(step)
        return output

    @contextmanager
    def _watching(self, call: Call) -> Iterator[None]:
        """Note what *call* does to the resources, unless something else is done meanwhile."""
        if self.watch is None:
            yield
            return
        before, self._acting = self.watch(), [*self._acting, call]
        beside = self._acting[:-1]
        try:
            yield
        except BaseException as error:
            call.raised = error
            raise
        finally:
            self._acting.remove(call)
            call.alone = not beside and not self._acting and call.alone
            for other in self._acting:
                other.alone = False
            call.changed = difference(before, self.watch())

    def _transaction(self) -> Commits | None:
        return self.transactions.get(asyncio.current_task())

    def _chosen_trouble(self, call: Call, step: Step[Any, Any]) -> Trouble | None:
        if call.kind != "step" or "trouble" not in self.exploring:
            return None
        if call.key in self.unheard:
            return Trouble(1)
        forward = self.pivoted(call.saga_id)
        refused = f"{call.what} was refused"
        ways = ["all went well", refused]
        if step.transaction is None:
            ways.append(f"{call.what} was done, but its answer was lost")
            if not forward:
                ways.append(f"{call.what} was done, but its answer was lost at every attempt")
        way = self.chooser.pick("trouble", ways)
        if way == 0:
            return None
        if way == 1:
            return Trouble(1, Retryable("busy") if forward else Permanent(refused))
        if way == 3:
            self.unheard.add(call.key)
        return Trouble(1)

    def note(self, batch: Sequence[Append], written: Mapping[str, int]) -> None:
        """Hear of what became durable: which instances have no way back any more."""
        for append in batch:
            if append.saga_id in written:
                if append.pivoted:
                    self.pivots.add(append.saga_id)
                for row in append.events:
                    self.tell(f"{row.saga_id} {row.version} {row.type} {row.node} {row.data}")

    def tell(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.loop.now():%d %H:%M:%S.%f} {what}")

    async def moment(self, life: Life, what: str, call: Call | None = None, name: str = "") -> None:
        """A moment at which the process may die; a dead one stops here in any case."""
        if life.dead:
            await life.rest()
        planned = call is not None and self.script.crashes_at(call, name)
        if planned or ("death" in self.exploring and self.chooser.pick("death", ["lives", what])):
            self.deaths.append(what)
            self.tell(f"process {life.number} dies {what}")
            await life.die()

    async def _lose(self, step: Step[Any, Any]) -> None:
        """End in doubt: by a lost connection, or by the time-out where that would not do."""
        if step.doubt_on is None or issubclass(ConnectionResetError, step.doubt_on):
            raise ConnectionResetError(LOST)
        await self.loop.create_future()
