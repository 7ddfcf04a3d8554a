"""What the state of a place looks like in a drawing: its mark, and a few words beside its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.node_state import NodeState, Settled
from orchestrator.domain.planning import NOT_BEGUN
from orchestrator.domain.state import SagaState

DONE, UNDONE, FAILED, DOUBT, RUNNING, WAITING, STOPPED = "✓", "↩", "✗", "?", "…", "·", "⊘"
TROUBLE = (DOUBT, FAILED)
"""What is listed where not all can be, the first first."""

_FORWARD = frozenset({Status.PENDING, Status.RUNNING, Status.WAITING})
_TALLIES = ((FAILED, "failed"), (DOUBT, "in doubt"), (RUNNING, "running"), (UNDONE, "undone"))


def standing(state: SagaState | None) -> Status:
    """Which way an instance goes; one that is stuck stands where it stood before."""
    if state is None:
        return Status.PENDING
    return state.before_stuck if state.status is Status.STUCK else state.status


def mark_of(known: NodeState, now: Status) -> str:
    """How far a place where something happens has come."""
    over = now in ENDED
    if known.undone:
        return UNDONE
    if known.undo_attempts:
        return FAILED if over or known.undo_due_at is None else RUNNING
    if known.settled is Settled.SUCCEEDED:
        return UNDONE if _taken_back(known, now) else DONE
    if known.doubtful:
        return DOUBT
    if known.settled is Settled.FAILED:
        return STOPPED if known.failure == NOT_BEGUN.failure else FAILED
    return _mark_of_begun(known, now, over=over)


def _mark_of_begun(known: NodeState, now: Status, *, over: bool) -> str:
    if known.announced > known.attempts:
        return DOUBT if over else RUNNING
    if known.fellow is not None:
        return STOPPED if over else RUNNING
    waits = known.waiting or known.asked is not None
    if waits or known.calls or known.due_at is not None or known.held_until is not None:
        return RUNNING if now in _FORWARD else STOPPED
    if known.attempts:  # it failed and was to run again
        return RUNNING if now in _FORWARD else FAILED
    return WAITING


def overall(known: NodeState, now: Status) -> str:
    """The mark of a part as a whole, from all that is known below it."""
    leaf = known.step or known.settled is not None or not known.children
    own = mark_of(known, now) if leaf else WAITING
    marks = {own, *(overall(part, now) for part in current(known).values())}
    for mark in (DOUBT, RUNNING):
        if mark in marks:
            return mark
    if UNDONE in marks and (own in (DONE, UNDONE) or FAILED not in marks):
        if not known.to_undo:
            return UNDONE
        return STOPPED if now in ENDED else RUNNING
    return next((m for m in (own, FAILED, DONE, STOPPED) if m in marks and m != WAITING), WAITING)


def item_mark(known: NodeState, item: int, now: Status) -> str:
    """How far item number *item* of a list has come."""
    fan_out = known.fan_out
    below = known.child(str(item))
    mark = overall(below, now)
    if fan_out is None or mark == DOUBT:
        return mark
    if fan_out.outputs[item] is not None:
        return DONE if mark == WAITING else mark
    if (failure := fan_out.failures.get(item)) is not None:
        return mark if failure == NOT_BEGUN.failure else FAILED
    return RUNNING if item in fan_out.live and now in _FORWARD else mark


def current(known: NodeState) -> dict[str, NodeState]:
    """What is below by path segment: of a scope that ran again the attempt that began last."""
    newest: dict[str, str] = {}
    for segment in known.children:
        newest[segment.partition("@")[0]] = segment
    if known.taken:  # what came before failed, and something else was tried
        newest = {index: s for index, s in newest.items() if index == str(known.taken)}
    return {segment: known.children[segment] for segment in newest.values()}


def leaves(known: NodeState, path: str) -> Iterator[tuple[str, NodeState]]:
    """The steps and child sagas at and below a place, as far as they were begun."""
    if known.step:
        yield path, known
    for segment, part in current(known).items():
        yield from leaves(part, f"{path}/{segment}")


def words_of(known: NodeState, now: Status) -> list[str]:
    """What is worth reading of the state of a place."""
    words = [known.route] if known.route else []
    if known.iteration > 1:
        words.append(f"iteration {known.iteration}")
    if known.retries:
        words.append(f"attempt {known.retries + 1}")
    if known.taken:
        words.append(f"alternative {known.taken}")
    if known.deadline is not None and known.halted is not None:
        words.append("took too long")
    if known.asked is not None and now not in ENDED:
        words.append("waits for a reply")
    if known.held_until is not None and now in _FORWARD:
        words.append("held back")
    if requests := sum(bool(call.request) for call in known.calls):
        words.append(f"{requests} request{'s' if requests > 1 else ''}")
    if known.fellow is not None:
        words.append(f"{known.fellow.child_id} {known.fellow.status}".rstrip())
    if known.undo_attempts and not known.undone:
        words.append(f"undo failed {times(known.undo_attempts)}")
    return words


def tally(known: NodeState, marks: Iterable[str]) -> str:
    """How many items of a list are done, and how the others fare."""
    fan_out = known.fan_out
    if fan_out is None:
        return ""
    counts = Counter(marks)
    done = sum(output is not None for output in fan_out.outputs)
    others = [f"{counts[mark]:,} {word}" for mark, word in _TALLIES if counts[mark]]
    return ", ".join([f"{done:,} of {len(fan_out.items):,} done", *others])


def times(count: int) -> str:
    """So many times, in words."""
    return "once" if count == 1 else f"{count:,} times"


def _taken_back(known: NodeState, now: Status) -> bool:
    """Whether all that a part completed below itself was undone."""
    if not known.children or known.to_undo:
        return False
    return any(overall(part, now) == UNDONE for part in known.children.values())
