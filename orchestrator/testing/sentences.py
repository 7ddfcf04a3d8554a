"""Sentences about a saga: given(saga).when_step_fails("ship").then_undoes("pay").ends("compensated")."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Generic, TypeVar

from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import Signal
from orchestrator.runtime.engine import definitions
from orchestrator.testing.fakes import Fakes, copied
from orchestrator.testing.journal import ByStep, Named, name_of
from orchestrator.testing.names import check_names
from orchestrator.testing.outcome import Outcome
from orchestrator.testing.script import ALWAYS
from orchestrator.testing.simulated import Simulated
from orchestrator.testing.simulator import Simulator
from orchestrator.testing.values import value_of

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

_MADE_UP: Any = object()

Place = Named | Collection[Named]
"""A step, or several that may come in any order."""


def given(
    saga: Saga[In, Out],
    input: In = _MADE_UP,
    *,
    stubs: ByStep[Any] | None = None,
    resources: Fakes | None = None,
    auto: bool = False,
    seed: int = 0,
) -> Given[Out]:
    """A new instance of *saga*; without an input it gets one that is made up from its type.

    *stubs* are values or functions for steps, *resources* the fakes that the other steps use;
    with *auto*, all other steps give made-up values.
    """
    sim = Simulator(seed, auto=auto, resources=copied(resources))
    said = Given(sim, saga, value_of(saga.input_type) if input is _MADE_UP else input)
    for step, stub in (stubs or {}).items():
        name = said.known(step)
        sim.stub(name, with_=stub) if callable(stub) else sim.stub(name, returns=stub)
    return said


class Given(Generic[Out]):
    """What is said of one instance. It begins with the first thing that happens, or is looked at.

    Every `when` comes true in the order in which it is said; every `then` and `ends` lets time
    pass until nothing more can happen, but for `then_waits_for`, which looks at this instant.
    """

    def __init__(self, sim: Simulator, saga: Saga[Any, Out], input: Any) -> None:
        self.sim = sim
        self._saga = saga
        self._input = input
        self._instance: Simulated[Out] | None = None

    def known(self, step: Named) -> str:
        """The name of a step of this saga. SimulationError, with the nearest, for any other."""
        if isinstance(step, str):
            check_names([step], [self._saga, *self._children()])
        return name_of(step)

    def _children(self) -> Collection[Saga[Any, Any]]:
        return definitions([self._saga]).values()

    @property
    def instance(self) -> Simulated[Out]:
        """The instance, begun."""
        if self._instance is None:
            self._instance = self.sim.start(self._saga, self._input)
        return self._instance

    @property
    def outcome(self) -> Outcome[Out]:
        """What came of it, once nothing more can happen."""
        return self.instance.finish()

    # ------------------------------------------------------------------ when

    def when_step_fails(
        self,
        step: Named,
        error: BaseException | type[BaseException] | None = None,
        *,
        times: int = ALWAYS,
    ) -> Given[Out]:
        """The step raises *error* (`Permanent`), and has done nothing."""
        self.sim.fail(self.known(step), error, times)
        return self

    def when_step_doubts(self, step: Named, *, times: int = 1, happened: bool = True) -> Given[Out]:
        """The answer of the step is lost; *happened* says whether it took effect."""
        self.sim.doubt(self.known(step), times, happened=happened)
        return self

    def when_compensation_fails(
        self,
        step: Named,
        error: BaseException | type[BaseException] | None = None,
        *,
        times: int = 1,
    ) -> Given[Out]:
        """The undo of the step raises *error*."""
        self.sim.fail_compensation(self.known(step), error, times)
        return self

    def when_it_crashes_after(self, step: Named) -> Given[Out]:
        """The process dies when the step was done, before anybody heard of it."""
        self.sim.crash_after(self.known(step))
        return self

    def when_signal(self, signal: Signal[T], payload: T) -> Given[Out]:
        """A signal is sent now."""
        self.instance.signal(signal, payload)
        return self

    def when_cancelled(self, reason: str = "", *, during: Named | None = None) -> Given[Out]:
        """Somebody asks to take it back: now, or while the step *during* is called."""
        if during is None:
            self.instance.cancel(reason)
        else:
            self.sim.when(self.known(during), lambda: self.instance.cancel(reason))
        return self

    def when_time_passes(self, by: timedelta | float) -> Given[Out]:
        """Time passes, and what is due in it happens."""
        _ = self.instance
        self.sim.advance(by)
        return self

    # ------------------------------------------------------------------ then

    def then_runs(self, *steps: Place) -> Given[Out]:
        """These steps were called, in this order, and no others; a retry is not told again."""
        out = self.outcome
        called = dict.fromkeys(c.step for c in self.sim.journal.calls if c.kind == "step")
        _expect("it runs", steps, tuple(called), out)
        return self

    def then_undoes(self, *steps: Place) -> Given[Out]:
        """These steps were undone, in this order, and no others."""
        out = self.outcome
        _expect("it undoes", steps, out.compensated, out)
        return self

    def then_returns(self, result: Out) -> Given[Out]:
        """It has completed, with this result."""
        out = self.outcome
        if out.result != result:
            raise AssertionError(f"it returns {out.result!r}, not {result!r}\n\n{out}")
        return self

    def then_waits_for(self, signal: Signal[Any] | str) -> Given[Out]:
        """At this instant, it waits for this signal."""
        name = signal if isinstance(signal, str) else signal.name
        out = self.instance.outcome
        if name not in out.waits_for:
            waits = ", ".join(out.waits_for) or "no signal"
            raise AssertionError(f"it waits for {waits}, not for {name}\n\n{out}")
        return self

    def ends(self, status: str, because: str = "") -> Given[Out]:
        """It comes to rest in *status*; *because* is part of the reason that is recorded."""
        out = self.outcome
        if out.status != status:
            raise AssertionError(f"it is {out.status}, not {status}\n\n{out}")
        if because not in out.reason:
            raise AssertionError(f"the reason is {out.reason!r}, not {because!r}\n\n{out}")
        return self

    def __repr__(self) -> str:
        return repr(self._instance) if self._instance else f"given {self._saga.name}, not begun"


def _expect(what: str, wanted: tuple[Place, ...], found: tuple[str, ...], out: object) -> None:
    """Names in order; several in one place may come in any order."""
    rest = list(found)
    for place in wanted:
        names = {name_of(name) for name in _steps(place)}
        head, rest = rest[: len(names)], rest[len(names) :]
        if set(head) != names:
            rest = ["?"]
            break
    if rest:
        told = ", ".join(_said(place) for place in wanted) or "nothing"
        raise AssertionError(f"{what} {', '.join(found) or 'nothing'}; not {told}\n\n{out}")


def _steps(place: Place) -> Collection[Named]:
    return [place] if isinstance(place, str | Step) else place


def _said(place: Place) -> str:
    names = ", ".join(sorted(name_of(name) for name in _steps(place)))
    return names if isinstance(place, str | Step) else f"{{{names}}}"
