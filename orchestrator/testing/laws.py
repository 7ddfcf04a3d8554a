"""What must be true at the end of every run, wherever its process died."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.domain.commands import Failed
from orchestrator.domain.outcomes import outcome_of
from orchestrator.domain.steps import Step
from orchestrator.errors import HistoryError
from orchestrator.runtime.service import Orchestrator
from orchestrator.testing.ends import ended, reused
from orchestrator.testing.findings import Broken, Told, instances
from orchestrator.testing.journal import Call, Journal
from orchestrator.testing.leftovers import left_behind
from orchestrator.testing.snapshot import Snapshot


async def broken_laws(
    service: Orchestrator,
    journal: Journal,
    steps: dict[str, Step[Any, Any]],
    fakes: Snapshot | None = None,
) -> Broken | None:
    """The first law that is broken; None when all hold. *fakes* is how they stand in the end."""
    told = await instances(service)
    for one in told:
        found = reused(one) or ended(one, journal) or await _folds(service, one)
        if found is not None:
            return found
    for problem in (*_repeats(journal), *_lies(journal, steps)):
        return problem
    for one in told:
        for problem in _balance(one, journal, steps, fakes or {}):
            return problem
    return None


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


def _balance(
    told: Told, journal: Journal, steps: dict[str, Step[Any, Any]], fakes: Snapshot
) -> Iterator[Broken]:
    """What stands was applied and not taken back; what does not stand was taken back."""
    saga_id, standing = told.row.saga_id, told.standing
    keys = {f"{saga_id}/{node}" for node in standing}
    mine = [call for call in journal.done if call.saga_id == saga_id]
    for call in journal.first("step"):
        if call.saga_id == saga_id and call.key not in keys:
            yield from _taken_back(call, mine, steps[call.step], fakes)
    undone = {c.forward_key for c in mine if c.kind == "undo"}
    done = {c.key for c in mine if c.kind == "step"}
    for node, step in standing.items():
        key = f"{saga_id}/{node}"
        if key in undone:
            yield Broken(f"{step} counts as done, but it was undone")
        if key not in done and step in steps:
            yield Broken(
                f"{step} counts as done, but it never took effect",
                mend=f"only its probe can have said so: see what @{step}.probe looks for",
            )


def _taken_back(
    call: Call, calls: list[Call], step: Step[Any, Any], fakes: Snapshot
) -> Iterator[Broken]:
    if not (call.whole or call.alone):
        return  # it broke off beside others, and what it had done by then is not known
    again = [c for c in calls if c.kind == "step" and c.key == call.key]
    undos = [c for c in calls if c.kind == "undo" and c.forward_key == call.key]
    if step.undo_of_completed is None:
        if call.changed and call.alone and not step.no_undo_reason:
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
    elif all(c.alone and c.whole for c in (call, *again, *undos)) and (
        left := left_behind(call, undos, fakes)
    ):
        yield Broken(
            f"the undo of {call.step} forgets a part: what the step did here still stands",
            left,
            "take back all of it; what is to stay (a log, a number that was used up) is left "
            'out by ignore=("its name",), and what cannot be taken back (a mail) belongs into '
            'a step of its own, without_undo("why not")',
        )
