"""Steps: what has effects, and how it is taken back. Declared by decorators that carry functions."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Literal, overload

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import A, B, C, D, In, Out, Primitive, Seconds, checked_name
from orchestrator.domain.policies import Backoff, UndoPolicy, seconds
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


@dataclass(frozen=True, slots=True)
class Happened(Generic[B]):
    """A probe's answer: the step did happen, and this is its output."""

    output: B


@dataclass(frozen=True, slots=True)
class NotHappened:
    """A probe's answer: the step did not happen, and will not any more."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A probe's answer: it cannot be told, now or ever."""


Action = Callable[[A, WorkflowContext], Awaitable[B]]


PlainAction = Callable[[A, WorkflowContext], B]


TransactionalAction = Callable[[A, WorkflowContext, D], Awaitable[B]]


ProbeAction = Callable[
    [Attempted[A, B], WorkflowContext], Awaitable[Happened[B] | NotHappened | Unknown]
]


UndoAction = Callable[[Completed[A, B], WorkflowContext], Awaitable[None]]


DoubtAction = Callable[[Attempted[A, B], WorkflowContext], Awaitable[None]]


@dataclass(frozen=True, eq=False, repr=False)
class Undo:
    """How a step is taken back: the function, its own time-out and its own retries."""

    action: Callable[..., Awaitable[None]]
    timeout: timedelta | None = None
    policy: UndoPolicy = field(default_factory=UndoPolicy)
    transaction: Any = None


@dataclass(frozen=True, eq=False, repr=False)
class Probe:
    """How to find out whether a step happened; asked again, with waits, while it fails."""

    action: Callable[..., Awaitable[Any]]
    timeout: timedelta | None = None
    retries: int = 5
    backoff: Backoff = field(default_factory=Backoff)


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
    asks: Probe | None = None
    transaction: Any = None
    executor: Literal["", "process"] = ""
    no_undo_reason: str | None = None
    sealed: bool = False

    @property
    def label(self) -> str:
        return self.name

    @property
    def identity(self) -> str:
        return self.name

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

    @overload
    def probe(self, fn: ProbeAction[In, Out], /) -> ProbeAction[In, Out]: ...
    @overload
    def probe(
        self, fn: None = None, /, *, retries: int = 5, timeout: Seconds | None = None
    ) -> Callable[[ProbeAction[In, Out]], ProbeAction[In, Out]]: ...
    def probe(
        self,
        fn: ProbeAction[Any, Any] | None = None,
        /,
        *,
        retries: int = 5,
        timeout: Seconds | None = None,
    ) -> Any:
        """Declare how to find out whether this step happened, once no retry is left.

        It answers `Happened(output)`, `NotHappened()` or `Unknown()`; one that raises is asked
        again up to *retries* times, and then it is unknown.
        """

        def declare(action: Callable[..., Any]) -> Callable[..., Any]:
            limit = None if timeout is None else seconds(timeout)
            self._fill("asks", Probe(action, limit, retries), "probe")
            return action

        return declare if fn is None else declare(fn)

    def undo(self, fn: UndoAction[In, Out]) -> Step[In, Out]:
        """A copy of this step that *fn* undoes."""
        return replace(self, undo_completed=_undo(fn, None, None), sealed=False)

    def undo_with(
        self, other: Step[C, Any], bind: Callable[[Completed[In, Out]], C]
    ) -> Step[In, Out]:
        """A copy of this step that another step undoes, on what *bind* makes of its outcome."""
        if not isinstance(other, Step):
            raise DefinitionError(f"{self.name}.undo_with() takes a step; {other!r} is none")

        async def undo(done: Completed[Any, Any], ctx: WorkflowContext) -> None:
            await other.action(bind(done), ctx)

        return self.undo(undo)

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
            self._fill(slot, _undo(undo, retries, timeout), "compensation")
            return undo

        return declare if fn is None else declare(fn)

    def _fill(self, slot: str, value: object, what: str) -> None:
        if self.sealed:
            raise DefinitionError(
                f"step {self.name!r} is already part of a saga; "
                f"declare its {what} before the Saga is built"
            )
        if getattr(self, slot) is not None:
            raise DefinitionError(f"step {self.name!r} has this {what} already")
        object.__setattr__(self, slot, value)

    def __repr__(self) -> str:
        return self.name


@overload
def step(fn: Action[A, B], /) -> Step[A, B]: ...


