"""Where an instance may stand when nothing is left to happen: done, or undone."""

from __future__ import annotations

from orchestrator.domain import events as ev
from orchestrator.domain.events import ENDED, Status
from orchestrator.testing.findings import Broken, Told
from orchestrator.testing.journal import Journal


def reused(told: Told) -> Broken | None:
    """No two children of one saga share a key: the world was empty when it began."""
    for entry in told.events:
        match entry.event:
            case ev.ChildEnded(status="refused", failure=failure) if (
                failure is not None and failure.type == "KeyConflictError"
            ):
                return Broken(
                    f"a child of saga {told.row.name} could not start, because its key is taken "
                    "by another instance that this run began",
                    (f"{entry.event.node}: {failure.message}",),
                    "make the key from what tells its items apart: child(key=lambda item: ...); "
                    "without a key each child is a new instance",
                )
            case _:
                pass
    return None


def ended(told: Told, journal: Journal) -> Broken | None:
    """Either fully done or fully undone."""
    row = told.row
    if row.status in (Status.COMPLETED, Status.COMPENSATED):
        return None
    last = told.events[-1].event if told.events else None
    name = f"saga {row.name}"
    if isinstance(last, ev.SagaStuck):
        return Broken(
            f"{name} is stuck, neither done nor undone", (last.reason,), _mend(last, told, journal)
        )
    if row.status in ENDED:
        return Broken(f"{name} was {row.status}, neither done nor undone")
    if vain := journal.in_vain(row.saga_id):
        done = any(
            isinstance(e.event, ev.StepSucceeded) and e.node == vain[0].node for e in told.events
        )
        return Broken(
            f"{vain[0].what} fails whenever it is called: after 24 hours saga {row.name} is stuck",
            (vain[-1].outcome,),
            "" if done else _WITHOUT_OUTPUT,
        )
    waits = [e.event.signal for e in told.events if isinstance(e.event, ev.WaitStarted)]
    mend = f"send it what it waits for: signals=[({waits[-1]}, payload)]" if waits else ""
    return Broken(f"{name} is {row.status} for ever: nothing is left that could happen", (), mend)


_WITHOUT_OUTPUT = (
    "the answer of the step was lost, so its undo gets output None: "
    "find what to take back by its key (tried.key)"
)


def _mend(stuck: ev.SagaStuck, told: Told, journal: Journal) -> str:
    if "compensation_on_doubt" in stuck.reason:
        return (
            f"a crash or a lost answer leaves {stuck.step} in doubt when the saga turns round: "
            f"declare @{stuck.step}.compensation_on_doubt, or @{stuck.step}.probe"
        )
    succeeded = any(
        isinstance(entry.event, ev.StepSucceeded) and entry.event.node == stuck.node
        for entry in told.events
    )
    undos = [call for call in journal.of(stuck.step, "undo") if call.saga_id == told.row.saga_id]
    if undos and not succeeded:
        return _WITHOUT_OUTPUT
    return ""
