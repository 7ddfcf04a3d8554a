"""Carries one instance as far as it can go. Recovering it is the same call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.commands import (
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    Plan,
    Postponed,
    ResumeFlow,
    RunStep,
    StartChild,
    WatchChild,
)
from orchestrator.domain.decider import decide, frontier, plan
from orchestrator.domain.events import ENDED, RIDES_ALONG, Event, Failure, Json, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.exchange import without_output
from orchestrator.domain.messages import hear, hear_reply
from orchestrator.domain.outcomes import failure_of
from orchestrator.domain.planning import CUT_OFF, earliest
from orchestrator.domain.saga import Child, Saga, walk
from orchestrator.domain.state import SagaState
from orchestrator.errors import (
    EventTooLargeError,
    HistoryError,
    InvalidInputError,
    OrchestratorError,
    OwnershipLostError,
    UnavailableError,
)
from orchestrator.ports import (
    DUE,
    Claim,
    Clock,
    Codec,
    Definition,
    Message,
    MessageKind,
    Store,
    Telemetry,
)
from orchestrator.runtime import machine
from orchestrator.runtime.attempts import Prepared, transaction_of
from orchestrator.runtime.executor import Executor, due_in
from orchestrator.runtime.flows import LiveFlow
from orchestrator.runtime.journal import Journal
from orchestrator.runtime.kin import Kin
from orchestrator.runtime.recorder import Recorder
from orchestrator.runtime.running import Running, is_clean, load
from orchestrator.runtime.suspects import times_begun

log = logging.getLogger(__name__)

_SOONEST, _LATEST = 1.0, 6 * 3600.0
"""Seconds between two looks of a parent at its children that nothing asked for: each costs a claim."""

_ENDING, _LOOK_AGAIN = 10.0, 0.05
"""How long, and how often, a parent looks at a child that has said that it is about to end."""

_LOOKS = 3
"""How often what cannot be planned is looked at: the same history leads to the same error."""

_LONG = 1_000
"""Events that are read back in no time; a longer history is kept in memory for longer."""

_TELL_RUNNING = (ev.DeadlinePassed, ev.BranchesHalted, ev.HistoryLimitReached)


class _PlanError(OrchestratorError):
    """What comes next cannot be said: our rules, or code of the definition that they ask, failed."""


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
        self._executor = executor
        self._journal = Journal(store, codec, recorder, telemetry, owner)
        self._sagas = sagas
        self._owner = owner
        self._may_act = may_act
        self._park_after = park_after
        self._claim_limit = claim_limit
        self._kin = Kin(store, codec)
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
        if claim.head and self._is_poison(claim):
            # Its history is not read: that may be the very thing that its workers die of.
            await self._put_aside(claim, _in_vain(claim))
            return
        try:
            run = await load(self._store, self._codec, self._sagas, claim)
        except HistoryError as error:
            await self._put_aside(claim, str(error))
            return
        self.running[claim.saga_id] = run
        try:
            if not is_clean(claim):
                self._suspect(run)
            if self._is_poison(claim):
                await self._read_inbox(run)
                if run.state.status not in ENDED:
                    run.note(ev.SagaStuck("", "", _in_vain(claim)))
            await self._carry(run)
        except _PlanError as error:
            await self._leave_unplanned(run, error)
        except EventTooLargeError as error:
            log.warning("saga %s is stuck: %s", claim.saga_id, error)
            await self._journal.park(run, error)
        finally:
            if self.running.get(claim.saga_id) is run:
                del self.running[claim.saga_id]
            for attempt in run.attempts.values():
                attempt.drop()
            for flow in run.flows.values():
                flow.close()

    async def _leave_unplanned(self, run: Running, error: _PlanError) -> None:
        """Keep what has happened. The third look in a row that led nowhere is the last one."""
        if any(not isinstance(event, RIDES_ALONG) for event in run.fresh):
            await self._journal.flush(run, due_at=None, keep=True)
            raise error
        if run.claim.claims < _LOOKS or run.head > run.claim.head:
            raise error
        await self._put_aside(run.claim, str(error))

    async def _put_aside(self, claim: Claim, why: str) -> None:
        """Park what cannot be gone on with as stuck; or end it, where a person has said so."""
        facts: list[Event] = []
        status, seen = Status.STUCK, claim.inbox_seen
        messages = await self._store.inbox.read(claim.saga_id, claim.inbox_seen)
        for message in messages:
            reason = str(message.payload.get("reason", ""))
            if message.kind == MessageKind.UNDO:
                facts.append(await self._hear_undo(claim, message))
                seen = message.seq
                if isinstance(facts[-1], ev.ActionRefused):
                    status = Status.COMPLETED
                    break
            elif message.kind == MessageKind.TERMINATE:
                children = await self._kin.children_of(claim.saga_id)
                await self._kin.terminate(children, claim.saga_id, reason)
                facts.append(ev.SagaTerminated(message.actor, reason, message.seq))
                status, seen = Status.TERMINATED, message.seq
                break
        if status is Status.STUCK:
            log.error("saga %s is stuck: %s", claim.saga_id, why)
            facts.append(ev.SagaStuck("", "", why))
        # Where nothing stays unread, what comes meanwhile is looked at first: perhaps it ends it.
        newest = max([claim.inbox_seq, *(message.seq for message in messages)])
        alone = status is Status.STUCK and newest <= seen
        record = partial(self._journal.put_aside, claim, facts, status, seen, if_inbox=alone)
        await (record() if status is Status.STUCK else self._tell_round(claim, status, record))

    async def _hear_undo(self, claim: Claim, message: Message) -> Event:
        """Only what is done is asked for this, and no other fact may follow its end."""
        row = await self._store.reads.get(claim.saga_id)
        pivoted = row is not None and row.pivoted
        state = SagaState(claim.saga_id, Status.COMPLETED, pivoted=pivoted)
        return hear(
            self._sagas[claim.name, claim.version], state, message.kind, message.payload,
            actor=message.actor, seq=message.seq, running=(), check=self._problem,
        )  # fmt: skip

    def _is_poison(self, claim: Claim) -> bool:
        return times_begun(claim.claims) > self._claim_limit

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
                # Also when a transaction is ready: it is rolled back, and has not happened.
                await self._end(run)
                return
            if run.prepared:
                await self._commit_prepared(run)
                continue
            if any(not isinstance(event, RIDES_ALONG) for event in run.fresh):
                await self._journal.flush(run, due_at=None, keep=True)
                if run.inbox_seq > run.inbox_read:
                    continue
            if self.draining:
                next_ = Plan(wake_at=next_.wake_at)
                if not run.attempts:
                    await self._hand_over(run)
                    return
            if await self._looked_after_children(run, next_):
                continue
            self._start(run, next_)
            if not run.attempts and not run.arrived and await self._parked(run, next_):
                return
            await self._wait(run, next_)
            self._take_in(run)

    async def _hand_over(self, run: Running) -> None:
        """Give it back, due at once."""
        now = asyncio.get_running_loop().time()
        if any(now < until for until in run.ending.values()):
            # The end may not be there when the next owner looks: it has to hear the news as well.
            await self._store.queue.release(self._owner, [run.claim.saga_id], untouched=True)
        else:
            await self._journal.flush(run, due_at=self._clock.now(), keep=False)

    def _plan(self, run: Running) -> Plan:
        """Let all decisions happen that need nothing from outside; then what is to be run."""
        while True:
            with _planning(run):
                next_ = plan(run.saga, run.state, self._clock.now(), run.nodes)
            for event in next_.decisions:
                run.note(_only_begun(run, event))
            if next_.decisions:
                continue
            code = [command for command in next_.commands if isinstance(command, ResumeFlow)]
            if not code:
                return next_
            before = run.state.version, sum(map(len, run.nodes.values()))
            for command in code:
                self._resume(run, command)
            if before == (run.state.version, sum(map(len, run.nodes.values()))):
                raise _PlanError(f"the flows {[c.path for c in code]} come no further")

    def _resume(self, run: Running, command: ResumeFlow) -> None:
        """Run the code of a flow: it has no effects, so it runs wherever a plan asks for it."""
        flow = run.flows.setdefault(command.path, LiveFlow(self._codec))
        outcome = flow.resume(command)
        if outcome is not None:
            run.note(decide(command, outcome))

    def _start(self, run: Running, next_: Plan) -> None:
        if next_.commands and not self._may_act():
            raise OwnershipLostError(
                f"the lease ran out while saga {run.claim.saga_id} was at work"
            )
        for command in next_.commands:
            place = (type(command), command.path)
            if isinstance(command, WatchChild):
                continue
            if place in run.attempts:
                if isinstance(command, RunStep) and command.cut:
                    run.attempts[place].cut_off()
                continue
            if isinstance(command, RunStep) and (uncalled := _uncalled(run, command)) is not None:
                run.arrived.append((command, uncalled))
                continue
            attempt = self._executor.start(command, run.subject, self._report_to(run))
            if isinstance(command, RunStep) and command.announced:
                attempt.announced = True
            run.attempts[place] = attempt

    def _report_to(self, run: Running) -> Callable[[Command, Outcome | Prepared], None]:
        def report(command: Command, outcome: Outcome | Prepared) -> None:
            if isinstance(outcome, Prepared):
                run.prepared.append((command, outcome))
            else:
                run.arrived.append((command, outcome))
            run.woken.set()

        return report

    async def _looked_after_children(self, run: Running, next_: Plan) -> bool:
        """Whether a child that is waited for has ended, and the plan is to be made anew."""
        watches = [command for command in next_.commands if isinstance(command, WatchChild)]
        now = asyncio.get_running_loop().time()
        if not watches or now < run.look_at:
            return False
        over = await self._kin.over(watches)
        for watch, outcome in over:
            run.note(decide(watch, outcome))
            run.ending.pop(watch.child_id, None)
        if over:
            # More of them may follow soon, and loading a long history anew costs more than waiting.
            run.linger_until = now + self._patience(run)
            return True
        soon = any(now < run.ending.get(watch.child_id, 0.0) for watch in watches)
        run.look_at = now + (_LOOK_AGAIN if soon else self._child_poll(run))
        return False

    def _child_poll(self, run: Running) -> float:
        """As long again as nothing has happened: each child tells, and what it told may be lost."""
        if run.last_at is None:
            return _SOONEST
        quiet = (self._clock.now() - run.last_at).total_seconds()
        return min(max(quiet, _SOONEST), _LATEST)

    async def _commit_prepared(self, run: Running) -> None:
        """Record what a transactional step did in its own transaction, with all that is fresh."""
        # What is too large must be found before the transaction is asked to take it along.
        self._journal.require_fit(run)
        command, prepared = run.prepared.pop(0)
        run.attempts.pop((type(command), command.path), None)
        self._forget_suspects(run, command.path)
        event = decide(command, prepared.outcome)
        run.fresh.append(event)
        try:
            await self._journal.flush(run, due_at=None, keep=True, write=prepared.commit)
        except (OwnershipLostError, UnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - a constraint of the user's, checked at the end
            # It was rolled back, so the state has not seen it, and it has not happened.
            run.fresh.remove(event)
            run.note(decide(command, Failed(failure_of(error))))
            return
        evolve(run.state, event)

    async def _wait(self, run: Running, next_: Plan) -> None:
        if run.arrived or run.prepared or run.overdue:
            return
        limit = due_in(self._wake_at(run, next_), self._clock.now())
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
            known = _doubted(run, command, outcome)
            self._forget_suspects(run, command.path)
            run.note(decide(command, known))
        for attempt in overdue:
            command = attempt.command
            if isinstance(command, RunStep) and (RunStep, command.path) in run.attempts:
                run.note(ev.StepStarted(command.path, command.step.name, command.attempt))

    def _forget_suspects(self, run: Running, path: str) -> None:
        """Those at *path* or below it."""
        run.suspects = tuple(
            known for known in run.suspects if known != path and not known.startswith(f"{path}/")
        )

    # ------------------------------------------------------------------ reading

    def _suspect(self, run: Running) -> None:
        """Find what an earlier owner may have begun, beyond what it had in memory only."""

        def report(command: Command, outcome: Outcome | Prepared) -> None:
            if not isinstance(outcome, Prepared):
                run.note(decide(command, outcome))

        poison = self._is_poison(run.claim)  # what kills its process must not run here once more
        while True:
            with _planning(run):
                begun = frontier(run.saga, run.state, self._clock.now(), run.nodes)
            decided = [event for event in begun.decisions if isinstance(event, RIDES_ALONG)]
            for event in decided:
                run.note(event)
            if decided:
                continue
            pure = [c for c in begun.commands if isinstance(c, Compute | ResumeFlow) and not poison]
            before = run.state.version, len(run.nodes), sum(map(len, run.nodes.values()))
            for command in pure:
                if isinstance(command, ResumeFlow):
                    self._resume(run, command)
                elif command.rides_along:
                    self._executor.start(command, run.subject, report)
            if before == (run.state.version, len(run.nodes), sum(map(len, run.nodes.values()))):
                # A command to a participant is under way once it is an event, and not before.
                run.suspects = tuple(
                    c.path
                    for c in begun.commands
                    if isinstance(c, RunStep) and c.step.remote is None
                )
                return

    async def _read_inbox(self, run: Running) -> None:
        if run.inbox_seq <= run.inbox_read:
            return
        for message in await self._store.inbox.read(run.claim.saga_id, run.inbox_read):
            run.inbox_read = message.seq
            if message.kind == MessageKind.CHILD:
                # News without a fact of its own: what became of the child stands in its own row.
                now = asyncio.get_running_loop().time()
                run.ending[str(message.payload.get("child"))] = now + _ENDING
                run.look_at = 0.0
                continue
            if run.state.status in ENDED and message.kind != MessageKind.UNDO:
                continue
            if message.kind == MessageKind.REPLY:
                self._hear_reply(run, message)
                continue
            event = hear(
                run.saga,
                run.state,
                message.kind,
                message.payload,
                actor=message.actor,
                seq=message.seq,
                running=self._under_way(run, message),
                check=self._problem,
            )
            if isinstance(event, ev.SagaTerminated):
                await self._terminate_children(run, event.reason)
            if (problem := self._journal.problem(event)) is not None:
                # Recorded or not, it is read: an instance must not fail on it again and again.
                event = ev.ActionRefused(message.kind, message.actor[:100], problem, message.seq)
            stuck = run.state.status is Status.STUCK
            run.note(event)
            run.begin()
            if stuck and run.state.status is not Status.STUCK:
                # What ran beside that which got stuck may still have happened.
                self._suspect(run)
                if isinstance(event, ev.StepRetried):
                    # What is tried again had come to its end.
                    self._forget_suspects(run, event.node)
        run.inbox_seq = max(run.inbox_seq, run.inbox_read)

    def _under_way(self, run: Running, message: Message) -> tuple[str, ...]:
        """The steps that a cancel may find begun; of one that is stuck, once it is freed."""
        seen = run
        if run.state.status is Status.STUCK and message.kind == MessageKind.CANCEL:
            seen = replace(run, state=deepcopy(run.state), fresh=[], flows={})
            seen.state.status = run.state.before_stuck
            seen.begin()
            self._suspect(seen)
            for flow in seen.flows.values():
                flow.close()
        return tuple(sorted(seen.under_way))

    def _hear_reply(self, run: Running, message: Message) -> None:
        """A reply that nobody waits for is no news: it was heard before, or came too late."""
        reply = hear_reply(run.state, message.payload, actor=message.actor, seq=message.seq)
        if reply is not None:
            problem = self._journal.problem(reply)
            if problem is None and reply.output is not None:
                problem = self._problem(reply.output, Any)
            if problem is not None:
                # Recorded or not, it is read: an instance must not fail on it again and again.
                reply = without_output(reply, problem)
            run.note(reply)
            return
        told = message.payload.get("command_id")
        log.info("saga %s: nobody waits for a reply to %s any more", run.claim.saga_id, told)

    async def _terminate_children(self, run: Running, reason: str) -> None:
        """Before it is recorded: an instance that has ended is never looked at again."""
        starting = [
            attempt.task
            for (kind, _), attempt in run.attempts.items()
            if kind is StartChild and attempt.task is not None
        ]
        if starting:
            # A request that is stored later would be of a child that nobody watches.
            await asyncio.wait(starting)
        await self._kin.terminate(list(run.state.children), run.claim.saga_id, reason)

    def _problem(self, text: Json, annotation: Any) -> str | None:
        try:
            self._codec.decode(text, annotation)
        except InvalidInputError as error:
            return str(error)
        return None

    # ------------------------------------------------------------------ writing

    async def _parked(self, run: Running, next_: Plan) -> bool:
        """Give the instance up when it only waits, and for long; it comes back when it is due."""
        if any(not isinstance(command, WatchChild) for command in next_.commands):
            return False
        wake_at = self._wake_at(run, next_)
        wait = due_in(wake_at, self._clock.now())
        if wait is not None and wait <= self._patience(run):
            return False
        if next_.commands and asyncio.get_running_loop().time() < run.linger_until:
            return False
        await self._journal.flush(run, due_at=wake_at, keep=False)
        return True

    def _wake_at(self, run: Running, next_: Plan) -> datetime | None:
        """When to look again: as planned, and from time to time at children."""
        if not _has_watches(next_):
            return next_.wake_at
        now = asyncio.get_running_loop().time()
        until = min(run.look_at, run.linger_until) if now < run.linger_until else run.look_at
        return earliest(next_.wake_at, self._clock.now() + timedelta(seconds=max(until - now, 0)))

    def _patience(self, run: Running) -> float:
        """Seconds for which one that only waits is kept: the more there is to load, the longer."""
        return self._park_after.total_seconds() * max(run.state.version / _LONG, 1.0)

    async def _end(self, run: Running) -> None:
        """Record the end, or that a person is needed; a parent hears of an end."""

        async def record() -> None:
            try:
                await self._journal.flush(run, due_at=None, keep=False)
            except OwnershipLostError:
                # Perhaps for a message only: what the steps did is not to be done again for that.
                await self._journal.save_facts(run)
                raise

        if run.state.status in ENDED:
            await self._tell_round(run.claim, run.state.status, record)
        else:
            await record()

    async def _tell_round(
        self, claim: Claim, status: Status, record: Callable[[], Awaitable[None]]
    ) -> None:
        """Record an end, of which the parent hears before; and after, where that was in vain."""
        if claim.parent is None:
            await record()
            return
        began = asyncio.get_running_loop().time()
        # Before it is recorded: an instance that has ended is never looked at again.
        told = await self._kin.report_end(claim, claim.parent, status)
        await record()
        # Who was told too early has stopped looking by now, or will before it sees the end.
        if not told or asyncio.get_running_loop().time() - began > _ENDING / 2:
            await self._tell_late(claim, claim.parent, status)
        self._store.hints.poke(DUE)
        if (waiting := self.running.get(claim.parent)) is not None:
            waiting.look_at = 0.0
            waiting.woken.set()

    async def tell_unanswered(self, claim: Claim) -> None:
        """Tell the parent of an instance that is ours no more, should it have ended.

        Its end may be in an append that was never answered, long after the parent has looked.
        """
        wait = _LOOK_AGAIN
        while claim.parent is not None and self._may_act():
            try:
                ended = await self._store.reads.ended([claim.saga_id])
            except UnavailableError as error:
                log.debug("saga %s: %s", claim.saga_id, error)
                await asyncio.sleep(machine.jittered(wait))
                wait = min(wait * 2, _SOONEST)
                continue
            status = ended.get(claim.saga_id)
            if status is not None and status in ENDED:
                await self._tell_late(claim, claim.parent, status)
                self._store.hints.poke(DUE)
            return

    async def _tell_late(self, claim: Claim, parent: str, status: Status) -> None:
        """Tell a parent of an end that is recorded, for as long as this worker may act."""
        wait = _LOOK_AGAIN
        while self._may_act() and not await self._kin.report_end(
            claim, parent, status, recorded=True
        ):
            await asyncio.sleep(machine.jittered(wait))
            wait = min(wait * 2, _SOONEST)


@contextmanager
def _planning(run: Running) -> Iterator[None]:
    """Tell an error of the plan, which comes again each time, from those of the world."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        name, version = run.claim.name, run.claim.version
        raise _PlanError(
            f"what comes next cannot be said, because the definition of {name} version {version} "
            f"raised {type(error).__name__}: {failure_of(error).message}; mend it, then: "
            "saga resume ID"
        ) from error


