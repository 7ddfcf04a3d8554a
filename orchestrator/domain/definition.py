"""The language: frozen nodes that compose by `>>` and `|`; `saga.py` gives a flow its name.

A flow is a value. Building one runs nothing, and every mistake that can be seen without
running is refused while it is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, TypeVarTuple, overload

from orchestrator.domain.signatures import may_fit, read_signature, spell
from orchestrator.errors import DefinitionError

if TYPE_CHECKING:
    from orchestrator.domain.context import View

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
    """A part of a flow that turns `In` into `Out`. Inert: it has no way to run itself.

    What `children`, `label` and `identity` say is all that drawing, fingerprints and checks know
    of a kind of node; its meaning is one rule in the decider.
    """

    transparent: ClassVar[bool] = False
    """Whether it only adapts what is below: a wrapper round it is a scope when that is one."""
    passes_on: ClassVar[bool] = False
    """Whether its output is its input."""

    @overload
    def __rshift__(self, other: Through) -> Primitive[In, Out]: ...
    @overload
    def __rshift__(self, other: Primitive[Out, C]) -> Primitive[In, C]: ...
    def __rshift__(self, other: Primitive[Any, Any]) -> Primitive[In, Any]:
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
        from orchestrator.domain.wrappers import Retry

        return Retry(self, max_retries, initial, factor, cap, jitter, on)

    def timeout(self, after: Seconds) -> Primitive[In, Out]:
        """The fluent spelling of `Timeout(self, after=...)`."""
        from orchestrator.domain.wrappers import Timeout

        return Timeout(self, after)

    def fallback(self, *alternatives: Primitive[In, Out]) -> Primitive[In, Out]:
        """The fluent spelling of `Fallback(self, alternatives)`."""
        from orchestrator.domain.branching import Fallback

        return Fallback(self, alternatives)

    def scope(self, name: str = "") -> Primitive[In, Out]:
        """The fluent spelling of `Scope(self, name)`."""
        from orchestrator.domain.wrappers import Scope

        return Scope(self, name)

    def pivot(self) -> Primitive[In, Out]:
        """The point of no return: once this has completed, nothing is undone any more."""
        from orchestrator.domain.wrappers import Pivot

        return Pivot(self)

    def circuit(
        self, name: str, *, failures: int = 5, reset: Seconds = 60, probes: int = 1
    ) -> Primitive[In, Out]:
        """The fluent spelling of `CircuitBreaker(self, name, ...)`."""
        from orchestrator.domain.guards import CircuitBreaker

        return CircuitBreaker(self, name, failures, reset, probes)

    def rate_limit(self, name: str, calls: int, per: Seconds = 1) -> Primitive[In, Out]:
        """The fluent spelling of `RateLimit(self, name, ...)`."""
        from orchestrator.domain.guards import RateLimit

        return RateLimit(self, name, calls, per)

    def cache(
        self,
        ttl: Seconds,
        *,
        name: str = "",
        max_size: int = 1_000,
        key: Callable[[In], str] | None = None,
    ) -> Primitive[In, Out]:
        """The fluent spelling of `Cache(self, ttl, ...)`."""
        from orchestrator.domain.guards import Cache

        return Cache(self, ttl, name, max_size, key)

    def budget(
        self, limit: float, *, name: str = "", per: timedelta | None = None
    ) -> Primitive[In, Out]:
        """The fluent spelling of `Budget(self, limit, ...)`."""
        from orchestrator.domain.guards import Budget

        return Budget(self, limit, name, per)

    def map(self, fn: Callable[[Out], C]) -> Primitive[In, C]:
        """This, then the plain function *fn* on its output."""
        return self >> pure(fn)

    def keep(self) -> Primitive[In, tuple[In, Out]]:  # type: ignore[type-var, unused-ignore]  # In only leaves as what came in
        """This, with what came in: the output is the pair of input and output."""
        from orchestrator.domain.wrappers import Keep

        return Keep(self)

    def using(self, bind: Callable[[View], In]) -> Primitive[Any, Out]:
        """This, on what *bind* makes of the saga's input and earlier outputs."""
        from orchestrator.domain.wrappers import Using

        return Using.of(self, bind)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        """The nodes right below this one."""
        return ()

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, Out]:
        """This node round other children, as many as it has."""
        if children:
            raise TypeError(f"{type(self).__name__} has no children")
        return self

    @property
    def label(self) -> str:
        """What drawings call it."""
        return type(self).__name__.lower()

    @property
    def identity(self) -> str:
        """What a history depends on, besides the kind of node and its children."""
        return ""

    @property
    def input_type(self) -> Any:
        """The annotation of what goes in."""
        return self.children[0].input_type

    @property
    def output_type(self) -> Any:
        """The annotation of what comes out."""
        return self.children[-1].output_type


