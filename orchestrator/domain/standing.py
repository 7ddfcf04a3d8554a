"""Where an instance stands after an event, told without its whole history.

The answer is that of `fold`, for readers who see one event at a time.
"""

from __future__ import annotations

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Status
from orchestrator.domain.transitions import TRANSITIONS

TURNS: tuple[type[Event], ...] = (ev.SagaStarted, ev.CompensationStarted, ev.UndoRequested)
"""What sets the direction. A repair leads back to where the last of these had led."""

REPAIRS: tuple[type[Event], ...] = (
    ev.SagaResumed, ev.StepRetried, ev.CompensationSkipped, ev.StepResolved,
)  # fmt: skip
"""After these one has to know the last turn as well."""

MOVES = frozenset(
    kind for status, moves in TRANSITIONS.items() for kind, to in moves.items() if to is not status
) | {ev.SagaStuck}
"""Events after which the status is, or may be, another. Stuck again is stuck for another reason."""


def standing(kind: type[Event], turn: type[Event] | None = None) -> Status | None:
    """The status after an event of this *kind*; None when it leaves the status as it was.

    *turn* is the kind of the last of `TURNS` before it; only `REPAIRS` ask for it.
    """
    if kind not in MOVES:
        return None
    if kind in REPAIRS:
        return Status.PENDING if turn is None else standing(turn)
    return next(moves[kind] for moves in TRANSITIONS.values() if kind in moves)
