"""The language: frozen nodes that compose by `>>` and `|`, (`Saga` in saga.py gives a flow its name).

A flow is a value. Building one runs nothing, and every mistake that can be seen without
running is refused while it is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple, overload

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.policies import Backoff, UndoPolicy, seconds
from orchestrator.domain.signatures import may_fit, read_signature, spell
from orchestrator.errors import DefinitionError

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
Ts = TypeVarTuple("Ts")

Seconds = timedelta | float
NAME_LIMIT = 100

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


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


class Primitive(Generic[In, Out]):
    """A part of a flow that turns `In` into `Out`. Inert: it has no way to run itself."""

    def __rshift__(self, other: Primitive[Out, C]) -> Primitive[In, C]:
        """This, then *other* on its output."""
        return Sequential((*_flat(self), *_flat(as_primitive(other, ">>"))))

    def __or__(self, other: Primitive[In, C]) -> Parallel[In, Out, C]:
        """This beside *other*, on the same input; the output is a tuple."""
        return Parallel((self, as_primitive(other, "|")))

    if not TYPE_CHECKING:
        # Hidden, because a checker that finds a reflected operator lets wrong neighbours through.
        def __rrshift__(self, other: object) -> Primitive[Any, Any]:
            raise _not_a_primitive(other, ">>")

        def __ror__(self, other: object) -> Primitive[Any, Any]:
            raise _not_a_primitive(other, "|")

    def retry(
        self,
        max_retries: int = 3,
        *,
        initial: Seconds = 1,
        factor: float = 2.0,
        cap: Seconds = 60,
        jitter: bool = True,
        on: tuple[type[BaseException], ...] = (),
    ) -> Primitive[In, Out]:
        """The fluent spelling of `Retry(self, ...)`."""
        return Retry(
            self,
            max_retries=max_retries,
            initial=initial,
            factor=factor,
            cap=cap,
            jitter=jitter,
            on=on,
        )

    def timeout(self, after: Seconds) -> Primitive[In, Out]:
        """The fluent spelling of `Timeout(self, after=...)`."""
        return Timeout(self, after=after)

    def map(self, fn: Callable[[Out], C]) -> Primitive[In, C]:
        """This, then the plain function *fn* on its output."""
        return self >> pure(fn)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        """The nodes right below this one."""
        return ()

    @property
    def input_type(self) -> Any:
        """The annotation of what goes in."""
        return self.children[0].input_type

    @property
    def output_type(self) -> Any:
        """The annotation of what comes out."""
        return self.children[-1].output_type


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


@dataclass(frozen=True, eq=False, repr=False)
class Pure(Primitive[In, Out]):
    """A plain function in a chain: no effect, no retry, nothing to undo."""

    name: str
    fn: Callable[[Any], Any]
    takes: Any
    gives: Any

    @property
    def input_type(self) -> Any:
        return self.takes

    @property
    def output_type(self) -> Any:
        return self.gives

    def __repr__(self) -> str:
        return f"pure({self.name})"


@dataclass(frozen=True, eq=False, repr=False)
class Sequential(Primitive[In, Out]):
    """One after the other; the output of each is the input of the next."""

    steps: tuple[Primitive[Any, Any], ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise DefinitionError("an empty sequence does nothing; give it at least one step")
        for left, right in zip(self.steps, self.steps[1:], strict=False):
            check_neighbours(left, right)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return self.steps

    def __repr__(self) -> str:
        return " >> ".join(f"({s!r})" if isinstance(s, Parallel) else repr(s) for s in self.steps)


@dataclass(frozen=True, eq=False, repr=False)
class Parallel(Primitive[In, tuple[*Ts]], Generic[In, *Ts]):
    """All at once, on the same input; the output is the tuple of their outputs.

    All branches settle before the block fails, so that nothing is undone beside work in flight.
    """

    branches: tuple[Primitive[Any, Any], ...]

    def __post_init__(self) -> None:
        if len(self.branches) < 2:
            raise DefinitionError("a parallel block needs two branches or more")

    def __or__(self, other: Primitive[In, C]) -> Parallel[In, *Ts, C]:  # type: ignore[override]  # one tuple, not a tuple in a tuple
        return Parallel((*self.branches, as_primitive(other, "|")))

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return self.branches

    @property
    def input_type(self) -> Any:
        return next((b.input_type for b in self.branches if b.input_type is not Any), Any)

    @property
    def output_type(self) -> Any:
        return tuple[tuple(b.output_type for b in self.branches)]  # type: ignore[misc]  # built at run time

    def __repr__(self) -> str:
        return " | ".join(f"({b!r})" if isinstance(b, Parallel) else repr(b) for b in self.branches)


@dataclass(frozen=True, eq=False, repr=False)
class Retry(Primitive[In, Out]):
    """Try *inner* again when it fails, at most `max_retries` times after the first attempt.

    Around a composite it is a scope: what the failed attempt completed is undone before the
    next attempt begins. `on` narrows the failures that are retried; empty means all.
    """

    inner: Primitive[In, Out]
    max_retries: int = 3
    initial: Seconds = 1
    factor: float = 2.0
    cap: Seconds = 60
    jitter: bool = True
    on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        as_primitive(self.inner, "Retry")
        if self.max_retries < 0:
            raise DefinitionError(f"max_retries is {self.max_retries}; 0 means one attempt only")
        if self.factor < 1:
            raise DefinitionError(f"factor is {self.factor}; waits must not shrink (1 or more)")
        if seconds(self.initial) < timedelta(0) or seconds(self.cap) < timedelta(0):
            raise DefinitionError("a wait cannot be negative")

    @property
    def backoff(self) -> Backoff:
        """The waits between attempts."""
        return Backoff(seconds(self.initial), self.factor, seconds(self.cap), self.jitter)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return (self.inner,)

    def __repr__(self) -> str:
        return f"Retry({self.inner!r}, {self.max_retries})"


@dataclass(frozen=True, eq=False, repr=False)
class Timeout(Primitive[In, Out]):
    """Give *inner* no more than `after`. What is still running then is in doubt."""

    inner: Primitive[In, Out]
    after: Seconds

    def __post_init__(self) -> None:
        as_primitive(self.inner, "Timeout")
        if seconds(self.after) <= timedelta(0):
            raise DefinitionError(f"a time-out of {self.after} never lets anything run")

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return (self.inner,)

    def __repr__(self) -> str:
        return f"Timeout({self.inner!r}, {seconds(self.after).total_seconds():g})"


Undoing = UndoAction[A, B] | None


class Compensation(Sequential[In, Out]):
    """Pairs of do and undo, in order: `Compensation(((create, delete), (send, None)))`."""

    @overload
    def __init__(
        self: Compensation[A, B],
        pairs: tuple[tuple[Step[A, B], Undoing[A, B]]],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, C],
        pairs: tuple[tuple[Step[A, B], Undoing[A, B]], tuple[Step[B, C], Undoing[B, C]]],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, D],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
        ],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, E],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
            tuple[Step[D, E], Undoing[D, E]],
        ],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, F],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
            tuple[Step[D, E], Undoing[D, E]],
            tuple[Step[E, F], Undoing[E, F]],
        ],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, G],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
            tuple[Step[D, E], Undoing[D, E]],
            tuple[Step[E, F], Undoing[E, F]],
            tuple[Step[F, G], Undoing[F, G]],
        ],
    ) -> None: ...
    def __init__(self, pairs: tuple[tuple[Step[Any, Any], Any], ...]) -> None:
        for do, _ in pairs:
            if not isinstance(do, Step):
                raise DefinitionError(f"a pair begins with a step; {do!r} is none")
        steps = tuple(do if undo is None else do.undo(undo) for do, undo in pairs)
        super().__init__(steps)


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


def pure(fn: Callable[[A], B]) -> Primitive[A, B]:
    """A plain function without effects as a part of a flow.

    An error in it is a definite, permanent failure of that place.
    """
    if isinstance(fn, Primitive):
        raise DefinitionError(f"{fn!r} is part of a flow already; pure() takes a plain function")
    if inspect.iscoroutinefunction(fn):
        raise DefinitionError(f"{fn.__name__} is async, so it may have effects; make it a @step")
    takes, gives = read_signature(fn, getattr(fn, "__name__", "pure"), parameters=1)
    return Pure(getattr(fn, "__name__", type(fn).__name__), fn, takes, gives)


def _flat(node: Primitive[Any, Any]) -> tuple[Primitive[Any, Any], ...]:
    return node.steps if isinstance(node, Sequential) else (node,)


def as_primitive(value: Any, place: str) -> Any:
    if not isinstance(value, Primitive):
        raise _not_a_primitive(value, place)
    return value


def _not_a_primitive(value: object, place: str) -> DefinitionError:
    if callable(value):
        name = getattr(value, "__name__", repr(value))
        return DefinitionError(
            f"{place}: {name} is a bare function; say @step when it has effects, pure({name}) when not"
        )
    return DefinitionError(f"{place}: {value!r} is not part of a flow; use steps made by @step")


def checked_name(name: str, kind: str) -> str:
    if not name or len(name) > NAME_LIMIT or not set(name) <= _NAME_CHARACTERS:
        raise DefinitionError(
            f"{kind} name {name!r}: use 1 to {NAME_LIMIT} letters, digits, '_', '-' or '.'"
        )
    return name


def _undo(fn: Callable[..., Awaitable[None]], retries: int | None, timeout: Seconds | None) -> Undo:
    if isinstance(fn, Primitive) or not callable(fn):
        raise DefinitionError(f"{fn!r} cannot undo anything; give a function (done, ctx)")
    limit = None if timeout is None else seconds(timeout)
    return Undo(fn, limit, UndoPolicy(max_retries=retries))


def check_neighbours(left: Primitive[Any, Any], right: Primitive[Any, Any]) -> None:
    """Refuse neighbours whose types cannot meet; say nothing where it cannot be told."""
    gives, takes = left.output_type, right.input_type
    if not may_fit(gives, takes):
        raise DefinitionError(
            f"{left!r} gives {spell(gives)}, but {right!r} takes {spell(takes)}; "
            "put a pure(...) between them that turns the one into the other"
        )