class Through(Primitive[Any, Any]):
    """A part that passes on what it gets, whatever it is."""

    passes_on = True

    @property
    def input_type(self) -> Any:
        return Any

    @property
    def output_type(self) -> Any:
        return Any


@dataclass(frozen=True, eq=False, repr=False)
class Pure(Primitive[In, Out]):
    """A plain function in a chain: no effect, no retry, nothing to undo."""

    name: str
    fn: Callable[[Any], Any]
    takes: Any
    gives: Any

    @property
    def label(self) -> str:
        return f"pure {self.name}"

    @property
    def identity(self) -> str:
        return self.name

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
        left = self.steps[0]
        for right in self.steps[1:]:
            check_neighbours(left, right)
            left = left if right.passes_on else right

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return self.steps

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, Out]:
        return Sequential(children)

    @property
    def label(self) -> str:
        return "one after the other"

    @property
    def input_type(self) -> Any:
        return next((s for s in self.steps if not s.passes_on), self.steps[0]).input_type

    @property
    def output_type(self) -> Any:
        return next((s for s in reversed(self.steps) if not s.passes_on), self.steps[0]).output_type

    def __repr__(self) -> str:
        return " >> ".join(f"({s!r})" if isinstance(s, Parallel) else repr(s) for s in self.steps)


@dataclass(frozen=True, eq=False, repr=False)
class Parallel(Primitive[In, tuple[*Ts]], Generic[In, *Ts]):
    """All at once, on the same input; the output is the tuple of their outputs.

    All branches settle before the block fails, so that nothing is undone beside work in flight;
    `on_failure="cancel"` cuts the others off instead (they are then in doubt). `limit` bounds how
    many run at once; after a failure no further one begins. `undo="parallel"` lets the branches
    be undone side by side.
    """

    branches: tuple[Primitive[Any, Any], ...]
    limit: int | None = None
    on_failure: Literal["settle", "cancel"] = "settle"
    undo: Literal["sequential", "parallel"] = "sequential"

    def __post_init__(self) -> None:
        if len(self.branches) < 2:
            raise DefinitionError("a parallel block needs two branches or more")
        for branch in self.branches:
            as_primitive(branch, "|")
        if self.limit is not None and self.limit < 1:
            raise DefinitionError(f"limit is {self.limit}; at least one branch must run")
        if self.on_failure not in ("settle", "cancel"):
            raise DefinitionError(f'on_failure is {self.on_failure!r}; say "settle" or "cancel"')
        if self.undo not in ("sequential", "parallel"):
            raise DefinitionError(f'undo is {self.undo!r}; say "sequential" or "parallel"')
        first, *others = self.branches
        for other in others:
            one, two = first.input_type, other.input_type
            if not may_fit(one, two) and not may_fit(two, one):
                raise DefinitionError(
                    f"{first!r} takes {spell(one)}, but {other!r} beside it takes {spell(two)}; "
                    "branches get the same input, so let both take one type"
                )

    def __or__(self, other: Primitive[In, C]) -> Parallel[In, *Ts, C]:  # type: ignore[override]  # one tuple, not a tuple in a tuple
        return replace(self, branches=(*self.branches, as_primitive(other, "|")))  # type: ignore[return-value]  # replace() keeps the narrower type

    def with_options(
        self,
        *,
        limit: int | None = None,
        on_failure: Literal["settle", "cancel"] = "settle",
        undo: Literal["sequential", "parallel"] = "sequential",
    ) -> Parallel[In, *Ts]:
        """A copy of this block that runs, fails or is undone in another way."""
        return replace(self, limit=limit, on_failure=on_failure, undo=undo)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return self.branches

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, tuple[*Ts]]:
        return replace(self, branches=children)

    @property
    def label(self) -> str:
        return "side by side"

    @property
    def input_type(self) -> Any:
        return next((b.input_type for b in self.branches if b.input_type is not Any), Any)

    @property
    def output_type(self) -> Any:
        return tuple[tuple(b.output_type for b in self.branches)]  # type: ignore[misc]  # built at run time

    def __repr__(self) -> str:
        return " | ".join(f"({b!r})" if isinstance(b, Parallel) else repr(b) for b in self.branches)


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
    """*name*, which paths, keys, metrics and topics will carry. Raises DefinitionError."""
    if (
        not isinstance(name, str)
        or not name
        or len(name) > NAME_LIMIT
        or not set(name) <= _NAME_CHARACTERS
    ):
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
