"""Run one command: call the user's function, bound it, and say what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from orchestrator.domain.commands import (
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    RunCompensation,
    RunStep,
    Succeeded,
)
from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.events import Failure, Json
from orchestrator.domain.outcomes import failure_of, outcome_of
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Attempted, Completed, Step
from orchestrator.errors import InvalidInputError, UnrecordableError
from orchestrator.ports import Clock, Codec, Telemetry

log = logging.getLogger(__name__)

_TICK = 0.1
_EXACT_BELOW = 2.0
"""Limits below this many seconds have a timer of their own."""

Report = Callable[[Command, Outcome], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """The instance that a command belongs to."""

    saga_id: str
    saga: Saga[Any, Any]
    input: Json
    context: Mapping[str, Any]


class Executor:
    """Calls actions. Holds no state of any saga, only what is running at this moment."""

    def __init__(
        self,
        codec: Codec,
        clock: Clock,
        resources: Mapping[type, object],
        telemetry: Telemetry,
        step_timeout: timedelta,
    ) -> None:
        self._codec = codec
        self._clock = clock
        self._resources = resources
        self._telemetry = telemetry
        self._step_timeout = step_timeout
        self.abandoned: set[asyncio.Task[Outcome]] = set()
        self._watched: dict[Attempt, float] = {}
        self._ticking = False

    def start(self, command: Command, subject: Subject, report: Report) -> Attempt:
        """Begin *command*; *report* hears its outcome once, at the latest when it times out."""
        attempt = Attempt(self, command, report)
        if isinstance(command, Compute):
            attempt.settle(self._compute(command))
            return attempt
        limit = self._limit(command)
        if limit is not None and limit <= 0:
            attempt.settle(InDoubt(_too_late()))
            return attempt
        attempt.run(self._attempt(command, subject), limit, f"{subject.saga_id}{command.path}")
        return attempt

    def watch(self, attempt: Attempt, limit: float) -> None:
        """Expire *attempt* after *limit* seconds, or up to a tenth of a second later.

        Hundreds of steps that end at once would else each push a timer and cancel it again.
        """
        loop = asyncio.get_running_loop()
        self._watched[attempt] = loop.time() + limit
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick)

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

    def _limit(self, command: RunStep | RunCompensation) -> float | None:
        """Seconds that this attempt may take; None for no limit."""
        if isinstance(command, RunCompensation):
            return (command.undo.timeout or self._step_timeout).total_seconds()
        own = command.timeout
        if own is None and not command.step.unbounded:
            own = self._step_timeout
        if command.deadline is None:
            return None if own is None else own.total_seconds()
        left = command.deadline - self._clock.now()
        return (left if own is None else min(own, left)).total_seconds()

    def _compute(self, command: Compute) -> Outcome:
        node = command.node
        try:
            value = node.fn(self._codec.decode(command.input, node.input_type))
            return Succeeded(self._codec.encode(value, node.output_type))
        except Exception as error:  # noqa: BLE001 - user code; its failure is an outcome
            return Failed(failure_of(error, permanent=True))

    async def _attempt(self, command: RunStep | RunCompensation, subject: Subject) -> Outcome:
        began = asyncio.get_running_loop().time()
        step = command.step
        try:
            outcome = await self._call(command, subject)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            outcome = outcome_of(error, step)
        except BaseException as error:  # noqa: BLE001 - a step that exits must not end the worker
            outcome = outcome_of(error, step)
        took = asyncio.get_running_loop().time() - began
        self._telemetry.attempted(subject.saga.name, step.name, type(outcome).__name__, took)
        return outcome

    async def _call(self, command: RunStep | RunCompensation, subject: Subject) -> Outcome:
        step = command.step
        try:
            given = self._codec.decode(command.input, step.input_type)
        except InvalidInputError as error:
            return Failed(failure_of(error, permanent=True))
        ctx = self._context(command, subject)
        match command:
            case RunStep():
                result = await _invoke(step.action, given, ctx)
                try:
                    return Succeeded(self._codec.encode(result, step.output_type))
                except (UnrecordableError, InvalidInputError) as error:
                    # The effect happened; only its result is lost. Running it again cannot help.
                    return InDoubt(failure_of(error, permanent=True))
            case RunCompensation(output=output, on_doubt=on_doubt):
                value = None if output is None else self._codec.decode(output, step.output_type)
                key = _key(subject, command.path)
                done = Attempted(given, value, key) if on_doubt else Completed(given, value, key)
                await _invoke(command.undo.action, done, ctx)
                return Succeeded()
        assert_never(command)

    def _context(self, command: RunStep | RunCompensation, subject: Subject) -> WorkflowContext:
        codec, saga, outputs = self._codec, subject.saga, command.outputs

        def read_input() -> Any:
            return codec.decode(subject.input, saga.input_type)

        def read_output(step: Step[Any, Any]) -> Any:
            if step.name not in outputs:
                raise LookupError(f"step {step.name!r} has no recorded output in this saga yet")
            return codec.decode(outputs[step.name], step.output_type)

        key = _key(subject, command.path)
        undoes = isinstance(command, RunCompensation)
        return WorkflowContext(
            **subject.context,
            saga_id=subject.saga_id,
            saga_name=saga.name,
            saga_version=saga.version,
            attempt=command.attempt,
            idempotency_key=f"{key}/undo" if undoes else key,
            surroundings=Surroundings(self._resources, self._clock.now, read_input, read_output),
        )


class Attempt:
    """One command under way. It reports once; what outlives its limit is abandoned, not awaited."""

    __slots__ = (
        "_executor",
        "_limit",
        "_report",
        "_timer",
        "announced",
        "command",
        "since",
        "task",
    )

    def __init__(self, executor: Executor, command: Command, report: Report) -> None:
        self._executor = executor
        self._report: Report | None = report
        self._timer: asyncio.TimerHandle | None = None
        self._limit = 0.0
        self.command = command
        self.task: asyncio.Task[Outcome] | None = None
        self.since = 0.0
        self.announced = False

    def run(self, call: Coroutine[Any, Any, Outcome], limit: float | None, name: str) -> None:
        """Run *call* as a task of its own for at most *limit* seconds."""
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        # A fresh context: what one step sets must not be seen by the next.
        self.task = loop.create_task(call, name=name, context=contextvars.Context())
        self.task.add_done_callback(self._done)
        if limit is None:
            return
        self._limit = limit
        if limit < _EXACT_BELOW:
            self._timer = loop.call_later(limit, self.expire)
        else:
            self._executor.watch(self, limit)

    def settle(self, outcome: Outcome) -> None:
        """Report *outcome*, unless something was reported before."""
        report, self._report = self._report, None
        if report is not None:
            report(self.command, outcome)

    def drop(self) -> None:
        """Stop caring: nothing is reported any more, and what runs is told to end."""
        self._report = None
        self._leave()

    def expire(self) -> None:
        """Its time is over: whether it happened is not known."""
        self.settle(InDoubt(failure_of(TimeoutError(f"no answer within {self._limit:g} s"))))
        self._leave()

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        elif self._limit:
            self._executor.forget(self)

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        self._unwatch()
        if task.cancelled():
            self.settle(InDoubt(Failure("CancelledError", "cut off from outside")))
        elif (error := task.exception()) is not None:
            self.settle(outcome_of(error))
        else:
            self.settle(task.result())

    def _leave(self) -> None:
        """Cancel without waiting: a step may swallow the cancellation and never end."""
        self._unwatch()
        task = self.task
        if task is None or task.done():
            return
        task.cancel()
        abandoned = self._executor.abandoned
        abandoned.add(task)
        task.add_done_callback(abandoned.discard)


async def _invoke(fn: Callable[..., Any], given: object, ctx: WorkflowContext) -> Any:
    """Await an async function; run a plain one in a thread, where it cannot block the loop."""
    if inspect.iscoroutinefunction(fn):
        return await fn(given, ctx)
    result = await asyncio.to_thread(fn, given, ctx)
    return await result if inspect.isawaitable(result) else result


def _key(subject: Subject, path: str) -> str:
    return f"{subject.saga_id}/{path}"


def _too_late() -> Failure:
    return failure_of(TimeoutError("its time was over before it could be called again"))


def due_in(when: datetime | None, now: datetime) -> float | None:
    """Seconds until *when*, never negative; None for never."""
    return None if when is None else max((when - now).total_seconds(), 0.0)
