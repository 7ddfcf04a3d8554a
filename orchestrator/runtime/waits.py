"""What an instance waits for, in sentences, one reason for each wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.domain.awaiting import Awaited, Want
from orchestrator.domain.events import Failure, Status
from orchestrator.runtime.seen import LISTED, Cause, Reason, Seen

_ORDER = (*Cause,)
_CAUSES: Mapping[Want, Cause] = {
    Want.CHILD: Cause.CHILD,
    Want.CHILD_UNDO: Cause.CHILD,
    **{want: Cause(want.value) for want in Want if want not in (Want.CHILD, Want.CHILD_UNDO)},
}


def reasons_to_wait(seen: Seen) -> list[Reason]:
    """One for each thing that is waited for, the weightiest kind first."""
    found = [_wait(seen, one) for one in _few_children(seen)]
    return sorted(found, key=lambda reason: _ORDER.index(reason.cause))


def _few_children(seen: Seen) -> Iterator[Awaited]:
    """What is waited for, those children first that are stuck, and of them not thousands."""
    children = [one for one in seen.waits if _CAUSES[one.want] is Cause.CHILD]
    children.sort(key=lambda one: (not _is_stuck(seen, one), one.name))
    # The first of them was asked for its own reason.
    yield from children[:LISTED]
    yield from (one for one in seen.waits if _CAUSES[one.want] is not Cause.CHILD)


def _is_stuck(seen: Seen, one: Awaited) -> bool:
    kid = seen.kids.get(one.name)
    return kid is not None and kid.instance.status is Status.STUCK


def _wait(seen: Seen, one: Awaited) -> Reason:
    cause = _CAUSES[one.want]
    if cause is Cause.CHILD:
        return _child(seen, one)
    do: tuple[str, ...] = ()
    if one.want is Want.SIGNAL:
        do = (f"saga signal {seen.saga_id} {one.name} JSON",)
    return Reason(cause, _words(seen, one), one.since, one.until, do)


def _words(seen: Seen, one: Awaited) -> str:
    match one.want:
        case Want.SIGNAL:
            return f"it waits for the signal {one.name}"
        case Want.REPLY:
            return f"it waits for the participant's reply about {one.name} ({one.by})"
        case Want.HOLD:
            return f"{one.name} has to wait for the {one.by}"
        case Want.RETRY:
            failed = _failure(seen, one.path)
            return f"{one.name} failed and is tried again (attempt {one.attempt}){failed}"
        case Want.UNDO_RETRY:
            failed = _failure(seen, one.path)
            return (
                f"the undo of {one.name} failed and is tried again (attempt {one.attempt}){failed}"
            )
        case Want.PROBE:
            return f"the probe of {one.name} failed and is asked again (attempt {one.attempt})"
        case Want.TIMER:
            return f"it sleeps at {one.path}"
        case Want.PAUSE:
            return f"the loop at {one.path} pauses before its next iteration"
        case Want.STEP:
            return f"{one.name} runs (attempt {one.attempt})"
        case Want.TIMEOUT:
            return f"the time-out at {one.path} ends that wait"
        case _:
            return "its deadline ends that wait"


def _child(seen: Seen, one: Awaited) -> Reason:
    kid = seen.kids.get(one.name)
    what = "its child" if one.want is Want.CHILD else "that this child is undone:"
    if kid is None:
        return Reason(Cause.CHILD, f"it waits for {what} {one.name}, not stored yet", one.since)
    instance, own = kid.instance, kid.reason
    cause = Cause.CHILD_STUCK if instance.status is Status.STUCK else Cause.CHILD
    text = f"it waits for {what} {one.name} ({instance.name}, {instance.status})"
    if own is None:
        return Reason(cause, text, one.since, do=(f"saga why {one.name}",))
    return Reason(cause, f"{text}: {own.text}", one.since, own.until, own.do)


def _failure(seen: Seen, path: str) -> str:
    """What failed last there, in a few words."""
    for _, event in reversed(seen.history):
        failure = getattr(event, "failure", None)
        node = str(getattr(event, "node", ""))
        if isinstance(failure, Failure) and (node == path or node.startswith(f"{path}/")):
            return f": {failure.type}: {failure.message}"
    return ""
