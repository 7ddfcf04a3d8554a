"""How a test says what the steps of a simulation do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.steps import Step
from orchestrator.errors import Permanent
from orchestrator.testing.journal import Kind, Named, name_of
from orchestrator.testing.script import CrashAt, Script, Trouble, constant

A = TypeVar("A")
B = TypeVar("B")

_UNSAID: Any = object()


class Director:
    """What the steps of a simulation do, when they fail, and when their process dies."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._spelled: set[str] = set()

    def stub(
        self,
        step: Step[A, B] | str,
        *,
        returns: B = _UNSAID,
        with_: Callable[[A, WorkflowContext], B | Awaitable[B]] | None = None,
        takes: timedelta | float = 0.0,
    ) -> None:
        """Call this instead of the step: a value, or a function of input and context.

        It takes *takes* seconds. Its undo and its probe are stood in for too.
        """
        if (returns is _UNSAID) == (with_ is None):
            raise TypeError(f"stub({name_of(step)}): give either returns=... or with_=...")
        answer = constant(returns) if with_ is None else with_
        self._script.stub(self._name(step), answer, as_span(takes))

    def fail(
        self, step: Named, error: BaseException | type[BaseException] | None = None, times: int = 1
    ) -> None:
        """Let the next *times* calls of the step raise *error* (`Permanent`), nothing being done."""
        name = self._name(step)
        self._script.trouble(name, "step", Trouble(times, error or Permanent(f"{name} is refused")))

    def doubt(self, step: Named, times: int = 1, *, happened: bool = True) -> None:
        """Lose the answer of the next *times* calls; *happened* says whether they took effect."""
        self._script.trouble(self._name(step), "step", Trouble(times, None, happened))

    def fail_compensation(
        self, step: Named, error: BaseException | type[BaseException] | None = None, times: int = 1
    ) -> None:
        """Let the next *times* attempts to undo the step raise *error*."""
        name = self._name(step)
        error = error or RuntimeError(f"{name} cannot be undone now")
        self._script.trouble(name, "undo", Trouble(times, error))

    def crash_after(self, step: Named, *, kind: Kind = "step", times: int = 1) -> None:
        """Let the process die when the step (or its undo) was done, before anybody heard of it."""
        self._crash(step, "middle", kind, times)

    def crash_before(self, step: Named, *, kind: Kind = "step", times: int = 1) -> None:
        """Let the process die right before the step (or its undo) is called."""
        self._crash(step, "before", kind, times)

    def _crash(
        self, step: Named, moment: Literal["before", "middle"], kind: Kind, times: int
    ) -> None:
        line = self._script.crashes.setdefault(self._name(step), [])
        line.extend([CrashAt(moment, kind)] * times)

    def when(self, step: Named, act: Callable[[], object]) -> None:
        """Do something from outside at the moment when the step is called next: cancel, signal."""
        self._script.begun.setdefault(self._name(step), []).append(act)

    def _name(self, step: Named) -> str:
        if isinstance(step, str):
            self._spelled.add(step)
        return name_of(step)


def as_span(span: timedelta | float) -> timedelta:
    """A number of seconds, or a span, as a span."""
    return span if isinstance(span, timedelta) else timedelta(seconds=span)
