"""Run one command: call the user's function, bound it, and say what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, assert_never

from orchestrator.domain.commands import (
    Answered,
    CancelChild,
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    Postponed,
    Requested,
    ResumeFlow,
    RunCompensation,
    RunProbe,
    RunStep,
    StartChild,
    Succeeded,
    UndoChild,
    WatchChild,
)
from orchestrator.domain.commands import Attempted as Attemptable
from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.events import Failure, Json
from orchestrator.domain.outcomes import failure_of, outcome_of
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import (
    Attempted,
    Completed,
    Happened,
    NotHappened,
    Step,
    Unknown,
)
from orchestrator.errors import InvalidInputError, UnavailableError, UnrecordableError
from orchestrator.ports import Codec, Store, Telemetry
from orchestrator.runtime.attempts import Attempt, Prepared, Report, transaction_of
from orchestrator.runtime.guards import Gate, Settle
from orchestrator.runtime.kin import Kin
from orchestrator.runtime.processes import run_in_process
from orchestrator.runtime.remote import read_reply, remote_of, request
from orchestrator.runtime.threads import Threads

log = logging.getLogger(__name__)

_AGAIN = timedelta(seconds=1)
"""When to begin a step anew that had not happened, through no fault of its own."""

_TICK = 0.1
_THREADS = 200
"""Plain functions that run at once; those that nobody waits for any more are not counted."""


@dataclass(slots=True)
class Subject:
    """The instance that a command belongs to. `head` is of its last durable event."""

    saga_id: str
    saga: Saga[Any, Any]
    input: Json
    context: Mapping[str, Any]
    head: int = 0
    reason: str = ""


class Executor:
    """Calls actions. Holds no state of any saga, only what is running at this moment."""

    def __init__(
        self,
        codec: Codec,
        store: Store,
        resources: Mapping[type, object],
        telemetry: Telemetry,
        step_timeout: timedelta,
    ) -> None:
        self._codec = codec
        self._clock = store.clock
        self._transactions = store.transactions
        self._gate = Gate(store.shared, codec, store.clock)
        self._kin = Kin(store, codec)
        self._resources = resources
        self._telemetry = telemetry
        self._step_timeout = step_timeout
        self.abandoned: set[asyncio.Task[Outcome]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._threads = Threads()
        self._places = asyncio.Semaphore(_THREADS)
        self._watched: dict[Attempt, float] = {}
        self._ticking = False

    def start(self, command: Command, subject: Subject, report: Report) -> Attempt:
        """Begin *command*; *report* hears its outcome once, at the latest when it times out."""
        attempt = Attempt(self, command, report)
        name = f"{subject.saga_id}{command.path}"
        match command:
            case Compute():
                attempt.settle(self._compute(command, subject))
            case ResumeFlow() | WatchChild():
                raise TypeError(f"{type(command).__name__} is the engine's own business")
            case StartChild() | CancelChild() | UndoChild():
                attempt.run(self._relate(command, subject), None, name)
            case RunStep() | RunCompensation() | RunProbe():
                limit = self._limit(command)
                if command.reply is not None:
                    attempt.settle(read_reply(self._codec, command, command.reply))
                elif limit is not None and limit <= 0:
                    late = _too_late()
                    attempt.settle(Failed(late) if remote_of(command) else InDoubt(late))
                else:
                    attempt.silence = _silence(command)
                    attempt.run(self._attempt(command, subject, attempt), limit, name)
        return attempt

    def close(self) -> None:
        """Let the threads go that wait for calls: nothing is begun here any more."""
        self._threads.close()

    def watch(self, attempt: Attempt, limit: float) -> None:
        """Expire *attempt* after *limit* seconds, or up to a tenth of a second later.

        Hundreds of steps that end at once would else each push a timer and cancel it again.
        """
        loop = asyncio.get_running_loop()
        self._watched[attempt] = loop.time() + limit
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick)

    def postponed(self, by: str) -> Postponed:
        """To be begun anew in a moment: it was not called, or has not happened."""
        return Postponed(by, self._clock.now() + _AGAIN)

    def forget(self, attempt: Attempt) -> None:
        """Stop watching *attempt*."""
        self._watched.pop(attempt, None)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for attempt in [a for a, due in self._watched.items() if due <= now]:
            attempt.expire()
        self._ticking = bool(self._watched)
        if self._ticking:
            loop.call_later(_TICK, self._tick)

    def conclude(self, taken: list[Settle], outcome: Outcome) -> None:
        """Tell the guards of a call that nobody waits for any more what became of it."""
        if not taken:
            return
        settled = tuple(taken)
        taken.clear()
        asyncio.get_running_loop().call_soon(self._tell, settled, outcome)

    def _tell(self, taken: tuple[Settle, ...], outcome: Outcome) -> None:
        telling = asyncio.create_task(self._gate.settle(taken, outcome))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _relate(
        self, command: StartChild | CancelChild | UndoChild, subject: Subject
    ) -> Outcome:
        """Speak to a child until the database has heard it: nothing goes on before."""
        wait = 0.1
        while True:
            try:
                if isinstance(command, StartChild):
                    context = json.dumps(dict(subject.context))
                    return await self._kin.start(command, subject.saga_id, context, subject.head)
                return await self._kin.tell(command, subject.saga_id, subject.reason)
            except UnavailableError as error:
                log.debug("saga %s: %s", subject.saga_id, error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)

    def _limit(self, command: Attemptable) -> float | None:
        """Seconds that this attempt may take; None for no limit."""
        if isinstance(command, RunCompensation):
            return (command.undo.timeout or self._step_timeout).total_seconds()
        if isinstance(command, RunProbe):
            return (command.probe.timeout or self._step_timeout).total_seconds()
        own = command.timeout
        if own is None and not command.step.unbounded:
            own = self._step_timeout
        if command.deadline is None:
            return None if own is None else own.total_seconds()
        left = command.deadline - self._clock.now()
        return (left if own is None else min(own, left)).total_seconds()

    def _compute(self, command: Compute, subject: Subject) -> Outcome:
        try:
            value = self._codec.decode(command.input, command.takes)
            ctx = self._context(command.path, 1, command.outputs, subject)
            return Succeeded(self._codec.encode(command.call(value, ctx), command.gives))
        except BaseException as error:  # noqa: BLE001 - one that exits must not end the worker
            return Failed(failure_of(error, permanent=True))

    async def _attempt(self, command: Attemptable, subject: Subject, attempt: Attempt) -> Outcome:
        began = asyncio.get_running_loop().time()
        step = command.step

        async def call() -> Outcome:
            outcome = await self._outcome(command, subject, attempt)
            attempt.rest()
            spent = sum(attempt.costs)
            if spent and isinstance(outcome, Succeeded | Failed | InDoubt):
                outcome = replace(outcome, cost=spent)
            return outcome

        if isinstance(command, RunStep) and command.guards:
            receipt = f"{subject.saga_id}/{command.path}/{command.attempt}"
            outcome = await self._gate.through(
                command, receipt, self._step_timeout, call, attempt.taken
            )
        else:
            outcome = await call()
        took = asyncio.get_running_loop().time() - began
        if isinstance(outcome, Requested):
            return outcome
        try:
            self._telemetry.attempted(subject.saga.name, step.name, type(outcome).__name__, took)
        except Exception:
            log.exception("telemetry failed; what the step came to stands")
        return outcome

    async def _outcome(self, command: Attemptable, subject: Subject, attempt: Attempt) -> Outcome:
        step = command.step
        in_transaction = transaction_of(command) is not None
        try:
            if in_transaction:
                return await self._transact(command, subject, attempt)
            return await self._call(command, subject, attempt)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return outcome_of(error, step)
        except BaseException as error:  # noqa: BLE001 - a step that exits must not end the worker
            if not in_transaction:
                return outcome_of(error, step)
            # What was not committed has not happened; a database that is away is no step's fault.
            if isinstance(error, UnavailableError) and isinstance(command, RunStep):
                return self.postponed("database")
            return Failed(failure_of(error))

    async def _transact(self, command: Attemptable, subject: Subject, attempt: Attempt) -> Outcome:
        """Run the action inside of a transaction that stays open until the engine appends."""
        async with self._transactions.open(transaction_of(command)) as transaction:
            outcome = await self._call(command, subject, attempt, transaction.handle)
            if not isinstance(outcome, Succeeded):
                failure = getattr(outcome, "failure", None)
                return outcome if failure is None else Failed(failure)
            prepared = Prepared(replace(outcome, cost=sum(attempt.costs)))
            if not attempt.prepare(prepared):
                return Failed(_too_late())
            append = await prepared.append
            try:
                prepared.written.set_result(await transaction.append(append))
            except Exception as error:  # noqa: BLE001 - handed to the engine, which waits for it
                prepared.written.set_exception(error)
        return outcome

    async def _call(
        self, command: Attemptable, subject: Subject, attempt: Attempt, *handle: object
    ) -> Outcome:
        step = command.step
        try:
            given = self._codec.decode(command.input, step.input_type)
        except InvalidInputError as error:
            return Failed(failure_of(error, permanent=True))
        ctx = self._context(command.path, command.attempt, command.outputs, subject, attempt)
        if remote_of(command) is not None:
            payload, due_at = self._payload(command, given, ctx), self._due_at(command)
            return request(command, payload, due_at, ctx.idempotency_key)
        match command:
            case RunStep():
                return await self._run(command, given, ctx, attempt, handle)
            case RunCompensation():
                key = ctx.idempotency_key
                done = self._done(command, given, key)
                ctx = replace(ctx, idempotency_key=f"{key}/undo")
                await self._invoke(attempt, command.undo.action, done, ctx, *handle)
                return Succeeded()
            case RunProbe():
                tried: Attempted[Any, Any] = Attempted(given, None, ctx.idempotency_key)
                answer = await self._invoke(attempt, command.probe.action, tried, ctx)
                return self._answer(step, answer)
        assert_never(command)

    def _done(
        self, command: RunCompensation, given: object, key: str
    ) -> Attempted[Any, Any] | Completed[Any, Any]:
        output = command.output
        value = None if output is None else self._codec.decode(output, command.step.output_type)
        return Attempted(given, value, key) if command.on_doubt else Completed(given, value, key)

    def _payload(self, command: Attemptable, given: object, ctx: WorkflowContext) -> Json:
        """What a participant is told."""
        if isinstance(command, RunCompensation):
            undo = command.undo
            made = undo.action(self._done(command, given, ctx.idempotency_key))
            return self._codec.encode(made, undo.takes)
        return self._codec.encode(given, command.step.input_type)

    def _due_at(self, command: Attemptable) -> datetime | None:
        limit = self._limit(command)
        return None if limit is None else self._clock.now() + timedelta(seconds=limit)

    async def _run(
        self,
        command: RunStep,
        given: object,
        ctx: WorkflowContext,
        attempt: Attempt,
        handle: tuple[object, ...],
    ) -> Outcome:
        step = command.step
        if step.executor == "process":
            attempt.begin()
            result = await run_in_process(step, given, ctx)
        else:
            result = await self._invoke(attempt, step.action, given, ctx, *handle)
        try:
            return Succeeded(self._codec.encode(result, step.output_type))
        except (UnrecordableError, InvalidInputError) as error:
            # The effect happened; only its result is lost. Running it again cannot help.
            return InDoubt(failure_of(error, permanent=True))

    async def _invoke(
        self,
        attempt: Attempt,
        fn: Callable[..., Any],
        given: object,
        ctx: WorkflowContext,
        *handle: object,
    ) -> Any:
        """Await an async function; run a plain one in a thread, where it cannot block the loop."""
        if inspect.iscoroutinefunction(fn):
            attempt.begin()
            return await fn(given, ctx, *handle)
        call = partial(contextvars.copy_context().run, fn, given, ctx, *handle)
        thread: asyncio.Future[Any] | None = None
        try:
            async with self._places:
                attempt.begin()
                thread = asyncio.get_running_loop().run_in_executor(self._threads, call)
                result = await asyncio.shield(thread)
        except asyncio.CancelledError:
            if thread is not None:
                # A thread cannot be called away: until it ends it counts among the abandoned.
                await asyncio.wait({thread})
            raise
        return await result if inspect.isawaitable(result) else result

    def _answer(self, step: Step[Any, Any], answer: object) -> Outcome:
        match answer:
            case Happened(output):
                return Answered("happened", self._codec.encode(output, step.output_type))
            case NotHappened():
                return Answered("not_happened")
            case Unknown():
                return Answered("unknown")
            case _:
                what = f"the probe of {step.name} gave {answer!r}"
                raise TypeError(f"{what}; it gives Happened(output), NotHappened() or Unknown()")

    def _context(
        self,
        path: str,
        attempt: int,
        outputs: Mapping[str, Json],
        subject: Subject,
        under_way: Attempt | None = None,
    ) -> WorkflowContext:
        codec, saga = self._codec, subject.saga

        def read_input() -> Any:
            return codec.decode(subject.input, saga.input_type)

        def read_output(step: Step[Any, Any]) -> Any:
            if step.name not in outputs:
                raise LookupError(f"step {step.name!r} has no recorded output in this saga yet")
            return codec.decode(outputs[step.name], step.output_type)

        surroundings = Surroundings(self._resources, self._clock.now, read_input, read_output)
        if under_way is not None:
            surroundings = replace(
                surroundings, heartbeat=under_way.beat, spend=under_way.costs.append
            )
        return WorkflowContext(
            **subject.context,
            saga_id=subject.saga_id,
            saga_name=saga.name,
            saga_version=saga.version,
            attempt=attempt,
            idempotency_key=_key(subject, path),
            surroundings=surroundings,
        )


def _silence(command: Attemptable) -> float:
    """Seconds without a heartbeat after which an attempt is over."""
    heartbeat = command.step.heartbeat if isinstance(command, RunStep) else None
    return math.inf if heartbeat is None else heartbeat.total_seconds()


def _key(subject: Subject, path: str) -> str:
    return f"{subject.saga_id}/{path}"


def _too_late() -> Failure:
    return failure_of(TimeoutError("its time was over before it could be called again"))


def due_in(when: datetime | None, now: datetime) -> float | None:
    """Seconds until *when*, never negative; None for never."""
    return None if when is None else max((when - now).total_seconds(), 0.0)
