"""Reads all that there is about one instance, and says why it does not move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.awaiting import Awaited, Recorded, Want, awaited
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.state import SagaState
from orchestrator.errors import HistoryError
from orchestrator.ports import Codec, Filter, Instance, Store
from orchestrator.runtime.reasons import reasons
from orchestrator.runtime.seen import Cause, Kid, Reason, Seen
from orchestrator.runtime.worker_settings import WorkerSettings

CHILDREN = 10_000
DEPTH = 8
"""How many generations down a child is asked for its own reason."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why an instance does not move: the main reason first, by what was seen `at` that time."""

    instance: Instance
    at: datetime
    reasons: tuple[Reason, ...]

    @property
    def main(self) -> Reason:
        return self.reasons[0]


async def look(store: Store, codec: Codec, instance: Instance, depth: int = DEPTH) -> Why:
    """Why *instance* does not move. Raises UnavailableError when the database is away."""
    seen = await _see(store, codec, instance, depth)
    return Why(instance, seen.now, reasons(seen))


async def _see(store: Store, codec: Codec, instance: Instance, depth: int) -> Seen:
    rows = await store.events.read(instance.saga_id)
    now = store.clock.now()
    unreadable, history, state = "", list[Recorded](), SagaState(instance.saga_id)
    waits: tuple[Awaited, ...] = ()
    try:
        history = [(row.recorded_at, codec.decode_event(row)) for row in rows]
        for _, event in history:
            evolve(state, event)
        waits = awaited(state, history, now)
    except HistoryError as error:
        unreadable = str(error)
    return Seen(
        instance,
        now,
        WorkerSettings().claim_limit,
        None if unreadable else state,
        history,
        rows,
        unreadable,
        waits,
        await _kids(store, codec, instance, waits, depth),
        await store.fleet.members(),
        await store.inbox.read(instance.saga_id, instance.inbox_seen),
        await store.feed.relays(),
    )


async def _kids(
    store: Store, codec: Codec, instance: Instance, waits: tuple[Awaited, ...], depth: int
) -> dict[str, Kid]:
    """The children that are waited for. One of them, stuck if any is, is asked for its reason."""
    wanted = {one.name for one in waits if one.want in (Want.CHILD, Want.CHILD_UNDO)}
    if not wanted or instance.status in ENDED:
        return {}
    found = await store.reads.search(Filter(parent=instance.saga_id, limit=CHILDREN))
    kids = {child.saga_id: Kid(child) for child in found if child.saga_id in wanted}
    first = min(kids.values(), key=_in_trouble_first, default=None)
    if first is not None and depth > 0:
        child = first.instance
        own = await look(store, codec, child, depth - 1)
        kids[child.saga_id] = Kid(child, own.main)
    return kids


def _in_trouble_first(kid: Kid) -> tuple[bool, str]:
    return kid.instance.status is not Status.STUCK, kid.instance.saga_id


__all__ = ["Cause", "Reason", "Why", "look"]