@overload
def step(fn: PlainAction[A, B], /) -> Step[A, B]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = ...,
    once: bool = False,
    doubt_on: tuple[type[BaseException], ...] | None = None,
) -> Callable[[Action[A, B]], Step[A, B]]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = ...,
    once: bool = False,
    doubt_on: tuple[type[BaseException], ...] | None = None,
    executor: Literal["thread", "process"],
) -> Callable[[PlainAction[A, B]], Step[A, B]]: ...


def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = -1.0,
    once: bool = False,
    doubt_on: tuple[type[BaseException], ...] | None = None,
    executor: Literal["thread", "process", ""] = "",
) -> Any:
    """Make a step of a function `(input, ctx) -> output`.

    An async function runs on the event loop, a plain one in a thread. `executor="process"` runs
    a plain function of a module's top level in a process of its own: for work that keeps the
    CPU busy; it gets a context without resources.

    `retries` and `timeout` (seconds or timedelta, for each attempt) are the step's own defaults;
    an explicit `Retry` or `Timeout` right around it takes their place. `timeout=None` means no
    limit at all; left out, the worker's `step_timeout` applies. `once=True` never runs the action
    again after a crash. `doubt_on` replaces the exceptions that leave the outcome in doubt.
    """

    def declare(fn: Callable[..., Any]) -> Step[Any, Any]:
        made = _step(fn, name, retries, timeout, parameters=2)
        if once and retries:
            raise DefinitionError(
                f"step {made.name!r}: once=True and retries contradict each other"
            )
        if executor and inspect.iscoroutinefunction(fn):
            raise DefinitionError(
                f"step {made.name!r} is async, so it runs on the event loop; "
                f'only plain functions go to executor="{executor}"'
            )
        process: Literal["", "process"] = "process" if executor == "process" else ""
        return replace(made, once=once, doubt_on=doubt_on, executor=process)

    return declare if fn is None else declare(fn)


@overload
def transactional(fn: TransactionalAction[A, Any, B], /) -> Step[A, B]: ...


@overload
def transactional(
    *, name: str | None = None, retries: int = 0, timeout: Seconds | None = ...
) -> Callable[[TransactionalAction[A, Any, B]], Step[A, B]]: ...


def transactional(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = -1.0,
) -> Any:
    """Make a step of an async function `(input, ctx, db) -> output` that writes to our database.

    Its SQL and the event that says so are one transaction: applied exactly once, never in doubt.
    The annotation of *db* says what it gets: an SQLAlchemy `AsyncSession` or `AsyncConnection`,
    or an asyncpg `Connection`. It must not commit. Its compensation may take *db* too.
    """

    def declare(fn: Callable[..., Any]) -> Step[Any, Any]:
        wanted = _wanted_transaction(fn)
        if wanted is None:
            raise DefinitionError(
                f"{getattr(fn, '__name__', fn)!r} must take (input, ctx, db), db annotated as "
                "AsyncSession, AsyncConnection or asyncpg.Connection"
            )
        made = _step(fn, name, retries, timeout, parameters=3)
        return replace(made, transaction=wanted)

    return declare if fn is None else declare(fn)


def _step(
    fn: Callable[..., Any],
    name: str | None,
    retries: int,
    timeout: Seconds | None,
    *,
    parameters: int,
) -> Step[Any, Any]:
    named = str(name or getattr(fn, "__name__", ""))
    if named == "<lambda>":
        raise DefinitionError("a step needs a named function; a lambda cannot be told apart")
    checked_name(named, "step")
    takes, gives = read_signature(fn, named, parameters=parameters)
    limit = None if timeout is None or timeout == -1.0 else seconds(timeout)
    if limit is not None and limit <= timedelta(0):
        raise DefinitionError(f"step {named!r}: a time-out of {timeout} never lets it run")
    if retries < 0:
        raise DefinitionError(f"step {named!r}: retries is {retries}; 0 means one attempt only")
    return Step(named, fn, takes, gives, retries, limit, timeout is None)


def _wanted_transaction(fn: Callable[..., Any]) -> Any:
    """The annotation of a third parameter; None when there is none."""
    try:
        found = list(inspect.signature(fn).parameters.values())
        hints = typing.get_type_hints(fn)
    except (TypeError, ValueError, NameError):
        return None
    return hints.get(found[2].name) if len(found) > 2 else None


def _undo(fn: Callable[..., Awaitable[None]], retries: int | None, timeout: Seconds | None) -> Undo:
    if isinstance(fn, Primitive) or not callable(fn):
        raise DefinitionError(f"{fn!r} cannot undo anything; give a function (done, ctx)")
    limit = None if timeout is None else seconds(timeout)
    return Undo(fn, limit, UndoPolicy(max_retries=retries), _wanted_transaction(fn))
