"""What must be true at the end of every run, wherever its process died."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.commands import Failed
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.outcomes import outcome_of
from orchestrator.domain.steps import Step
from orchestrator.errors import HistoryError
from orchestrator.ports import Filter, Instance
from orchestrator.runtime.service import HistoryEntry, Orchestrator
from orchestrator.testing.journal import Call, Journal
from orchestrator.testing.tables import indented


@dataclass(frozen=True, slots=True)
class Broken:
    """A law that a run broke, what was seen of it, and what may be done about it."""

    problem: str
    seen: tuple[str, ...] = ()
    mend: str = ""

    def __str__(self) -> str:
        parts = [self.problem, *(indented(line) for line in self.seen)]
        return "\n".join([*parts, *([self.mend] if self.mend else [])])


@dataclass(frozen=True, slots=True)
class Told:
    """One instance with its history."""

    row: Instance
    events: tuple[HistoryEntry, ...]

    @property
    def standing(self) -> dict[str, str]:
        """What counts in the end: the name of the step by each path that succeeded and stands."""
        found: dict[str, str] = {}
        for entry in self.events:
            match entry.event:
                case ev.StepSucceeded(node=node, step=step):
                    found[node] = step
                case ev.ProbeAnswered(node=node, step=step, answer="happened"):
                    found[node] = step
                case ev.StepCompensated(node=node):
                    found.pop(node, None)
                case _:
                    pass
        return found


async def instances(service: Orchestrator) -> list[Told]:
    """All instances, parents before their children."""
    rows = await service.search(Filter(limit=1_000_000))
    return [
        Told(row, tuple([entry async for entry in service.history(row.saga_id)]))
        for row in sorted(rows, key=lambda row: (row.parent is not None, row.saga_id))
    ]


async def broken_laws(
    service: Orchestrator, journal: Journal, steps: dict[str, Step[Any, Any]]
) -> Broken | None:
    """The first law that is broken; None when all hold."""
    told = await instances(service)
    for one in told:
        if (found := _ended(one) or await _folds(service, one)) is not None:
            return found
    for problem in (*_repeats(journal), *_lies(journal, steps)):
        return problem
    for one in told:
        for problem in _balance(one, journal, steps):
            return problem
    return None


def _ended(told: Told) -> Broken | None:
    """Either fully done or fully undone."""
    row = told.row
    if row.status in (Status.COMPLETED, Status.COMPENSATED):
        return None
    last = told.events[-1].event if told.events else None
    name = f"saga {row.name}"
    if isinstance(last, ev.SagaStuck):
        return Broken(f"{name} is stuck, neither done nor undone", (last.reason,), _mend(last))
    if row.status in ENDED:
        return Broken(f"{name} was {row.status}, neither done nor undone")
    waits = [e.event.signal for e in told.events if isinstance(e.event, ev.WaitStarted)]
    mend = f"send it what it waits for: signals=[({waits[-1]}, payload)]" if waits else ""
    return Broken(f"{name} is {row.status} for ever: nothing is left that could happen", (), mend)


def _mend(stuck: ev.SagaStuck) -> str:
    if "compensation_on_doubt" in stuck.reason:
        return (
            f"a crash or a lost answer leaves {stuck.step} in doubt when the saga turns round: "
            f"declare @{stuck.step}.compensation_on_doubt, or @{stuck.step}.probe"
        )
    return ""


async def _folds(service: Orchestrator, told: Told) -> Broken | None:
    """The history alone says what the row says, and its chain is whole."""
    try:
        await service.verify(told.row.saga_id)
        replay = await service.replay(told.row.saga_id)
    except HistoryError as error:
        return Broken(f"the history of saga {told.row.name} is broken", (str(error),))
    if replay.agrees:
        return None
    seen = f"folded: {replay.folded} at {replay.events}, stored: {replay.stored} at {told.row.head}"
    return Broken(f"the history of saga {told.row.name} says something else than its row", (seen,))


def _repeats(journal: Journal) -> Iterator[Broken]:
    """What is called again under the same key changes nothing any more."""
    for call in journal.repeats():
        if call.alone and call.changed:
            yield Broken(
                f"{call.what} is not idempotent: called again under the same key, it took effect again",
                call.changed,
                "let the service tell repeats by ctx.idempotency_key (in an undo: by done.key); "
                'what only counts calls is left out by ignore=("its name",)',
            )


def _lies(journal: Journal, steps: dict[str, Step[Any, Any]]) -> Iterator[Broken]:
    """A step that says that nothing happened has changed nothing."""
    for call in journal.calls:
        step = steps.get(call.step)
        if call.raised is None or call.kind != "step" or not (call.changed and call.alone):
            continue
        if step is not None and step.transaction is None and _is_definite(call.raised, step):
            yield Broken(
                f"{call.what} raised {type(call.raised).__name__}, which says that nothing "
                "happened, but something did, and nothing will take it back",
                call.changed,
                "do all or nothing in one step; raise TimeoutError or ConnectionError where it is "
                'not known; what only keeps count is left out by ignore=("its name",)',
            )


def _is_definite(error: BaseException, step: Step[Any, Any]) -> bool:
    return isinstance(error, Exception) and isinstance(outcome_of(error, step), Failed)


def _balance(told: Told, journal: Journal, steps: dict[str, Step[Any, Any]]) -> Iterator[Broken]:
    """What stands was applied and not taken back; what does not stand was taken back."""
    saga_id, standing = told.row.saga_id, told.standing
    keys = {f"{saga_id}/{node}" for node in standing}
    mine = [call for call in journal.done if call.saga_id == saga_id]
    for call in journal.first("step"):
        if call.saga_id == saga_id and call.key not in keys:
            yield from _taken_back(call, mine, steps[call.step])
    undone = {c.forward_key for c in mine if c.kind == "undo"}
    done = {c.key for c in mine if c.kind == "step"}
    for node, step in standing.items():
        key = f"{saga_id}/{node}"
        if key in undone:
            yield Broken(f"{step} counts as done, but it was undone")
        if key not in done and step in steps:
            yield Broken(f"{step} counts as done, but it never came to its end")


def _taken_back(call: Call, calls: list[Call], step: Step[Any, Any]) -> Iterator[Broken]:
    again = [c for c in calls if c.kind == "step" and c.key == call.key]
    undos = [c for c in calls if c.kind == "undo" and c.forward_key == call.key]
    if step.undo_of_completed is None:
        if call.changed and not step.no_undo_reason:
            yield Broken(
                f"the saga went back, but nothing takes back what {call.step} did",
                call.changed,
                f'declare @{call.step}.compensation, or {call.step}.without_undo("why not")',
            )
    elif not undos:
        yield Broken(f"{call.step} was done and never undone, though the saga went back")
    elif calls.index(again[-1]) > calls.index(undos[-1]):
        yield Broken(f"{call.step} was done once more after it had been undone")
    elif call.changed and call.alone and undos[0].alone and not undos[0].changed:
        yield Broken(
            f"the undo of {call.step} does nothing: the step changed what follows, the undo nothing",
            call.changed,
            "an undo finds what to take back by done.key, the ctx.idempotency_key of its step",
        )
