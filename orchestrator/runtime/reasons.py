"""Why an instance does not move, in sentences: what was seen of it goes in, reasons come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from orchestrator.domain import events as ev
from orchestrator.domain.awaiting import Recorded
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.shards import is_shard_for
from orchestrator.domain.state import SagaState
from orchestrator.ports import SUSPECT, Member, Message
from orchestrator.runtime.seen import Cause, Reason, Seen, listed
from orchestrator.runtime.suspects import times_begun
from orchestrator.runtime.waits import reasons_to_wait

_SOON = timedelta(seconds=5)
"""How long an instance is due before it is said that its workers may be full."""


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
    waits = reasons_to_wait(seen)
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
    text = f"it is due, and waits to be claimed by {listed(m.label for m in serving)}"
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
        served = listed((f"{m.label} ({_served(m)})" for m in live), "; ")
        text = f"no live worker serves {seen.saga}; these live workers serve other sagas: {served}"
        yield Reason(Cause.NOT_SERVED, text, since, do=_start_worker(seen))


def _serves(member: Member, seen: Seen) -> bool | None:
    """None when the worker does not say."""
    if member.definitions is None:
        return None
    return (seen.instance.name, seen.instance.version) in member.definitions


def _served(member: Member) -> str:
    return listed(f"{name} version {version}" for name, version in member.definitions or ())


def _start_worker(seen: Seen) -> tuple[str, ...]:
    return (f"saga worker --sagas MODULE  # one that holds {seen.saga}",)


def _in_vain(seen: Seen) -> Iterator[Reason]:
    """That it was claimed again and again without an event: it may be what ends its workers."""
    if seen.instance.claims < SUSPECT:
        return
    text = (
        f"it was claimed {times_begun(seen.instance.claims)} times in vain, without one new event; "
        f"at {seen.claim_limit + 1} it is parked as stuck"
    )
    yield Reason(Cause.IN_VAIN, text, seen.instance.updated_at, seen.instance.due_at)


def _later(seen: Seen) -> Reason:
    due_at = seen.instance.due_at
    text = "nothing of its own is under way; " + (
        "a worker looks at it again when its time comes" if due_at else "only a message moves it on"
    )
    return Reason(Cause.TIME, text, seen.instance.updated_at, due_at)


# ---------------------------------------------------------------------------- beside


def _unread(seen: Seen) -> Iterator[Reason]:
    if seen.unread and seen.instance.status not in ENDED:
        told = listed(f"{m.kind}{_called(m)} from {m.actor}" for m in seen.unread)
        count = len(seen.unread)
        text = f"{count} message{'s are' if count > 1 else ' is'} not read yet: {told}"
        yield Reason(Cause.UNREAD, text, seen.unread[0].sent_at)


def _called(message: Message) -> str:
    name = message.payload.get("name") or message.payload.get("step")
    return f" {name}" if name else ""


def _unpublished(seen: Seen) -> Iterator[Reason]:
    names = [relay.relay for relay in seen.relays]
    for relay in seen.relays:
        behind = [row for row in seen.rows if row.position > relay.position]
        if not behind or not is_shard_for(seen.instance.saga_id, relay.relay, names):
            continue
        who, do = "its broker may be away", ("saga doctor",)
        if relay.owner is None:
            who, do = "no relay runs", ("saga relay",)
        count = f"{len(behind)} of its events {'are' if len(behind) > 1 else 'is'}"
        text = f"{count} not published yet by relay {relay.relay}; {who}"
        yield Reason(Cause.UNPUBLISHED, text, behind[0].recorded_at, do=do)


def _last(history: Sequence[Recorded], kind: type[ev.Event]) -> datetime | None:
    return next((at for at, event in reversed(history) if isinstance(event, kind)), None)
