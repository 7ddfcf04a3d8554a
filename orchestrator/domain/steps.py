"""Steps: what has effects, and how it is taken back. Declared by decorators that carry functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, overload

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import A, B, In, Out, Primitive, Seconds, checked_name
from orchestrator.domain.policies import UndoPolicy, seconds
from orchestrator.domain.signatures import read_signature
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Completed(Generic[A, B]):
    """What an undo receives: the recorded input and output of its step, and the step's key."""

    input: A
    output: B
    key: str


@dataclass(frozen=True, slots=True)
class Attempted(Generic[A, B]):
    """What an undo on doubt receives; `output` is None when it is not known."""

    input: A
    output: B | None
    key: str


Action = Callable[[A, WorkflowContext], Awaitable[B]]


UndoAction = Callable[[Completed[A, B], WorkflowContext], Awaitable[None]]


DoubtAction = Callable[[Attempted[A, B], WorkflowContext], Awaitable[None]]


@dataclass(frozen=True, eq=False, repr=False)
class Undo:
    """How a step is taken back: the function, its own time-out and its own retries."""

    action: Callable[..., Awaitable[None]]
    timeout: timedelta | None = None
    policy: UndoPolicy = field(default_factory=UndoPolicy)


@dataclass(frozen=True, eq=False, repr=False)
class Step(Primitive[In, Out]):
    """A named leaf with an action and perhaps a way to take it back.

    Made by `@step`. `@x.compensation` and `@x.compensation_on_doubt` complete it in place, once,
    until the first `Saga` that holds it is built.
    """

    name: str
    action: Callable[..., Any]
    takes: Any
    gives: Any
    retries: int = 0
    limit: timedelta | None = None
    unbounded: bool = False
    once: bool = False
    doubt_on: tuple[type[BaseException], ...] | None = None
    undo_completed: Undo | None = None
    undo_attempted: Undo | None = None
    no_undo_reason: str | None = None
    sealed: bool = False

    @property
    def input_type(self) -> Any:
        return self.takes

    @property
    def output_type(self) -> Any:
        return self.gives

    @overload
    def compensation(self, fn: UndoAction[In, Out], /) -> UndoAction[In, Out]: ...
    @overload
    def compensation(
        self, fn: None = None, /, *, retries: int | None = None, timeout: Seconds | None = None
    ) -> Callable[[UndoAction[In, Out]], UndoAction[In, Out]]: ...
    def compensation(
        self,
        fn: UndoAction[Any, Any] | None = None,
        /,
        *,
        retries: int | None = None,
        timeout: Seconds | None = None,
    ) -> Any:
        """Declare what undoes this step once it has completed."""
        return self._declare("undo_completed", fn, retries, timeout)

    @overload
    def compensation_on_doubt(self, fn: DoubtAction[In, Out], /) -> DoubtAction[In, Out]: ...
    @overload
    def compensation_on_doubt(
        self, fn: None = None, /, *, retries: int | None = None, timeout: Seconds | None = None
    ) -> Callable[[DoubtAction[In, Out]], DoubtAction[In, Out]]: ...
    def compensation_on_doubt(
        self,
        fn: DoubtAction[Any, Any] | None = None,
        /,
        *,
        retries: int | None = None,
        timeout: Seconds | None = None,
    ) -> Any:
        """Declare what undoes this step when nobody knows whether it happened.

        Declared alone, it undoes the completed step too.
        """
        return self._declare("undo_attempted", fn, retries, timeout)

    def undo(self, fn: UndoAction[In, Out]) -> Step[In, Out]:
        """A copy of this step that *fn* undoes."""
        return replace(self, undo_completed=_undo(fn, None, None), sealed=False)

    def without_undo(self, reason: str) -> Step[In, Out]:
        """A copy of this step that says why it needs no undo."""
        if not reason.strip():
            raise DefinitionError(
                f"{self.name}.without_undo() needs a reason that a reader can judge"
            )
        return replace(self, no_undo_reason=reason, sealed=False)

    def named(self, name: str) -> Step[In, Out]:
        """A copy of this step under another name, for its second place in one flow."""
        return replace(self, name=checked_name(name, "step"), sealed=False)

    @property
    def undo_of_completed(self) -> Undo | None:
        """What takes this step back once it has completed."""
        return self.undo_completed or self.undo_attempted

    def _declare(
        self,
        slot: str,
        fn: Callable[..., Awaitable[None]] | None,
        retries: int | None,
        timeout: Seconds | None,
    ) -> Any:
        def declare(undo: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            if self.sealed:
                raise DefinitionError(
                    f"step {self.name!r} is already part of a saga; "
                    "declare its compensation before the Saga is built"
                )
            if getattr(self, slot) is not None:
                raise DefinitionError(f"step {self.name!r} has this compensation already")
            object.__setattr__(self, slot, _undo(undo, retries, timeout))
            return undo

        return declare if fn is None else declare(fn)

    def __repr__(self) -> str:
        return self.name


@overload
def step(fn: Action[A, B], /) -> Step[A, B]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = ...,
    once: bool = False,
    doubt_on: tuple[type[BaseException], ...] | None = None,
) -> Callable[[Action[A, B]], Step[A, B]]: ...


def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = -1.0,
    once: bool = False,
    doubt_on: tuple[type[BaseException], ...] | None = None,
) -> Any:
    """Make a step of an async function `(input, ctx) -> output`.

    `retries` and `timeout` (seconds or timedelta, for each attempt) are the step's own defaults;
    an explicit `Retry` or `Timeout` right around it takes their place. `timeout=None` means no
    limit at all; left out, the worker's `step_timeout` applies. `once=True` never runs the action
    again after a crash. `doubt_on` replaces the exceptions that leave the outcome in doubt.
    """

    def declare(fn: Callable[..., Any]) -> Step[Any, Any]:
        named = str(name or getattr(fn, "__name__", ""))
        if named == "<lambda>":
            raise DefinitionError("a step needs a named function; a lambda cannot be told apart")
        checked_name(named, "step")
        takes, gives = read_signature(fn, named, parameters=2)
        limit = None if timeout is None or timeout == -1.0 else seconds(timeout)
        if limit is not None and limit <= timedelta(0):
            raise DefinitionError(f"step {named!r}: a time-out of {timeout} never lets it run")
        if retries < 0:
            raise DefinitionError(f"step {named!r}: retries is {retries}; 0 means one attempt only")
        if once and retries:
            raise DefinitionError(f"step {named!r}: once=True and retries contradict each other")
        return Step(named, fn, takes, gives, retries, limit, timeout is None, once, doubt_on)

    return declare if fn is None else declare(fn)


def _undo(fn: Callable[..., Awaitable[None]], retries: int | None, timeout: Seconds | None) -> Undo:
    if isinstance(fn, Primitive) or not callable(fn):
        raise DefinitionError(f"{fn!r} cannot undo anything; give a function (done, ctx)")
    limit = None if timeout is None else seconds(timeout)
    return Undo(fn, limit, UndoPolicy(max_retries=retries))
