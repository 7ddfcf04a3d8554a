"""The language: frozen nodes that compose by `>>` and `|`; `saga.py` gives a flow its name.

A flow is a value. Building one runs nothing, and every mistake that can be seen without
running is refused while it is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

from orchestrator.domain.policies import Backoff, seconds
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


def check_neighbours(left: Primitive[Any, Any], right: Primitive[Any, Any]) -> None:
    """Refuse neighbours whose types cannot meet; say nothing where it cannot be told."""
    gives, takes = left.output_type, right.input_type
    if not may_fit(gives, takes):
        raise DefinitionError(
            f"{left!r} gives {spell(gives)}, but {right!r} takes {spell(takes)}; "
            "put a pure(...) between them that turns the one into the other"
        )
