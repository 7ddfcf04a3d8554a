"""`crash_points`: dies everywhere, goes on from the store alone, and looks whether all is well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.domain.saga import Saga
from orchestrator.domain.waiting import Signal
from orchestrator.errors import TooLateError
from orchestrator.testing.choices import Path, Search, Topic
from orchestrator.testing.fakes import Fakes, copied
from orchestrator.testing.findings import Broken, Told, instances
from orchestrator.testing.journal import ByStep
from orchestrator.testing.laws import broken_laws
from orchestrator.testing.outcome import effects_table, history_table
from orchestrator.testing.reference import End, differs, end_of
from orchestrator.testing.script import ALWAYS
from orchestrator.testing.simulator import BOUND, Simulator
from orchestrator.testing.snapshot import snapshot
from orchestrator.testing.stage import HopelessError
from orchestrator.testing.tables import indented

In = TypeVar("In")


@dataclass(frozen=True, slots=True)
class Report:
    """What was tried: `points` runs with a death, `troubles` with a refusal or a lost answer.

    `orders` is the number of orders in which answers arrived where nothing else happened. `cut`
    says that the bound left runs out, those with the most oddities.
    """

    runs: int
    points: int
    orders: int
    troubles: int
    cut: bool

    def __str__(self) -> str:
        tried = f"{self.points} crash points, {self.orders} orders, {self.troubles} troubles"
        return f"{tried} in {self.runs} runs{', cut by the bound' if self.cut else ''}"


class CrashPointFailed(AssertionError):  # noqa: N818 - it reads as what happened, in a test's report
    """A saga that was neither fully done nor fully undone, or did something twice.

    `only` is the name of the run: `crash_points(..., only=error.only)` runs it alone.
    """

    def __init__(self, text: str, problem: str, only: str) -> None:
        super().__init__(text)
        self.problem = problem
        self.only = only


class CrashPoints:
    """One simulator for each way in which things can go, to be run by whoever iterates."""

    def __init__(self, make: Callable[[Path], Simulator], bound: int = BOUND) -> None:
        self._make = make
        self._search = Search(bound)
        self.path = Path()
        self._runs = self._points = self._orders = self._troubles = 0

    def __iter__(self) -> Iterator[Simulator]:
        for path in self._search:
            with self._make(path) as sim:
                self.path = path
                yield sim
            self._count(path)

    async def __aiter__(self) -> AsyncIterator[Simulator]:
        for sim in self:
            yield sim

    def _count(self, path: Path) -> None:
        deaths, troubles = path.count("death"), path.count("trouble")
        self._runs += 1
        self._points += deaths > 0
        self._troubles += troubles > 0
        self._orders += not (deaths or troubles or path.count("begin"))

    @property
    def report(self) -> Report:
        """What was tried so far."""
        return Report(self._runs, self._points, self._orders, self._troubles, self._search.cut)


def crash_points(
    saga: Saga[In, Any],
    input: In,
    *,
    stubs: ByStep[Any] | None = None,
    resources: Fakes | None = None,
    fails: ByStep[BaseException | type[BaseException]] | None = None,
    signals: Sequence[tuple[Signal[Any], Any]] = (),
    auto: bool = False,
    ignore: Collection[str] = (),
    troubles: bool = True,
    bound: int = BOUND,
    only: str | None = None,
) -> Report:
    """Kill *saga* before and after everything it writes and does; it must come out whole.

    The process dies before and after every append, before every call of a step or an undo, and
    right after it took effect and nobody heard of it, or where it has done one thing and not the
    next; the next process knows the store only. Each step is also refused once and loses its answer
    once (unless *troubles* is False), answers that are ready together arrive in every order, and
    what is side by side begins in the reverse one, up to *bound* runs. In the end the saga must be
    completed or compensated, each effect applied once for each key, each one that does not stand
    undone, repeats without effect, the history equal to the row, and the resources as they are
    when nothing happens, wherever the saga comes to the same end.

    *stubs* gives values or functions for steps, *resources* the fakes that the others use (copied
    for each run, or made by a function); what the steps do to these is watched, attributes named
    in *ignore* left out. *fails* names steps that always fail, *signals* what is sent at the start.
    Raises CrashPointFailed.
    """
    topics: frozenset[Topic] = frozenset({"death", "trouble"} if troubles else {"death"})
    plain: list[End] = []

    def make(path: Path) -> Simulator:
        sim = Simulator(auto=auto, resources=copied(resources), chooser=path)
        for step, stub in (stubs or {}).items():
            sim.stub(step, with_=stub) if callable(stub) else sim.stub(step, returns=stub)
        for step, error in (fails or {}).items():
            sim.fail(step, error, times=ALWAYS)
        sim.explore(topics, lambda: _look_at(sim, ignore))
        return sim

    def run(sim: Simulator, path: Path) -> None:
        instance = sim.start(saga, input)
        for signal, payload in signals:
            with suppress(TooLateError):  # it went back at once, and waits for nothing
                instance.signal(signal, payload)
        with suppress(HopelessError):  # its calls say so
            instance.finish()
        fakes = _look_at(sim, ignore)
        told = sim.act(instances(sim.orchestrator))
        end = end_of(told, fakes)
        if not path.strays:
            plain.append(end)
        found = sim.act(broken_laws(sim.orchestrator, sim.journal, sim.steps_seen, fakes))
        found = found or differs(end, plain[0], path, sim.point)
        if found is not None:
            raise CrashPointFailed(_text(sim, path, found, told), found.problem, path.name)

    if only is not None:
        path = Path.from_name(only)
        for one in (Path(), path):
            with make(one) as sim:
                run(sim, one)
        return Report(1, path.count("death"), 1, path.count("trouble"), cut=False)
    points = CrashPoints(make, bound)
    for sim in points:
        run(sim, points.path)
    return points.report


def _look_at(sim: Simulator, ignore: Collection[str]) -> dict[str, str]:
    return snapshot({kind.__name__: fake for kind, fake in sim.resources.items()}, ignore)


def _text(sim: Simulator, path: Path, found: Broken, told: list[Told]) -> str:
    name = told[0].row.name if told else "the saga"
    facts = [("crash", _deaths(sim)), *((c.topic, c.text) for c in path.strays)]
    lines = [f"{topic.ljust(8)}{text}" for topic, text in facts if topic != "death" and text]
    again = f'alone:  crash_points(..., only="{path.name}")' if path.name else ""
    parts = [
        f"{name}: {found}",
        indented("\n".join([*lines, again]).rstrip()),
        *(_history(one, many=len(told) > 1) for one in told),
        effects_table(sim.journal.calls),
    ]
    return "\n\n".join(part for part in parts if part.strip())


def _deaths(sim: Simulator) -> str:
    return f"the process died {sim.point}" if sim.point else "none: it happens without one"


def _history(told: Told, *, many: bool) -> str:
    title = f"  {told.row.name} is {told.row.status}\n" if many else ""
    return title + history_table(told.events)
