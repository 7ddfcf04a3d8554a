"""Carries one instance as far as it can go. Recovering it is the same call."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.chain import genesis, link
from orchestrator.domain.commands import Command, Compute, InDoubt, Outcome, Plan, RunStep
from orchestrator.domain.decider import decide, frontier, plan
from orchestrator.domain.events import ENDED, RIDES_ALONG, Event, Failure, Status
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState, evolve
from orchestrator.errors import HistoryError, OwnershipLostError
from orchestrator.ports import (
    ENDS,
    EVENTS,
    Append,
    Claim,
    Clock,
    Codec,
    Definition,
    EventRow,
    Store,
    Telemetry,
)
from orchestrator.runtime.executor import Attempt, Executor, Subject, due_in
from orchestrator.runtime.recorder import Recorder

log = logging.getLogger(__name__)

Place = tuple[type[Command], str]
"""What is under way: the kind of command and the path it is for."""


@dataclass(slots=True, eq=False)
class Running:
    """One owned instance in memory. `head` and `hash` are of the last durable event."""

    claim: Claim
    saga: Saga[Any, Any]
    subject: Subject
    state: SagaState
    meta: str
    head: int
    hash: bytes
    fresh: list[Event] = field(default_factory=list)
    attempts: dict[Place, Attempt] = field(default_factory=dict)
    arrived: list[tuple[Command, Outcome]] = field(default_factory=list)
    overdue: list[Attempt] = field(default_factory=list)
    suspects: tuple[str, ...] = ()
    inbox_seq: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def under_way(self) -> set[str]:
        """The steps that run here, or may still run where an earlier owner left them."""
        return {path for kind, path in self.attempts if kind is RunStep}.union(self.suspects)


class Engine:
    """Read, fold, plan, run, record, and again. Used by one worker, under one owner id."""

    def __init__(
        self,
        store: Store,
        codec: Codec,
        recorder: Recorder,
        executor: Executor,
        telemetry: Telemetry,
        sagas: Mapping[Definition, Saga[Any, Any]],
        *,
        owner: str,
        may_act: Callable[[], bool],
        park_after: timedelta = timedelta(seconds=1),
        claim_limit: int = 10,
    ) -> None:
        self._store = store
        self._codec = codec
        self._recorder = recorder
        self._executor = executor
        self._telemetry = telemetry
        self._sagas = sagas
        self._owner = owner
        self._may_act = may_act
        self._park_after = park_after
        self._claim_limit = claim_limit
        self.running: dict[str, Running] = {}
        self.draining = False

    @property
    def _clock(self) -> Clock:
        return self._store.clock

    async def advance(self, claim: Claim) -> None:
        """Carry the claimed instance until it ends, waits for long, or is stuck.

        Raises OwnershipLostError when an append was refused, UnavailableError (or
        UnknownOutcomeError) when the database was away; nothing in memory is of use then.
        """
        try:
            run = await self._load(claim)
        except HistoryError as error:
            await self._park_as_stuck(claim, str(error))
            return
        self.running[claim.saga_id] = run
        try:
            if not _is_clean(claim):
                self._suspect(run)
            if self._is_poison(claim):
                await self._read_inbox(run)
                why = (
                    f"claimed {claim.claims} times without one new event; its workers may have died"
                )
                self._note(run, ev.SagaStuck("", "", why))
            await self._carry(run)
        finally:
            self.running.pop(claim.saga_id, None)
            for attempt in run.attempts.values():
                attempt.drop()

    def _is_poison(self, claim: Claim) -> bool:
        return claim.claims > self._claim_limit

    def announce_overdue(self, older_than: float) -> None:
        """Have StepStarted written for attempts that began before the loop time *older_than*."""
        for run in self.running.values():
            for attempt in run.attempts.values():
                if not attempt.announced and 0 < attempt.since < older_than:
                    attempt.announced = True
                    run.overdue.append(attempt)
                    run.woken.set()

    def drain(self) -> None:
        """Begin nothing new: what runs may settle, then everything is given back."""
        self.draining = True
        for run in self.running.values():
            run.woken.set()

    def tell_inbox(self, saga_id: str, inbox_seq: int) -> None:
        """Say that the inbox of an instance went up to *inbox_seq*."""
        run = self.running.get(saga_id)
        if run is not None and inbox_seq > run.inbox_seq:
            run.inbox_seq = inbox_seq
            run.woken.set()

    # ------------------------------------------------------------------ the loop

    async def _carry(self, run: Running) -> None:
        while True:
            await self._read_inbox(run)
            next_ = self._plan(run)
            if run.state.status in ENDED or run.state.status is Status.STUCK:
                await self._flush(run, due_at=None, keep=False)
                return
            if any(not isinstance(event, RIDES_ALONG) for event in run.fresh):
                await self._flush(run, due_at=None, keep=True)
                if run.inbox_seq > run.state.inbox_seen:
                    continue
            if self.draining:
                next_ = Plan(wake_at=next_.wake_at)
                if not run.attempts:
                    await self._flush(run, due_at=self._clock.now(), keep=False)
                    return
            self._start(run, next_)
            if not run.attempts and not run.arrived and await self._parked(run, next_):
                return
            await self._wait(run, next_)
            self._take_in(run)

    def _plan(self, run: Running) -> Plan:
        """Let all decisions happen that need nothing from outside; then what is to be run."""
        while True:
            next_ = plan(run.saga, run.state, self._clock.now())
            if not next_.decisions:
                return next_
            for event in next_.decisions:
                self._note(run, _only_begun(run, event))

    def _start(self, run: Running, next_: Plan) -> None:
        if next_.commands and not self._may_act():
            raise OwnershipLostError(
                f"the lease ran out while saga {run.claim.saga_id} was at work"
            )
        for command in next_.commands:
            place = (type(command), command.path)
            if place in run.attempts:
                continue
            if isinstance(command, RunStep) and command.path in run.suspects and command.step.once:
                lost = Failure("Interrupted", "the process that ran it died; it must not run twice")
                run.arrived.append((command, InDoubt(lost)))
                continue

            def report(command: Command, outcome: Outcome) -> None:
                run.arrived.append((command, outcome))
                run.woken.set()

            attempt = self._executor.start(command, run.subject, report)
            if isinstance(command, RunStep) and command.announced:
                attempt.announced = True
            run.attempts[place] = attempt

    async def _wait(self, run: Running, next_: Plan) -> None:
        if run.arrived or run.overdue:
            return
        limit = due_in(next_.wake_at, self._clock.now())
        if limit is None:
            await run.woken.wait()
        else:
            timer = asyncio.get_running_loop().call_later(limit, run.woken.set)
            try:
                await run.woken.wait()
            finally:
                timer.cancel()

    def _take_in(self, run: Running) -> None:
        run.woken.clear()
        arrived, run.arrived = run.arrived, []
        overdue, run.overdue = run.overdue, []
        for command, outcome in arrived:
            run.attempts.pop((type(command), command.path), None)
            run.suspects = tuple(path for path in run.suspects if path != command.path)
            self._note(run, decide(command, outcome))
        for attempt in overdue:
            command = attempt.command
            if isinstance(command, RunStep) and (RunStep, command.path) in run.attempts:
                self._note(run, ev.StepStarted(command.path, command.step.name, command.attempt))

    def _note(self, run: Running, event: Event) -> None:
        evolve(run.state, event)
        run.fresh.append(event)

    # ------------------------------------------------------------------ reading

    async def _load(self, claim: Claim) -> Running:
        saga = self._sagas[claim.name, claim.version]
        rows = await self._store.events.read(claim.saga_id) if claim.head else []
        state = SagaState(claim.saga_id)
        for row in rows:
            evolve(state, self._codec.decode_event(row))
        context: dict[str, Any] = json.loads(claim.context)
        fingerprint = state.fingerprint or claim.fingerprint
        if fingerprint != saga.fingerprint:
            raise HistoryError(
                f"begun with shape {fingerprint} of {claim.name} version {claim.version}, but this "
                f"worker has shape {saga.fingerprint}; give a changed flow a new version"
            )
        text = claim.input if claim.input is not None else state.input
        run = Running(
            claim,
            saga,
            Subject(claim.saga_id, saga, text, context),
            state,
            _meta(context),
            claim.head,
            rows[-1].hash if rows else genesis(claim.saga_id),
            inbox_seq=claim.inbox_seq,
        )
        if not rows:
            self._note(
                run,
                ev.SagaStarted(
                    claim.name, claim.version, fingerprint, claim.requested_at, text, context
                ),
            )
        return run

    def _suspect(self, run: Running) -> None:
        """Find what an earlier owner may have begun, beyond the values that it had in memory only."""

        def report(command: Command, outcome: Outcome) -> None:
            self._note(run, decide(command, outcome))

        while True:
            begun = frontier(run.saga, run.state, self._clock.now())
            values = [command for command in begun if isinstance(command, Compute)]
            if self._is_poison(run.claim):
                values = []  # a function that kills its process must not run here once more
            for command in values:
                self._executor.start(command, run.subject, report)
            if not values:
                run.suspects = tuple(c.path for c in begun if isinstance(c, RunStep))
                return

    async def _read_inbox(self, run: Running) -> None:
        if run.inbox_seq <= run.state.inbox_seen:
            return
        for message in await self._store.inbox.read(run.claim.saga_id, run.state.inbox_seen):
            if message.kind != "cancel":
                raise HistoryError(f"message {message.seq} is a {message.kind!r}, unknown here")
            running = tuple(sorted(run.under_way))
            reason = str(message.payload.get("reason", ""))
            self._note(run, ev.CancelRequested(message.actor, reason, message.seq, running))
        run.inbox_seq = max(run.inbox_seq, run.state.inbox_seen)

    # ------------------------------------------------------------------ writing

    async def _parked(self, run: Running, next_: Plan) -> bool:
        """Give the instance up when it only waits, and for long; it comes back when it is due."""
        if next_.commands:
            return False
        wait = due_in(next_.wake_at, self._clock.now())
        if wait is not None and wait <= self._park_after.total_seconds():
            return False
        await self._flush(run, due_at=next_.wake_at, keep=False)
        return True

    async def _flush(self, run: Running, *, due_at: datetime | None, keep: bool) -> None:
        """Make the fresh events durable, and with them where the instance stands."""
        claim, state = run.claim, run.state
        status = state.status
        if not keep and status is Status.RUNNING:
            status = Status.WAITING
        rows = self._rows(run)
        inbox_seq = await self._recorder.append(
            Append(
                claim.saga_id,
                self._owner,
                claim.epoch,
                run.head,
                rows,
                status,
                due_at,
                self._owner if keep else None,
                state.inbox_seen,
                if_inbox=not keep,
            )
        )
        written, run.fresh = run.fresh, []
        if rows:
            run.head, run.hash = rows[-1].version, rows[-1].hash
        run.inbox_seq = max(run.inbox_seq, inbox_seq)
        self._telemetry.recorded(run.saga.name, claim.saga_id, written, run.meta)
        if written:
            self._store.hints.poke(EVENTS)
        if status in ENDED or status is Status.STUCK:
            self._store.hints.poke(ENDS)

    def _rows(self, run: Running) -> tuple[EventRow, ...]:
        saga_id, epoch, meta = run.claim.saga_id, run.claim.epoch, run.meta
        now, previous, version = self._clock.now(), run.hash, run.head
        rows: list[EventRow] = []
        for event in run.fresh:
            version += 1
            type_, node, attempt, data = self._codec.encode_event(event)
            previous = link(
                previous, saga_id, version, type_, node, attempt, epoch, now, meta, data
            )
            rows.append(
                EventRow(saga_id, version, type_, node, attempt, epoch, data, meta, now, previous)
            )
        return tuple(rows)

    async def _park_as_stuck(self, claim: Claim, reason: str) -> None:
        """Record that this history cannot be gone on with, before any effect."""
        log.error("saga %s is stuck: %s", claim.saga_id, reason)
        rows = await self._store.events.read(claim.saga_id)
        previous = rows[-1].hash if rows else genesis(claim.saga_id)
        type_, node, attempt, data = self._codec.encode_event(ev.SagaStuck("", "", reason))
        now, head = self._clock.now(), rows[-1].version if rows else 0
        meta = _meta(json.loads(claim.context))
        hash_ = link(
            previous, claim.saga_id, head + 1, type_, node, attempt, claim.epoch, now, meta, data
        )
        row = EventRow(
            claim.saga_id, head + 1, type_, node, attempt, claim.epoch, data, meta, now, hash_
        )
        await self._recorder.append(
            Append(
                claim.saga_id, self._owner, claim.epoch, head, (row,), Status.STUCK, None,
                None, claim.inbox_seq, if_inbox=False,
            )
        )  # fmt: skip


def _is_clean(claim: Claim) -> bool:
    """Whether no earlier owner can have left a step under way: first claim, or first after a park."""
    return claim.claims <= 1 and claim.status in (Status.PENDING, Status.WAITING)


def _only_begun(run: Running, event: Event) -> Event:
    """A deadline leaves in doubt what may have begun; what surely has not is merely not begun."""
    if not isinstance(event, ev.DeadlinePassed):
        return event
    return replace(event, running=tuple(path for path in event.running if path in run.under_way))


def _meta(context: Mapping[str, Any]) -> str:
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


def definitions(sagas: Sequence[Saga[Any, Any]]) -> dict[Definition, Saga[Any, Any]]:
    """The sagas by name and version. Raises ValueError when two share both."""
    known: dict[Definition, Saga[Any, Any]] = {}
    for saga in sagas:
        other = known.setdefault((saga.name, saga.version), saga)
        if other is not saga:
            raise ValueError(f"two different sagas are called {saga.name!r} version {saga.version}")
    return known
