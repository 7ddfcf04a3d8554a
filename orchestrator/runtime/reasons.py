"""Why an instance does not move, in sentences: what was seen of it goes in, reasons come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.domain import events as ev
from orchestrator.domain.awaiting import Awaited, Recorded, Want
from orchestrator.domain.events import ENDED, Failure, Status
from orchestrator.domain.state import SagaState
from orchestrator.ports import EventRow, Instance, Member, Message, RelayStanding
from orchestrator.runtime.suspects import SUSPECT

LISTED = 5
"""Names in a sentence; the others are counted."""

_SOON = timedelta(seconds=5)
"""How long an instance is due before it is said that its workers may be full."""


class Cause(StrEnum):
    """What kind of reason it is."""

    ENDED = "ended"
    STUCK = "stuck"
    UNREADABLE = "unreadable"
    OWNER_LOST = "owner lost"
    WORKING = "working"
    NO_WORKER = "no worker"
    NOT_SERVED = "not served"
    DUE = "due"
    IN_VAIN = "claimed in vain"
    CHILD_STUCK = "child stuck"
    CHILD = "child"
    SIGNAL = "signal"
    REPLY = "reply"
    HOLD = "hold"
    RETRY = "retry"
    UNDO_RETRY = "undo retry"
    PROBE = "probe"
    TIMER = "timer"
    PAUSE = "pause"
    STEP = "step"
    TIMEOUT = "time-out"
    DEADLINE = "deadline"
    TIME = "time"
    UNREAD = "unread"
    UNPUBLISHED = "unpublished"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: a sentence, since when, until when at most, and the commands that would help."""

    cause: Cause
    text: str
    since: datetime | None = None
    until: datetime | None = None
    do: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kid:
    """A child that is waited for, and its own first reason where that was asked."""

    instance: Instance
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was read about one instance. `state` is None when its history cannot be read."""

    instance: Instance
    now: datetime
    claim_limit: int
    state: SagaState | None = None
    history: Sequence[Recorded] = ()
    rows: Sequence[EventRow] = ()
    unreadable: str = ""
    waits: Sequence[Awaited] = ()
    kids: Mapping[str, Kid] = field(default_factory=dict)
    members: Sequence[Member] = ()
    unread: Sequence[Message] = ()
    relays: Sequence[RelayStanding] = ()

    @property
    def saga_id(self) -> str:
        return self.instance.saga_id

    @property
    def saga(self) -> str:
        return f"{self.instance.name} version {self.instance.version}"

    @property
    def due(self) -> bool:
        due_at = self.instance.due_at
        return self.instance.owner is None and due_at is not None and due_at <= self.now


def reasons(seen: Seen) -> tuple[Reason, ...]:
    """Why it does not move, the main reason first; there is always one."""
    status = seen.instance.status
    if status in ENDED:
        found = [_ended(seen)]
    elif status is Status.STUCK:
        found = [_stuck(seen)]
    else:
        found = list(_live(seen))
    if seen.unreadable and status not in ENDED:
        text = f"its history cannot be read by this process: {seen.unreadable}"
        found.insert(1, Reason(Cause.UNREADABLE, text))
    found += [*_unread(seen), *_unpublished(seen)]
    return tuple(found)


# ---------------------------------------------------------------------------- at rest


def _ended(seen: Seen) -> Reason:
    why = seen.state.reason if seen.state is not None else ""
    at = seen.history[-1][0] if seen.history else seen.instance.updated_at
    status = seen.instance.status
    return Reason(Cause.ENDED, f"it has ended, {status}{f': {why}' if why else ''}", at)


def _stuck(seen: Seen) -> Reason:
    state, id_ = seen.state, seen.saga_id
    since = _last(seen.history, ev.SagaStuck)
    if state is None or state.stuck is None:
        text = "it is stuck, a person is needed"
        return Reason(Cause.STUCK, text, since, do=(f"saga history {id_}",))
    stuck = state.stuck
    at = f" at {stuck.step or stuck.node}" if stuck.step or stuck.node else ""
    text = f"it is stuck{at}, a person is needed: {stuck.reason}"
    return Reason(Cause.STUCK, text, since, do=_repairs(id_, state, stuck))


def _repairs(id_: str, state: SagaState, stuck: ev.SagaStuck) -> tuple[str, ...]:
    """What moves an instance on that is stuck there, the likeliest first."""
    end = f"saga terminate {id_} --reason TEXT"
    if not stuck.node:
        return f"saga resume {id_} --reason TEXT", end
    step = stuck.step or stuck.node
    known = state.known(stuck.node)
    if known.undo_failure is not None:
        return f"saga retry {id_} {step}", f"saga skip {id_} {step} --reason TEXT", end
    if known.doubtful:
        found = (f"saga resolve {id_} {step} --{how}" for how in ("happened", "not-happened"))
        return *found, end
    if known.settled is not None:
        return f"saga retry {id_} {step}", end
    return f"saga resume {id_} --reason TEXT", end


# ---------------------------------------------------------------------------- under way


def _live(seen: Seen) -> Iterator[Reason]:
    waits = [_wait(seen, one) for one in _few_children(seen)]
    waits.sort(key=lambda reason: _ORDER.index(reason.cause))
    begun = [reason for reason in waits if reason.cause is Cause.STEP]
    others = [reason for reason in waits if reason.cause is not Cause.STEP]
    vain = list(_in_vain(seen))
    if seen.instance.owner is not None:
        owner = _owner(seen, begun)
        waiting = bool(others) and not begun and owner.cause is Cause.WORKING
        first = [*others, owner] if waiting else [owner, *others]
        yield from (*vain, *first) if owner.cause is Cause.OWNER_LOST else (*first, *vain)
        return
    unserved = list(_unserved(seen))
    if seen.due:
        yield from (*(unserved or [_due(seen)]), *vain, *waits)
        return
    yield from (*vain, *(waits or [_later(seen)]), *unserved)


def _owner(seen: Seen, begun: Sequence[Reason]) -> Reason:
    owner = seen.instance.owner or ""
    member = next((m for m in seen.members if m.worker_id == owner), None)
    if member is None or not member.alive:
        return _owner_lost(seen, owner, member)
    what = "; ".join(reason.text for reason in begun) or _unrecorded(seen)
    since = min((r.since for r in begun if r.since), default=seen.instance.updated_at)
    text = f"worker {member.label} ({owner}) is at work on it: {what}"
    return Reason(Cause.WORKING, text, since, member.lease_until)


def _owner_lost(seen: Seen, owner: str, member: Member | None) -> Reason:
    if member is None:
        gone, since = f"{owner}, which is not on the list of workers any more", None
    elif member.lease_until <= seen.now:
        gone, since = f"{member.label} ({owner}), whose lease ran out", member.lease_until
    else:
        gone, since = f"{member.label} ({owner}), whose connection is gone", None
    free = "the other workers free it within seconds"
    if not any(m.alive for m in seen.members):
        free = "no worker is alive that could take it over"
    return Reason(
        Cause.OWNER_LOST, f"it is held by worker {gone}; {free}", since, do=_start_worker(seen)
    )


def _unrecorded(seen: Seen) -> str:
    state = seen.state
    if state is not None and state.status is Status.COMPENSATING and state.undo_stack:
        last = state.undo_stack[-1]
        return f"it undoes what was done, {state.known(last).step or last} next"
    return "what began is recorded once it takes longer than a moment"


def _due(seen: Seen) -> Reason:
    serving = [m for m in seen.members if m.alive and _serves(m, seen) is not False]
    since = seen.instance.due_at
    text = f"it is due, and waits to be claimed by {_names(m.label for m in serving)}"
    if since is not None and seen.now - since > _SOON:
        text += ", which may be full (SAGA_SLOTS), or kept from the database"
    return Reason(Cause.DUE, text, since, do=_start_worker(seen) if "full" in text else ())


def _unserved(seen: Seen) -> Iterator[Reason]:
    """That nobody could go on with it, if that is so."""
    live = [m for m in seen.members if m.alive]
    since = seen.instance.due_at if seen.due else None
    if not live:
        text = f"no worker is alive that could go on with {seen.saga}"
        yield Reason(Cause.NO_WORKER, text, since, do=_start_worker(seen))
    elif all(_serves(m, seen) is False for m in live):
        served = _names((f"{m.label} ({_served(m)})" for m in live), "; ")
        text = f"no live worker serves {seen.saga}; these live workers serve other sagas: {served}"
        yield Reason(Cause.NOT_SERVED, text, since, do=_start_worker(seen))


def _serves(member: Member, seen: Seen) -> bool | None:
    """None when the worker does not say."""
    if member.definitions is None:
        return None
    return (seen.instance.name, seen.instance.version) in member.definitions


def _served(member: Member) -> str:
    return _names(f"{name} version {version}" for name, version in member.definitions or ())


def _start_worker(seen: Seen) -> tuple[str, ...]:
    return (f"saga worker --sagas MODULE  # one that holds {seen.saga}",)


def _in_vain(seen: Seen) -> Iterator[Reason]:
    """That it was claimed again and again without an event: it may be what ends its workers."""
    claims = seen.instance.claims
    if claims < SUSPECT:
        return
    text = (
        f"it was claimed {claims} times in vain, without one new event; "
        f"at {seen.claim_limit + 1} it is parked as stuck"
    )
    yield Reason(Cause.IN_VAIN, text, seen.instance.updated_at, seen.instance.due_at)


def _later(seen: Seen) -> Reason:
    due_at = seen.instance.due_at
    text = "nothing of its own is under way; " + (
        "a worker looks at it again when its time comes" if due_at else "only a message moves it on"
    )
    return Reason(Cause.TIME, text, seen.instance.updated_at, due_at)


# ---------------------------------------------------------------------------- waits


_CAUSES: Mapping[Want, Cause] = {
    Want.CHILD: Cause.CHILD,
    Want.CHILD_UNDO: Cause.CHILD,
    **{want: Cause(want.value) for want in Want if want not in (Want.CHILD, Want.CHILD_UNDO)},
}
_ORDER = (*Cause,)


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


# ---------------------------------------------------------------------------- beside


def _unread(seen: Seen) -> Iterator[Reason]:
    if seen.unread and seen.instance.status not in ENDED:
        told = _names(f"{m.kind}{_called(m)} from {m.actor}" for m in seen.unread)
        count = len(seen.unread)
        text = f"{count} message{'s are' if count > 1 else ' is'} not read yet: {told}"
        yield Reason(Cause.UNREAD, text, seen.unread[0].sent_at)


def _called(message: Message) -> str:
    name = message.payload.get("name") or message.payload.get("step")
    return f" {name}" if name else ""


def _unpublished(seen: Seen) -> Iterator[Reason]:
    for relay in seen.relays:
        behind = [row for row in seen.rows if row.position > relay.position]
        if not behind:
            continue
        who, do = "its broker may be away", ("saga doctor",)
        if relay.owner is None:
            who, do = "no relay runs", ("saga relay",)
        count = f"{len(behind)} of its events {'are' if len(behind) > 1 else 'is'}"
        text = f"{count} not published yet by relay {relay.relay}; {who}"
        yield Reason(Cause.UNPUBLISHED, text, behind[0].recorded_at, do=do)


def _last(history: Sequence[Recorded], kind: type[ev.Event]) -> datetime | None:
    return next((at for at, event in reversed(history) if isinstance(event, kind)), None)


def _names(names: Iterable[str], between: str = ", ") -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED:,} more" if len(listed) > LISTED else ""
    return between.join(listed[:LISTED]) + more
