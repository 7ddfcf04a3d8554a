"""A world that a test holds in its hand: one store in memory, one loop, one process after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import MemoryDatabase
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.ids import child_id
from orchestrator.domain.saga import Saga
from orchestrator.ports import Definition, StartRequest, Store
from orchestrator.runtime.engine import definitions
from orchestrator.runtime.service import Orchestrator
from orchestrator.testing.arrivals import Arrivals, Chooser
from orchestrator.testing.far import Participants
from orchestrator.testing.journal import Journal
from orchestrator.testing.mortality import Life, Registry
from orchestrator.testing.process import Process
from orchestrator.testing.script import Script
from orchestrator.testing.silence import SilentTelemetry
from orchestrator.testing.stage import Stage
from orchestrator.testing.staged import Resources
from orchestrator.testing.virtual_time import SimulationError, VirtualLoop

T = TypeVar("T")

AWAY = timedelta(seconds=1)
"""How long after a death the next process begins."""


class SimulatedOrchestrator(Orchestrator):
    """The service, with ids that are the same in every run."""

    def __init__(self, store: Store, codec: JsonCodec) -> None:
        super().__init__(store, codec, SilentTelemetry())
        self._begun = 0

    def request(
        self,
        saga: Saga[Any, Any],
        input: Any,
        *,
        key: str | None = None,
        context: WorkflowContext | None = None,
    ) -> StartRequest:
        self._begun += 1
        saga_id = child_id(f"{saga.name}/{self._begun}", self.store.clock.now())
        given = context or WorkflowContext()
        given = replace(given, correlation_id=given.correlation_id or saga_id)
        return replace(super().request(saga, input, key=key, context=given), saga_id=saga_id)


class World:
    """Everything that one simulation is made of, and the only hand that moves it."""

    def __init__(self, chooser: Chooser, script: Script, resources: dict[type, Any]) -> None:
        self.loop = VirtualLoop()
        self._registry = Registry(self.loop)
        self.database = MemoryDatabase(self.loop)
        self.codec = JsonCodec()
        self.service = SimulatedOrchestrator(self.database.store(), self.codec)
        self.sagas: dict[Definition, Saga[Any, Any]] = self.service.sagas
        self.journal = Journal()
        self.arrivals = Arrivals(self.loop, chooser)
        self.stage = Stage(
            self.loop, script, self.journal, chooser, self.arrivals, resources,
            pivoted=self._pivoted,
        )  # fmt: skip
        self.participants = Participants(
            self.stage, self.codec, self.service.take_reply, self._give_up,
            Resources(self.loop, resources),
        )  # fmt: skip
        self.stage.heard = self.participants.hear
        self.lives: list[Life] = []
        self._process: Process | None = None
        self._broken: BaseException | None = None

    # ------------------------------------------------------------------ sagas

    def know(self, saga: Saga[Any, Any]) -> None:
        """Let every process carry *saga* and its children from here on."""
        known = definitions([*{id(s): s for s in self.sagas.values()}.values(), saga])
        self.sagas.update(known)

    def _pivoted(self, saga_id: str) -> bool:
        """Whether an instance, or one that it belongs to, has passed its point of no return."""
        running = self._process.engine.running if self._process is not None else {}
        while saga_id:
            run = running.get(saga_id)
            if saga_id in self.stage.pivots or (run is not None and run.state.pivoted):
                return True
            saga_id = self.stage.parents.get(saga_id, "")
        return False

    # ------------------------------------------------------------------ moving

    def drive(
        self, until: Callable[[], bool] = lambda: False, span: timedelta | None = timedelta(0)
    ) -> bool:
        """Let the world go on for *span* (None: until nothing is left to happen)."""
        if not self.lives:
            self._begin_life()
        try:
            reached = self.loop.drive(
                released=self._released,
                until=lambda: self._broken is not None or until(),
                span=span,
            )
        finally:
            broken, self._broken = self._broken, None
        if broken is not None:
            raise broken
        return reached

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* in this world, from outside of its processes; no time passes."""
        task = self.loop.create_task(work)
        self.loop.drive(released=lambda: False, until=task.done)
        return task.result()

    @property
    def is_moving(self) -> bool:
        """Whether this is asked from inside, by a step or something that it calls."""
        return self.loop.is_running()

    def is_at_rest(self, saga_id: str) -> bool:
        """Whether an instance has come to its end, or to where a person is needed."""
        row = at_once(self.service.store.reads.get(saga_id))
        return row is not None and (row.status in ENDED or row.status is Status.STUCK)

    def _released(self) -> bool:
        # A death is noticed once nothing moves any more: in a dead process nothing does.
        if self._process is not None and self._process.life.dead:
            self._mourn()
            return True
        return self.arrivals.release()

    # ------------------------------------------------------------------ life and death

    def crash(self) -> None:
        """The process dies where it stands; the next one begins a moment later."""
        if not self.lives:
            self._begin_life()
        self.lives[-1].dead = True
        self.stage.deaths.append("whatever it was doing")

    def _mourn(self) -> None:
        self.database.vanish(self.lives[-1].owner)
        self._process = None
        self.loop.call_later(AWAY.total_seconds(), self._begin_life)

    def _begin_life(self) -> None:
        life = Life(len(self.lives) + 1, self.loop)
        self.lives.append(life)
        self._process = Process(
            life, self.loop, self.database, self.codec, self.stage, self.sagas, self._give_up
        )
        self._registry.begin(life, self._process.work()).add_done_callback(self._noticed)

    def _noticed(self, task: asyncio.Task[None]) -> None:
        """A process works until it dies; one that broke down is the kit's fault, not the saga's."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self.loop.stop()

    def close(self) -> None:
        """End it all; what hangs in the air is let go of."""
        if self.loop.is_closed():
            return
        self.loop.set_exception_handler(lambda loop, context: None)
        for life in self.lives:
            life.bury()
        self.loop.close()


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what does not have to wait: the store in memory answers at once."""
    try:
        work.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    work.close()
    raise SimulationError("from inside of a running simulation only messages can be sent")
