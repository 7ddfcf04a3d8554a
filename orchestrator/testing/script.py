"""How a simulated world behaves: what is stubbed, what fails, what leaves nobody the wiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from orchestrator.domain.steps import Attempted, Happened, NotHappened, Step
from orchestrator.testing.journal import Call, Journal, Kind
from orchestrator.testing.values import value_of
from orchestrator.testing.virtual_time import SimulationError

ALWAYS = 1_000_000
"""More times than anything is tried."""

Answer = Callable[..., Any]


@dataclass(slots=True)
class Trouble:
    """Something that goes wrong `times` times: an error, or an answer that is lost."""

    times: int
    error: BaseException | type[BaseException] | None = None
    happened: bool = True

    def raised(self) -> BaseException:
        """The error itself."""
        error = self.error
        if error is None:
            raise TypeError("a lost answer has no error of its own")
        return error() if isinstance(error, type) else error.with_traceback(None)


@dataclass(frozen=True, slots=True)
class Stub:
    """What stands in for a step: its undo and its probe are answered from the journal."""

    answer: Answer
    takes: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class CrashAt:
    """A moment of a step at which the process dies."""

    moment: Literal["before", "middle"]
    kind: Kind


@dataclass(slots=True)
class Script:
    """What was said about the steps, by name."""

    auto: bool = False
    stubs: dict[str, Stub] = field(default_factory=dict)
    troubles: dict[tuple[str, Kind], list[Trouble]] = field(default_factory=dict)
    crashes: dict[str, list[CrashAt]] = field(default_factory=dict)
    begun: dict[str, list[Callable[[], object]]] = field(default_factory=dict)

    def take_over(self, other: Script) -> None:
        """Say here what is said there, as far as it has not happened yet."""
        self.auto = other.auto
        self.stubs = dict(other.stubs)
        self.troubles = {
            place: [replace(trouble) for trouble in line] for place, line in other.troubles.items()
        }
        self.crashes = {name: list(line) for name, line in other.crashes.items()}

    def stub(self, name: str, answer: Answer, takes: timedelta) -> None:
        self.stubs[name] = Stub(answer, takes)

    def trouble(self, name: str, kind: Kind, trouble: Trouble) -> None:
        """Let it happen after what was asked for before."""
        self.troubles.setdefault((name, kind), []).append(trouble)

    def next_trouble(self, call: Call) -> Trouble | None:
        """What goes wrong with this call, if anything; it counts as having happened."""
        line = self.troubles.get((call.step, call.kind), [])
        while line and line[0].times <= 0:
            line.pop(0)
        if not line:
            return None
        line[0].times -= 1
        return line[0]

    def crashes_at(self, call: Call, moment: str) -> bool:
        """Whether the process is to die here. It dies once for each time that it was asked for."""
        line = self.crashes.get(call.step, [])
        for crash in line:
            if (crash.moment, crash.kind) == (moment, call.kind):
                line.remove(crash)
                return True
        return False

    def stand_in(self, step: Step[Any, Any], kind: Kind, journal: Journal) -> Stub | None:
        """What is called instead of the user's function; None to call that."""
        stub = self.stubs.get(step.name)
        if stub is None and self.auto and kind == "step":
            self.stub(step.name, constant(_made(step)), timedelta(0))
            stub = self.stubs[step.name]
        if stub is None or kind == "step":
            return stub
        return Stub(_nothing if kind == "undo" else _probe_from(journal, step.name))


def constant(value: Any) -> Answer:
    """A function that always gives *value*."""

    def answer(given: object, ctx: object) -> Any:
        return value

    return answer


def _made(step: Step[Any, Any]) -> Any:
    try:
        return value_of(step.output_type)
    except SimulationError as error:
        raise SimulationError(
            f"no output can be made up for {step.name}: {error}; say which: "
            f"sim.stub({step.name}, returns=...)"
        ) from error


def _nothing(done: object, ctx: object) -> None:
    """The undo of a step that was stubbed: what was not really done is not really undone."""


def _probe_from(journal: Journal, name: str) -> Answer:
    def probe(tried: Attempted[Any, Any], ctx: object) -> Happened[Any] | NotHappened:
        for call in journal.of(name):
            if call.applied and call.key == tried.key:
                return Happened(call.output)
        return NotHappened()

    return probe


async def called(fn: Answer, *given: object) -> Any:
    """What *fn* gives, async or not; a plain function runs here and now, not in a thread."""
    result = fn(*given)
    return await result if inspect.isawaitable(result) else result
