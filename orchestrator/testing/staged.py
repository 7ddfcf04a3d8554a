"""The executor of a simulated process: users' functions are called on the stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from orchestrator.domain.commands import Command, RunCompensation, RunProbe, RunStep
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.steps import Attempted, Completed
from orchestrator.ports import Append, Codec, Store, Transaction, Transactions
from orchestrator.runtime.attempts import Attempt, Report
from orchestrator.runtime.executor import Executor, Subject
from orchestrator.runtime.remote import remote_of
from orchestrator.testing.inside import Inside
from orchestrator.testing.journal import Call, Kind
from orchestrator.testing.mortality import Life
from orchestrator.testing.script import Stub, called
from orchestrator.testing.silence import SilentTelemetry
from orchestrator.testing.stage import Stage
from orchestrator.testing.virtual_time import SimulationError, VirtualLoop

STEP_TIMEOUT = timedelta(minutes=10)
"""What a worker grants a step that names no time-out of its own, by default."""

ANNOUNCE_AFTER = 0.2
"""Seconds after which it is recorded that a step is still running."""


class StagedExecutor(Executor):
    """The executor of one process: the same but that users' functions are called on the stage."""

    def __init__(
        self,
        stage: Stage,
        life: Life,
        codec: Codec,
        store: Store,
        announce: Callable[[], None],
    ) -> None:
        resources = Resources(stage.loop, stage.resources)
        super().__init__(codec, store, resources, SilentTelemetry(), STEP_TIMEOUT)
        self._stage = stage
        self._life = life
        self._announce = announce
        self._timers: dict[Attempt, asyncio.TimerHandle] = {}

    def watch(self, attempt: Attempt, limit: float) -> None:
        """A timer for each: there are few, and time passes in leaps."""
        timer = asyncio.get_running_loop().call_later(limit, attempt.expire)
        self._timers[attempt] = timer

    def forget(self, attempt: Attempt) -> None:
        timer = self._timers.pop(attempt, None)
        if timer is not None:
            timer.cancel()

    def start(self, command: Command, subject: Subject, report: Report) -> Attempt:
        match command:
            case RunStep() | RunCompensation() | RunProbe() if remote_of(command) is not None:
                # Its participant plays, once the command is in the log.
                self._stage.steps[command.step.name] = command.step
            case RunStep(step=step):
                played = replace(
                    step, action=self._on_stage("step", command, subject, step.action), executor=""
                )
                command = replace(command, step=played)
                self._stage.loop.call_later(ANNOUNCE_AFTER, self._announce)
            case RunCompensation(undo=undo):
                action = self._on_stage("undo", command, subject, undo.action)
                command = replace(command, undo=replace(undo, action=action))
            case RunProbe(probe=probe):
                action = self._on_stage("probe", command, subject, probe.action)
                command = replace(command, probe=replace(probe, action=action))
            case _:
                pass  # what calls no function of the user's
        return super().start(command, subject, report)

    def _on_stage(
        self,
        kind: Kind,
        command: RunStep | RunCompensation | RunProbe,
        subject: Subject,
        own: Callable[..., Any],
    ) -> Callable[..., Any]:
        stage, life, step = self._stage, self._life, command.step

        async def action(given: Any, ctx: WorkflowContext, *handle: object) -> Any:
            value = given.input if isinstance(given, Completed | Attempted) else given
            call = Call(
                step.name, kind, subject.saga_id, command.path, command.attempt,
                ctx.idempotency_key, value, stage.loop.now(), life.number,
            )  # fmt: skip

            async def act(stub: Stub | None, inside: Inside | None) -> Any:
                if stub is None:
                    call_own = called if inside is None else inside.call
                    return await call_own(own, given, ctx, *handle)
                await asyncio.sleep(stub.takes.total_seconds())
                return await called(stub.answer, given, ctx)

            try:
                return await stage.perform(life, call, step, act)
            except SimulationError as error:
                raise stage.loop.refuse(error) from error

        return action


class Resources(dict[type, Any]):
    """What `ctx.use` finds. What is missing is the test's fault, not a failure of the step."""

    def __init__(self, loop: VirtualLoop, given: Mapping[type, Any]) -> None:
        super().__init__(given)
        self._loop = loop

    def __missing__(self, kind: type) -> Any:
        name, known = kind.__name__, ", ".join(k.__name__ for k in self) or "none"
        raise self._loop.refuse(
            SimulationError(
                f"a step uses {name}, which this simulator does not have (it has: {known}); give "
                f"it one: sim.resources[{name}] = ..., or stub the step: sim.stub(step, returns=...), "
                "or all of them: auto=True"
            )
        )


@dataclass(slots=True)
class StagedTransaction:
    """A transaction whose step counts as done once it is committed."""

    inner: Transaction
    handle: Any
    commits: Callable[[], None] | None = None

    async def append(self, append: Append) -> int:
        written = await self.inner.append(append)
        if self.commits is not None:
            self.commits()
        return written


@dataclass(frozen=True, slots=True)
class StagedTransactions:
    """Transactions whose handle is a resource of the simulation, or None where there is none."""

    inner: Transactions
    stage: Stage

    def open(self, wanted: Any) -> AbstractAsyncContextManager[Transaction]:
        return self._open(wanted)

    @asynccontextmanager
    async def _open(self, wanted: Any) -> AsyncIterator[StagedTransaction]:
        async with self.inner.open(wanted) as inner:
            handle = self.stage.resources.get(wanted)
            transaction = StagedTransaction(inner, handle)
            self.stage.transactions[asyncio.current_task()] = transaction
            yield transaction
