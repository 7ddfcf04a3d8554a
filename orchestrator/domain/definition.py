"""The language: frozen nodes that compose by `>>` and `|`; `saga.py` gives a flow its name.

A flow is a value. Building one runs nothing, and every mistake that can be seen without
running is refused while it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, TypeVarTuple, overload

from orchestrator.domain.bounds import checked_count, shown
from orchestrator.domain.signatures import may_fit, narrowest, read_plain, spell, widest
from orchestrator.errors import DefinitionError

if TYPE_CHECKING:
    from orchestrator.domain.context import View
    from orchestrator.domain.node_state import NodeState

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


class Primitive(Generic[In, Out]):
    """A part of a flow that turns `In` into `Out`. Inert: it has no way to run itself.

    What `children`, `label` and `identity` say is all that drawing, fingerprints and checks know
    of a kind of node; its meaning is one rule in the decider.
    """

    transparent: ClassVar[bool] = False
    """Whether it only adapts what is below: a wrapper round it is a scope when that is one."""

    marked: ClassVar[bool] = False
    """Whether something happens at this very place, so that drawings mark how far it has come."""

    in_order: ClassVar[bool] = False
    """Whether its children follow one another; otherwise drawings put them side by side."""

    @overload
    def __rshift__(self, other: Through) -> Primitive[In, Out]: ...
    @overload
    def __rshift__(self, other: Primitive[Out, C]) -> Primitive[In, C]: ...
    def __rshift__(self, other: Primitive[Any, Any]) -> Primitive[In, Any]:
        """This, then *other* on its output."""
        return Sequential((self, as_primitive(other, ">>")))

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
        self, limit: float, *, name: str = "", per: Seconds | None = None
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
    def passes_on(self) -> bool:
        """Whether its output is its input, whatever that is."""
        return False

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
    def notes(self) -> tuple[str, ...]:
        """What drawings write beside its label."""
        return ()

    @property
    def names(self) -> tuple[str, ...]:
        """What drawings write on the arrows to its children, if anything."""
        return ()

    def told(self, known: NodeState) -> str:
        """What drawings say of how far it has come, besides what is told of every node."""
        return ""

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

    def __rshift__(self, other: Primitive[A, B]) -> Primitive[A, B]:
        """This, then *other*, on what came in."""
        return super().__rshift__(other)

    @property
    def passes_on(self) -> bool:
        return True

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

    marked = True

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

    in_order = True

    def __post_init__(self) -> None:
        given = as_primitives(self.steps, "Sequential")
        if not given:
            raise DefinitionError("an empty sequence does nothing; give it at least one step")
        left = given[0]
        for right in given[1:]:
            check_neighbours(left, right)
            left = left if right.passes_on else right
        # Those of a sequence inside of it were checked when that was built.
        flat = tuple(step for part in given for step in _flat(part))
        object.__setattr__(self, "steps", flat)

    @property
    def passes_on(self) -> bool:
        return all(step.passes_on for step in self.steps)

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
        return _first_that_changes(self.steps).input_type

    @property
    def output_type(self) -> Any:
        return _first_that_changes(self.steps[::-1]).output_type

    def __repr__(self) -> str:
        if len(self.steps) == 1:
            return f"Sequential(({self.steps[0]!r},))"
        return " >> ".join(map(in_brackets, self.steps))


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
        branches = as_primitives(self.branches, "Parallel")
        object.__setattr__(self, "branches", branches)
        if len(branches) < 2:
            raise DefinitionError("a parallel block needs two branches or more")
        if self.limit is not None:
            checked_count(self.limit, "Parallel: limit")
        if self.on_failure not in ("settle", "cancel"):
            raise DefinitionError(
                f'Parallel: on_failure is {shown(self.on_failure)}; say "settle" or "cancel"'
            )
        if self.undo not in ("sequential", "parallel"):
            raise DefinitionError(
                f'Parallel: undo is {shown(self.undo)}; say "sequential" or "parallel"'
            )
        takes = [branch.input_type for branch in branches]
        why = "branches get the same input, so let them take one type"
        check_alike(branches, "takes", takes, "|", why)

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
    def notes(self) -> tuple[str, ...]:
        return (self.options,) if self.options else ()

    @property
    def input_type(self) -> Any:
        return narrowest(branch.input_type for branch in self.branches)

    @property
    def output_type(self) -> Any:
        return tuple[tuple(b.output_type for b in self.branches)]  # type: ignore[misc]  # built at run time

    @property
    def options(self) -> str:
        """What differs from a plain block, as it is written."""
        there = ((name, getattr(self, name)) for name in ("limit", "on_failure", "undo"))
        return ", ".join(f"{n}={value!r}" for n, value in there if value != getattr(Parallel, n))

    def __repr__(self) -> str:
        first, *others = self.branches
        # Another block on the left of `|` would become one with it.
        plain = (
            f"Parallel(({', '.join(map(repr, self.branches))}))"
            if isinstance(first, Parallel)
            else " | ".join([repr(first), *map(_in_parallel, others)])
        )
        return f"({plain}).with_options({self.options})" if self.options else plain


def pure(fn: Callable[[A], B]) -> Primitive[A, B]:
    """A plain function without effects as a part of a flow.

    An error in it is a definite, permanent failure of that place.
    """
    if isinstance(fn, Primitive):
        raise DefinitionError(f"{fn!r} is part of a flow already; pure() takes a plain function")
    takes, gives = read_plain(fn, "pure", mend="it may have effects; make it a @step")
    return Pure(getattr(fn, "__name__", type(fn).__name__), fn, takes, gives)


def as_primitive(value: Any, place: str) -> Any:
    """*value*, which is to be a part of a flow. Raises DefinitionError, naming the mend."""
    if not isinstance(value, Primitive):
        raise _not_a_primitive(value, place)
    return value


def as_primitives(values: Any, place: str) -> tuple[Primitive[Any, Any], ...]:
    """All of *values*, each a part of a flow. Raises DefinitionError, naming the mend."""
    if isinstance(values, Primitive | str) or not isinstance(values, Iterable):
        raise DefinitionError(f"{place} takes several parts; {shown(values)} is not a list of them")
    return tuple(as_primitive(value, place) for value in values)


def in_brackets(node: Primitive[Any, Any]) -> str:
    """How *node* is written beside an operator, or before a dot."""
    match node:
        case Parallel():
            bare = node.options == "" and not isinstance(node.branches[0], Parallel)
        case _:
            bare = type(node) is Sequential and len(node.steps) > 1
    return f"({node!r})" if bare else repr(node)


def check_neighbours(left: Primitive[Any, Any], right: Primitive[Any, Any]) -> None:
    """Refuse neighbours whose types cannot meet; say nothing where it cannot be told."""
    gives, takes = left.output_type, right.input_type
    if not may_fit(gives, takes):
        left, right = _edge(left, last=True), _edge(right, last=False)
        raise DefinitionError(
            f"{shown(left)} gives {spell(gives)}, but {shown(right)} takes {spell(takes)}; "
            "put a pure(...) between them that turns the one into the other"
        )


def check_alike(
    parts: tuple[Primitive[Any, Any], ...], verb: str, types: list[Any], place: str, why: str
) -> None:
    """Refuse parts of which two cannot take, or cannot give, the same."""
    strictest = widest if verb == "gives" else narrowest
    known = 0
    for index, other in enumerate(types):
        one = types[known]
        if not may_fit(one, other) and not may_fit(other, one):
            raise DefinitionError(
                f"{place}: {shown(parts[known])} {verb} {spell(one)}, but {shown(parts[index])} "
                f"{verb} {spell(other)}; {why}"
            )
        if strictest((one, other)) is not one:
            known = index


def _in_parallel(node: Primitive[Any, Any]) -> str:
    return in_brackets(node) if isinstance(node, Parallel) else repr(node)


def _flat(node: Primitive[Any, Any]) -> tuple[Primitive[Any, Any], ...]:
    # Not what only is a kind of sequence: `Compensation` is a scope, and stays one.
    return node.steps if type(node) is Sequential else (node,)


def _first_that_changes(steps: tuple[Primitive[Any, Any], ...]) -> Primitive[Any, Any]:
    return next((step for step in steps if not step.passes_on), steps[0])


def _edge(node: Primitive[Any, Any], *, last: bool) -> Primitive[Any, Any]:
    """The one part of a chain whose type it is that its neighbour meets."""
    if type(node) is not Sequential:
        return node
    return _first_that_changes(node.steps[::-1] if last else node.steps)


def _not_a_primitive(value: object, place: str) -> DefinitionError:
    from orchestrator.domain.saga import Saga
    from orchestrator.domain.waiting import Signal

    name = getattr(value, "__name__", shown(value))
    if isinstance(value, Saga):
        why = f"{value.name} is a whole saga; as a part of another one it is {value.name}.child()"
    elif isinstance(value, Signal):
        why = f"{value.name} is a signal; to wait for it say {value.name}.wait(within=...)"
    elif isinstance(value, type) and issubclass(value, Primitive):
        why = f"{name} is a class; say what it is to stand round: {name}(step, ...)"
    elif name == "<lambda>":
        why = "a lambda is a bare function; say .map(lambda ...), or give it a name and pure(name)"
    elif callable(value):
        why = f"{name} is a bare function; say @step when it has effects, pure({name}) when not"
    else:
        why = f"{shown(value)} is not part of a flow; use steps made by @step"
    return DefinitionError(f"{place}: {why}")
