"""What must hold once all is over, told from the rows, the ledger and the broker as they stand."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.memory.tables import SagaRow
from orchestrator.domain import events as ev
from orchestrator.domain.chain import genesis, link
from orchestrator.domain.events import ENDED, Event, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.state import SagaState
from orchestrator.errors import OrchestratorError
from orchestrator.ports import EventRow, MessageKind
from tests.simulation.effects import UNDONE
from tests.simulation.ledger import Entry

if TYPE_CHECKING:
    from tests.simulation.world import World

ENDS = (ev.SagaCompleted, ev.SagaCompensated, ev.SagaTerminated)
ASKEW = timedelta(seconds=0.5)


def wrongs(world: World) -> list[str]:
    """All that is wrong with a world, in plain words."""
    seen = [*world.database.wrong, *world.ledger.wrong]
    found = [*world.trouble, *seen, *_starts(world), *_broker(world), *_calls(world)]
    for saga_id, row in world.database.tables.sagas.items():
        name = f"{row.request.name} {saga_id}"
        found += [f"{name}: {wrong}" for wrong in _of_one(world, saga_id, row)]
    return found


def _of_one(world: World, saga_id: str, row: SagaRow) -> Iterator[str]:
    yield from _log(world, saga_id, row.events)
    try:
        state, events = SagaState(saga_id), []
        for stored in row.events:
            events.append(world.codec.decode_event(stored))
            evolve(state, events[-1])
    except OrchestratorError as error:
        yield f"its log cannot be folded: {error!r}"
        return
    stands = Status.RUNNING if row.status is Status.WAITING else row.status
    if row.events and state.status is not stands:
        yield f"the log says {state.status}, the row says {row.status}"
    yield from _end(row, events)
    yield from _effects(world, saga_id, row, events)
    yield from _messages(world, saga_id, row, events)
    yield from _timers(row.events, events)


def _log(world: World, saga_id: str, rows: list[EventRow]) -> Iterator[str]:
    """I1, I2, I21: gapless, fenced, chained."""
    versions = [row.version for row in rows]
    if versions != list(range(1, len(rows) + 1)):
        yield f"I1 its versions are {versions}"
    epochs = [row.epoch for row in rows]
    if epochs != sorted(epochs):
        yield f"I2 its epochs are {epochs}"
    for epoch in sorted(set(epochs)):
        if len(owners := world.database.owners[saga_id, epoch]) > 1:
            yield f"I2 epoch {epoch} was written by {sorted(owners)}"
    previous = genesis(saga_id)
    for row in rows:
        previous = link(
            previous, row.saga_id, row.version, row.type, row.node, row.attempt, row.epoch,
            row.recorded_at, row.meta, row.data,
        )  # fmt: skip
        if previous != row.hash:
            yield f"I21 the chain breaks at {row.version}"
            return


def _end(row: SagaRow, events: list[Event]) -> Iterator[str]:
    """I3, I20: an end is the last event, and then nobody owns it."""
    for event, after in itertools.pairwise(events):
        if isinstance(event, ENDS) and not isinstance(after, ev.UndoRequested):
            yield f"I3 {type(after).__name__} follows {type(event).__name__}"
    if row.status in ENDED and (row.owner is not None or not isinstance(events[-1], ENDS)):
        yield f"I3 it is {row.status}, owned by {row.owner}, after {type(events[-1]).__name__}"


def _effects(world: World, saga_id: str, row: SagaRow, events: list[Event]) -> Iterator[str]:
    """I4, I5, I6, I7: what the log says that happened is what stands in the ledger."""
    done, doubtful = _standing(events)
    entries = {key: e for key, e in world.ledger.entries.items() if e.saga_id == saga_id}
    for node in done:
        entry = entries.get(f"{saga_id}/{node}")
        if entry is None or entry.state != "applied":
            if row.status is Status.TERMINATED and entry is not None and entry.undone_at:
                continue  # it was ended in the middle of its undoing
            yield f"I4 {node} is recorded, but is {entry and entry.state} in the ledger"
    if row.status in (Status.COMPLETED, Status.COMPENSATED):
        for key, entry in entries.items():
            node = key.partition("/")[2]
            if entry.state != "applied" or entry.step not in UNDONE or node in done:
                continue
            if not (node in doubtful and row.pivoted):
                yield f"I6 {entry.step} at {node} stands, and nothing says so ({row.status})"
    yield from _asked_again(world, saga_id, events)
    found = world.cases.get(row.request.name)
    if found is not None and not found.side_by_side:
        yield from _order(entries)


def _standing(events: list[Event]) -> tuple[dict[str, str], set[str]]:
    """The steps that are done and not undone, and those that nobody knows of."""
    done: dict[str, str] = {}
    doubtful: set[str] = set()
    for event in events:
        match event:
            case ev.StepSucceeded(node=node, step=step):
                done[node] = step
                doubtful.discard(node)
            case ev.ProbeAnswered(node=node, step=step, answer="happened"):
                done[node] = step
                doubtful.discard(node)
            case ev.StepResolved(node=node, step=step, happened=True, output=output):
                if output is not None:
                    done[node] = step
                    doubtful.discard(node)
            case ev.StepInDoubt(node=node):
                doubtful.add(node)
            case ev.StepCompensated(node=node) | ev.CompensationSkipped(node=node):
                done.pop(node, None)
                doubtful.discard(node)
            case _:
                pass
    return done, doubtful


def _asked_again(world: World, saga_id: str, events: list[Event]) -> Iterator[str]:
    """What was said not to have happened is asked for again only when a person says so."""
    retried = [event.node for event in events if isinstance(event, ev.StepRetried)]
    for key in world.ledger.asked_again:
        saga, _, node = key.partition("/")
        if saga == saga_id and not any(f"{node}/".startswith(f"{by}/") for by in retried):
            yield f"{node} was called again after a probe had said that it did not happen"


def _order(entries: dict[str, Entry]) -> Iterator[str]:
    """I6: what was done later is undone earlier."""
    undoable = [e for e in entries.values() if e.applied_at and e.step in UNDONE]
    for early in undoable:
        for late in undoable:
            between = early.applied_at < late.applied_at < early.undone_at
            if between and not 0 < late.undone_at < early.undone_at:
                yield f"I6 {early.step} was undone before {late.step}, which was done after it"


def _messages(world: World, saga_id: str, row: SagaRow, events: list[Event]) -> Iterator[str]:
    """I10, I12, I14: what was accepted took effect, once."""
    heard = Counter(
        seq
        for event in events
        if (seq := getattr(event, "inbox_seq", None)) is not None
        and not isinstance(event, ev.CancelRefused)
    )
    refused = {event.inbox_seq for event in events if isinstance(event, ev.CancelRefused)}
    heard.update(refused - set(heard))
    twice = [seq for seq, times in heard.items() if times > 1]
    if twice:
        yield f"I12 messages {twice} were heard more than once"
    in_order = [seq for seq in heard if seq not in refused]
    if in_order != sorted(in_order):
        yield f"I12 messages were heard in the order {in_order}"
    ended = row.status in ENDED
    deaf = False
    for message in row.inbox:
        if ended and not deaf and message.kind != MessageKind.CHILD and message.seq not in heard:
            yield f"I10 message {message.seq} ({message.kind}) was accepted and never heard"
        deaf = deaf or message.kind == MessageKind.TERMINATE
    kept = {key for key in row.dedupe_keys if key.startswith("signal-")}
    signals = [message for message in row.inbox if message.kind == MessageKind.SIGNAL]
    if len(kept) != len(signals):
        yield f"I12 {len(kept)} signals were accepted and {len(signals)} are kept"
    for target, kind, dedupe_key in world.client.accepted:
        if target == saga_id and dedupe_key not in row.dedupe_keys:
            yield f"I10 {kind} {dedupe_key} was acknowledged and is not there"
    asked = {event.inbox_seq for event in events if isinstance(event, ev.CancelRequested)}
    if asked - refused and row.status is Status.COMPLETED:
        # (A pivot that was under way may yet pass; then the log says that the cancel was refused.)
        yield "I14 it was taken back, and completed"


def _timers(rows: list[EventRow], events: list[Event]) -> Iterator[str]:
    """I13: a timer fires once, and not before its time."""
    due = {event.node: event.due_at for event in events if isinstance(event, ev.TimerSet)}
    fired: Counter[str] = Counter()
    for row, event in zip(rows, events, strict=True):
        if isinstance(event, ev.TimerFired):
            fired[event.node] += 1
            if row.recorded_at < due[event.node] - ASKEW:
                yield f"I13 the timer at {event.node} fired too early"
    if any(times > 1 for times in fired.values()):
        yield f"I13 timers fired {dict(fired)} times"


def _starts(world: World) -> Iterator[str]:
    """I10, I11: what was acknowledged is there, each key once."""
    sagas = world.database.tables.sagas
    for saga_id in world.client.started:
        if saga_id not in sagas:
            yield f"I10 saga {saga_id} was acknowledged and is not there"
    keys = Counter((row.request.name, row.request.key) for row in sagas.values() if row.request.key)
    for key, times in keys.items():
        if times > 1:
            yield f"I11 there are {times} sagas of key {key}"


def _broker(world: World) -> Iterator[str]:
    """I15: complete, in order per saga, nothing but what is in the log."""
    log = {(e.row.saga_id, e.row.version): e for e in world.database.tables.log}
    seen: Counter[str] = Counter()
    for record in world.broker.records:
        place = record.row.saga_id, record.row.version
        if log.get(place) != record:
            yield f"I15 a record of {place} is not in the log"
        if record.row.version > seen[record.row.saga_id] + 1:
            yield f"I15 {place} was published after version {seen[record.row.saga_id]}"
        seen[record.row.saga_id] = max(seen[record.row.saga_id], record.row.version)
    for saga_id, row in world.database.tables.sagas.items():
        if seen[saga_id] != row.head:
            yield f"I15 saga {saga_id} is published up to {seen[saga_id]} of {row.head}"


def _calls(world: World) -> Iterator[str]:
    """I5: without faults nothing is called twice."""
    if not +world.faults.counts:
        twice: dict[str, Any] = {k: n for k, n in world.ledger.calls.items() if n > 1}
        if twice:
            yield f"I5 called more than once for no reason: {twice}"
