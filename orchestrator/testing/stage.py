"""Where the functions of simulated steps are called: the only place where the script is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from orchestrator.domain.commands import InDoubt
from orchestrator.domain.outcomes import outcome_of
from orchestrator.domain.steps import Step
from orchestrator.errors import Permanent, Retryable
from orchestrator.ports import Append, EventRow
from orchestrator.testing.arrivals import Arrivals, Chooser
from orchestrator.testing.choices import Topic
from orchestrator.testing.fakes import copied
from orchestrator.testing.inside import Inside
from orchestrator.testing.journal import Call, Journal
from orchestrator.testing.mortality import Life
from orchestrator.testing.script import Script, Stub, Trouble
from orchestrator.testing.snapshot import Snapshot, moved
from orchestrator.testing.virtual_time import SimulationError, VirtualLoop

LOST = "the answer was lost on its way back"


class HopelessError(SimulationError):
    """An undo fails and fails; to wait for a day until it is stuck would show nothing more."""


class Act(Protocol):
    async def __call__(self, stub: Stub | None, inside: Inside | None) -> Any: ...


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
    heard: Callable[[EventRow], None] = lambda row: None
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
        self.steps[step.name] = step
        if self.exploring:
            await self.arrivals.begin(life, call.what)
        self.journal.calls.append(call)
        self.tell(f"{call.what} begins ({call.key}, attempt {call.attempt})")
        for hook in self.script.begun.pop(call.step, ()) if call.kind == "step" else ():
            hook()
        if not self.exploring:
            await self.arrivals.pass_one_by_one(life, call.what)
        await self.moment(life, f"before {call.what} was called", call, "before")
        trouble = self.trouble_of(call, step)
        try:
            output = await self._act(life, call, step, act, trouble)
            await self.arrivals.pass_one_by_one(life, call.what)
        except BaseException as error:
            call.outcome = f"{type(error).__name__}: {error}".removesuffix(": ")
            self.tell(f"{call.what} raises {call.outcome} ({call.key})")
            if call.kind == "undo" and self.watch and self.journal.in_vain(call.saga_id):
                raise self.loop.refuse(HopelessError(call.what)) from error
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
        try:
            with self._watching(call, step):
                output = await act(stub, self._inside(life, call, step))
        finally:
            if life.dead:  # it died in the middle, and went on for nobody
                await life.rest()
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
    def _watching(self, call: Call, step: Step[Any, Any]) -> Iterator[None]:
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
            call.moved = moved(before, self.watch())
            if call.moved and _broke_off(call, step):
                self.journal.apply(call)

    def _inside(self, life: Life, call: Call, step: Step[Any, Any]) -> Inside | None:
        """How to look into the middle of a call; a transaction has none."""
        if self.watch is None or "death" not in self.exploring or self.deaths:
            return None
        if step.transaction is not None and call.kind == "step":
            return None

        def dies(kept: dict[type, Any]) -> bool:
            if life.dead or not self._chooses_death(life, f"in the middle of {call.what}"):
                return False
            life.dead = True
            self.resources.update(kept)
            return True

        return Inside(self.watch, self._kept, dies)

    def _kept(self) -> dict[type, Any] | None:
        try:
            return copied(self.resources)
        except SimulationError:
            return None

    def _transaction(self) -> Commits | None:
        return self.transactions.get(asyncio.current_task())

    def trouble_of(self, call: Call, step: Step[Any, Any]) -> Trouble | None:
        """What goes wrong with a call: by the script, or by the chooser."""
        return self.script.next_trouble(call) or self._chosen_trouble(call, step)

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
                    self.heard(row)
                    self.tell(f"{row.saga_id} {row.version} {row.type} {row.node} {row.data}")

    def tell(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.loop.now():%d %H:%M:%S.%f} {what}")

    async def moment(self, life: Life, what: str, call: Call | None = None, name: str = "") -> None:
        """A moment at which the process may die; a dead one stops here in any case."""
        if life.dead:
            await life.rest()
        planned = call is not None and self.script.crashes_at(call, name)
        if self._chooses_death(life, what, planned=planned):
            await life.die()

    def _chooses_death(self, life: Life, what: str, *, planned: bool = False) -> bool:
        chosen = planned or (
            "death" in self.exploring and self.chooser.pick("death", ["lives", what]) > 0
        )
        if chosen:
            self.deaths.append(what)
            self.tell(f"process {life.number} dies {what}")
        return chosen

    async def _lose(self, step: Step[Any, Any]) -> None:
        """End in doubt: by a lost connection, or by the time-out where that would not do."""
        if step.doubt_on is None or issubclass(ConnectionResetError, step.doubt_on):
            raise ConnectionResetError(LOST)
        await self.loop.create_future()


def _broke_off(call: Call, step: Step[Any, Any]) -> bool:
    """Whether nobody knows what a call did that got to no end."""
    if call.kind != "step" or step.transaction is not None or call.raised is None:
        return False
    return isinstance(outcome_of(call.raised, step), InDoubt)