def _in_vain(claim: Claim) -> str:
    times = times_begun(claim.claims)
    return f"claimed {times} times without one new event; its workers may have died"


def _has_watches(next_: Plan) -> bool:
    return any(isinstance(command, WatchChild) for command in next_.commands)


def _uncalled(run: Running, command: RunStep) -> Outcome | None:
    """What comes of a step that an earlier owner began and that is not called again; or None."""
    if command.cut:
        return Failed(CUT_OFF) if transaction_of(command) is not None else InDoubt(CUT_OFF)
    if not command.step.once or command.path not in run.suspects:
        return None
    return InDoubt(Failure("Interrupted", "the process that ran it died; it must not run twice"))


def _doubted(run: Running, command: Command, outcome: Outcome) -> Outcome:
    """A refusal says nothing of the call that an owner made who died before it had the answer.

    Where a step can settle that by itself; else a refusal under the same key is all there is to know.
    """
    if not isinstance(command, RunStep) or transaction_of(command) is not None:
        return outcome
    if command.path not in run.suspects:
        return outcome
    if isinstance(outcome, Postponed):
        return replace(outcome, in_doubt=True)
    settles = command.step.asks is not None or command.step.undo_attempted is not None
    if isinstance(outcome, Failed) and settles:
        return InDoubt(outcome.failure, outcome.cost)
    return outcome


def _only_begun(run: Running, event: Event) -> Event:
    """What turns round leaves in doubt what may have begun; what has not is merely not begun."""
    if not isinstance(event, _TELL_RUNNING):
        return event
    return replace(event, running=tuple(path for path in event.running if path in run.under_way))


def definitions(sagas: Sequence[Saga[Any, Any]]) -> dict[Definition, Saga[Any, Any]]:
    """The sagas and their children by name and version. ValueError when two share both."""
    known: dict[Definition, Saga[Any, Any]] = {}
    waiting = list(sagas)
    while waiting:
        saga = waiting.pop(0)
        other = known.setdefault((saga.name, saga.version), saga)
        if other is not saga:
            raise ValueError(f"two different sagas are called {saga.name!r} version {saga.version}")
        waiting.extend(node.saga for node in walk(saga.tree) if isinstance(node, Child))
    return known
