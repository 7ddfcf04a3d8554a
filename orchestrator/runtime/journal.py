"""Making events durable, and with them where an instance stands."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.domain import events as ev
from orchestrator.domain.chain import genesis, link
from orchestrator.domain.events import ENDED, RIDES_ALONG, Event, Status
from orchestrator.errors import EventTooLargeError
from orchestrator.ports import (
    ENDS,
    EVENT_DATA_LIMIT,
    EVENTS,
    Append,
    Claim,
    Codec,
    EventRow,
    Store,
    Telemetry,
)
from orchestrator.runtime.recorder import Recorder

if TYPE_CHECKING:
    from orchestrator.runtime.running import Running


class Journal:
    """Writes the events of instances, under one owner id."""

    def __init__(
        self, store: Store, codec: Codec, recorder: Recorder, telemetry: Telemetry, owner: str
    ) -> None:
        self._store = store
        self._codec = codec
        self._recorder = recorder
        self._telemetry = telemetry
        self._owner = owner

    async def flush(
        self,
        run: Running,
        *,
        due_at: datetime | None,
        keep: bool,
        write: Callable[[Append], Awaitable[int]] | None = None,
    ) -> None:
        """Make the fresh events durable, and with them where the instance stands.

        Raises EventTooLargeError, and writes nothing, for one that could not be published.
        """
        claim, state = run.claim, run.state
        status = state.status
        if not keep and status is Status.RUNNING and not run.suspects:
            # Waiting says that nothing is under way; the next owner relies on that.
            status = Status.WAITING
        rows = self._rows(run)
        inbox_seq = await (write or self._recorder.append)(
            Append(
                claim.saga_id,
                self._owner,
                claim.epoch,
                run.head,
                rows,
                status,
                due_at,
                self._owner if keep else None,
                run.inbox_read,
                if_inbox=not keep,
                pivoted=state.pivoted,
            )
        )
        written, run.fresh = run.fresh, []
        if rows:
            run.head, run.hash = rows[-1].version, rows[-1].hash
            run.last_at = rows[-1].recorded_at
            run.subject.head = run.head
        run.inbox_seq = max(run.inbox_seq, inbox_seq)
        self._telemetry.recorded(run.saga.name, claim.saga_id, written, run.meta)
        if written:
            self._store.hints.poke(EVENTS)
        if status in ENDED or status is Status.STUCK:
            self._store.hints.poke(ENDS)

    async def save_facts(self, run: Running) -> None:
        """Write what came before the end that was refused; the owner keeps the instance.

        Refused again where somebody else has it: owner, epoch and head guard this append too.
        """
        *facts, end = run.fresh
        if not any(not isinstance(event, RIDES_ALONG) for event in facts):
            return
        run.fresh = facts
        claim, undoing = run.claim, isinstance(end, ev.SagaCompensated)
        # What asked for the end was not done: it is heard again.
        seen = end.inbox_seq - 1 if isinstance(end, ev.SagaTerminated) else run.inbox_read
        await self._recorder.append(
            Append(
                claim.saga_id,
                self._owner,
                claim.epoch,
                run.head,
                self._rows(run),
                Status.COMPENSATING if undoing else Status.RUNNING,
                None,
                self._owner,
                seen,
                if_inbox=False,
                pivoted=run.state.pivoted,
            )
        )

    def _rows(self, run: Running) -> tuple[EventRow, ...]:
        return self._chained(run.claim, run.meta, run.head, run.hash, run.fresh)

    def _chained(
        self, claim: Claim, meta: str, head: int, previous: bytes, events: Sequence[Event]
    ) -> tuple[EventRow, ...]:
        saga_id, epoch, now, version = claim.saga_id, claim.epoch, self._store.clock.now(), head
        rows: list[EventRow] = []
        for index, event in enumerate(events):
            version += 1
            type_, node, attempt, data = self._codec.encode_event(event)
            if (size := _size(data)) > EVENT_DATA_LIMIT:
                raise EventTooLargeError(_too_large(type_, node, size), index)
            previous = link(
                previous, saga_id, version, type_, node, attempt, epoch, now, meta, data
            )
            rows.append(
                EventRow(saga_id, version, type_, node, attempt, epoch, data, meta, now, previous)
            )
        return tuple(rows)

    def problem(self, event: Event) -> str | None:
        """Why an event cannot be recorded; None when it can."""
        type_, node, _, data = self._codec.encode_event(event)
        size = _size(data)
        return _too_large(type_, node, size) if size > EVENT_DATA_LIMIT else None

    def require_fit(self, run: Running) -> None:
        """EventTooLargeError when one of the fresh events cannot be recorded."""
        for index, event in enumerate(run.fresh):
            if (problem := self.problem(event)) is not None:
                raise EventTooLargeError(problem, index)

    async def park(self, run: Running, error: EventTooLargeError) -> None:
        """Record what came before the event that is too large, and that a person is needed.

        Messages whose facts came after it stay unread.
        """
        facts = run.fresh[: error.index]
        run.fresh = [*facts, ev.SagaStuck("", "", str(error))]
        seen = max([run.claim.inbox_seen, *(getattr(fact, "inbox_seq", 0) for fact in facts)])
        await self._recorder.append(
            Append(
                run.claim.saga_id, self._owner, run.claim.epoch, run.head, self._rows(run),
                Status.STUCK, None, None, seen, if_inbox=False,
                pivoted=any(isinstance(fact, ev.PivotPassed) for fact in facts),
            )
        )  # fmt: skip
        self._telemetry.recorded(run.saga.name, run.claim.saga_id, run.fresh, run.meta)
        self._store.hints.poke(EVENTS)
        self._store.hints.poke(ENDS)

    async def put_aside(
        self,
        claim: Claim,
        events: Sequence[Event],
        status: Status,
        inbox_seen: int,
        *,
        if_inbox: bool,
    ) -> None:
        """Record, before any effect, what becomes of a history that cannot be gone on with."""
        known = await self._store.events.read(claim.saga_id, max(claim.head - 1, 0))
        previous = known[-1].hash if known else genesis(claim.saga_id)
        meta = meta_of(json.loads(claim.context))
        rows = self._chained(claim, meta, claim.head, previous, events)
        await self._recorder.append(
            Append(
                claim.saga_id, self._owner, claim.epoch, claim.head, rows, status, None,
                None, inbox_seen, if_inbox=if_inbox,
            )
        )  # fmt: skip
        self._telemetry.recorded(claim.name, claim.saga_id, events, meta)
        self._store.hints.poke(EVENTS)
        self._store.hints.poke(ENDS)


def _size(data: str) -> int:
    """Bytes of UTF-8, counted only where they could be too many."""
    return len(data) if len(data) * 4 <= EVENT_DATA_LIMIT else len(data.encode())


def _too_large(type_: str, node: str, size: int) -> str:
    where = f" at {node}" if node else ""
    return (
        f"a {type_}{where} of {size:,} bytes is over the limit of {EVENT_DATA_LIMIT:,} for an "
        "event, so it was not recorded; keep large data elsewhere and record where it is"
    )


def meta_of(context: Mapping[str, Any]) -> str:
    """What every event of an instance carries beside its facts, for those who follow a trail."""
    kept = {
        name: context[name]
        for name in ("correlation_id", "causation_id", "user_id")
        if context.get(name)
    }
    trace, span = context.get("trace_id"), context.get("span_id")
    if trace and span:
        kept["traceparent"] = f"00-{trace}-{span}-01"
    return json.dumps(kept, separators=(",", ":"))
