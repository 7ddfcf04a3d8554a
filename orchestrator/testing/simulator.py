"""`Simulator`: the real machinery over a store in memory, in virtual time, at a test's command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import SagaCompleted, Status
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import Signal
from orchestrator.runtime.service import Orchestrator
from orchestrator.testing.arrivals import Chooser
from orchestrator.testing.choices import Chance, Path, Topic
from orchestrator.testing.directing import Director, as_span
from orchestrator.testing.fakes import copied
from orchestrator.testing.journal import Call, Journal, Kind, Named
from orchestrator.testing.names import check_names
from orchestrator.testing.outcome import Outcome
from orchestrator.testing.script import Script
from orchestrator.testing.simulated import Simulated
from orchestrator.testing.snapshot import Snapshot
from orchestrator.testing.virtual_time import START
from orchestrator.testing.world import World, at_once

if TYPE_CHECKING:
    from orchestrator.testing.crashes import CrashPoints

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

BOUND = 2_000
"""How many runs a search for crash points makes, unless told otherwise."""


class Simulator(Director):
    """Runs sagas on the real engine, in memory and in virtual time. Same seed, same run.

    The user's own functions are called, with what `resources` holds, unless a step is stubbed;
    with *auto*, every other step is stubbed by a value made from its output's type. Only `run` is
    awaited (`run_sync` is not); everything else happens where it is called, and no time passes
    but by `run`, `finish` and `advance`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        auto: bool = False,
        resources: Mapping[type, Any] | None = None,
        chooser: Chooser | None = None,
    ) -> None:
        self.seed = seed
        self.resources: dict[type, Any] = dict(resources or {})
        super().__init__(Script(auto))
        self._world = World(chooser or Chance(seed), self._script, self.resources)

    # ------------------------------------------------------------------ running

    async def run(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        key: str | None = None,
        context: WorkflowContext | None = None,
    ) -> Outcome[Out]:
        """Start *saga* and let time pass until it has ended, is stuck, or only you can go on."""
        return self.run_sync(saga, input, key=key, context=context)

    def run_sync(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        key: str | None = None,
        context: WorkflowContext | None = None,
    ) -> Outcome[Out]:
        """As `run`, for tests that are not async."""
        return self.finish(self._request(saga, input, key, context))

    def start(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        key: str | None = None,
        context: WorkflowContext | None = None,
    ) -> Simulated[Out]:
        """Start *saga* and let it come as far as it can at this instant."""
        started = self._request(saga, input, key, context)
        self._world.drive()
        return started

    def _request(
        self,
        saga: Saga[In, Out],
        input: In,
        key: str | None,
        context: WorkflowContext | None,
    ) -> Simulated[Out]:
        self._world.know(saga)
        check_names(self._spelled, self._world.sagas.values())
        start = self._world.service.start(saga, input, key=key, context=context)
        return Simulated(self, self._world.call(start), saga)

    def finish(self, instance: Simulated[Out]) -> Outcome[Out]:
        """Let time pass until *instance* has ended, is stuck, or waits for what only you can send."""
        saga_id = instance.saga_id
        self._world.drive(lambda: self._world.is_at_rest(saga_id), span=None)
        return self.outcome(instance)

    def advance(self, by: timedelta | float) -> None:
        """Let time pass, and happen what is due in it."""
        self._world.drive(span=as_span(by))

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return self._world.loop.now()

    @property
    def elapsed(self) -> timedelta:
        """The virtual time since the simulation began."""
        return self.now - START

    # ------------------------------------------------------------------ from outside

    def signal(
        self,
        to: Simulated[Any] | str,
        signal: Signal[T] | str,
        payload: T,
        *,
        dedupe_key: str | None = None,
    ) -> bool:
        """Send a signal, as the service does; False when its dedupe key came before."""
        send = self.orchestrator.signal(_id_of(to), signal, payload, dedupe_key=dedupe_key)
        return self._act(send)

    def cancel(self, to: Simulated[Any] | str, reason: str = "") -> None:
        """Ask for an instance to be taken back."""
        self._act(self.orchestrator.cancel(_id_of(to), reason))

    def act(self, work: Awaitable[T]) -> T:
        """Do with the service what an operator does: `sim.act(sim.orchestrator.resume(id))`."""
        return self._act(work)

    def _act(self, work: Awaitable[T]) -> T:
        async def acted() -> T:
            return await work

        if self._world.is_moving:
            return at_once(acted())
        answer = self._world.call(acted())
        self._world.drive()
        return answer

    def crash(self) -> None:
        """The process dies where it stands; the next one begins a second later."""
        self._world.crash()

    def crash_points(
        self, saga: Saga[In, Any], input: In, *, bound: int = BOUND, troubles: bool = False
    ) -> CrashPoints:
        """A copy of this simulator for each moment at which the process can die, and each order.

        For tests with assertions of their own; `for` and `async for` both do:
        `async for crashed in sim.crash_points(saga, input): out = await crashed.run(saga, input)`.
        With *troubles*, each step is also refused once, and each answer lost once.
        """
        from orchestrator.testing.crashes import CrashPoints

        topics: set[Topic] = {"death", "trouble"} if troubles else {"death"}
        return CrashPoints(lambda path: self._copy(path, frozenset(topics)), bound)

    def _copy(self, path: Path, topics: frozenset[Topic]) -> Simulator:
        """A simulator of the same kind that has seen nothing yet."""
        sim = Simulator(self.seed, resources=copied(self.resources), chooser=path)
        sim._script.take_over(self._script)
        sim.explore(topics)
        return sim

    def explore(
        self, topics: frozenset[Topic], watch: Callable[[], Snapshot] | None = None
    ) -> None:
        """Let the chooser decide on deaths and troubles too; *watch* says how the fakes stand."""
        stage = self._world.stage
        stage.exploring, stage.watch = topics, watch

    @property
    def point(self) -> str:
        """Where the process of this simulator died, in words; empty when it did not."""
        return "; ".join(self._world.stage.deaths)

    @property
    def orchestrator(self) -> Orchestrator:
        """The service of this world; its calls go through `act`."""
        return self._world.service

    # ------------------------------------------------------------------ looking

    def outcome(self, of: Simulated[Out]) -> Outcome[Out]:
        """Where an instance stands, and how it came there."""
        return self._world.call(self._look(of))

    async def _look(self, of: Simulated[Out]) -> Outcome[Out]:
        service = self._world.service
        instance = await service.get(of.saga_id)
        events = tuple([entry async for entry in service.history(of.saga_id)])
        value = None
        if instance.status is Status.COMPLETED and isinstance(events[-1].event, SagaCompleted):
            value = await service.result_of(of.saga_id, instance.status, of.saga)
        return Outcome(
            of.saga_id, instance.name, instance.version, str(instance.status), events,
            self._world.journal, value,
        )  # fmt: skip

    def effects(self, step: Named, kind: Kind = "step") -> int:
        """How often the step's effect was applied, as one who honours the key would count."""
        return self._world.journal.effects(step, kind)

    def calls(self, step: Named, kind: Kind = "step") -> tuple[Call, ...]:
        """The calls of the step: input, key, attempt, answer."""
        return self._world.journal.of(step, kind)

    @property
    def journal(self) -> Journal:
        """All calls of steps, undos and probes."""
        return self._world.journal

    @property
    def steps_seen(self) -> dict[str, Step[Any, Any]]:
        """The steps that were called, by name."""
        return self._world.stage.steps

    @property
    def trace(self) -> tuple[str, ...]:
        """Everything that happened, in order, as text: the same for the same seed."""
        return tuple(self._world.stage.trace)

    def close(self) -> None:
        """End the simulation. Optional: it holds nothing but memory."""
        self._world.close()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_world"):
            self._world.close()


def _id_of(instance: Simulated[Any] | str) -> str:
    return instance if isinstance(instance, str) else instance.saga_id
