"""Parts that choose or repeat: alternatives, routes, items of a list, loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, overload

from orchestrator.domain.bounds import checked_count, checked_duration, checked_name, shown
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import (
    A,
    B,
    In,
    Out,
    Primitive,
    Seconds,
    Through,
    as_primitive,
    as_primitives,
    check_alike,
)
from orchestrator.domain.signatures import (
    check_plain,
    may_fit,
    narrowest,
    spell,
    widest,
)
from orchestrator.domain.wrappers import Wrapper, spell_argument
from orchestrator.errors import DefinitionError

FAN_OUT_LIMIT = 10_000
CONCURRENCY_LIMIT = 1_000
ITERATION_LIMIT = 10_000


@dataclass(frozen=True, eq=False, repr=False)
class Fallback(Primitive[In, Out]):
    """*primary*, and when it fails the alternatives in order, each on the same input.

    What the failed one completed, or may have done, is undone before the next begins.
    """

    primary: Primitive[In, Out]
    alternatives: Sequence[Primitive[In, Out]]

    def __post_init__(self) -> None:
        as_primitive(self.primary, "Fallback")
        others = as_primitives(self.alternatives, "Fallback: alternatives")
        object.__setattr__(self, "alternatives", others)
        if not others:
            raise DefinitionError(
                "Fallback: without an alternative there is nothing to fall back to; "
                "write Fallback(primary, [alternative])"
            )
        check_alternatives("Fallback", self.children)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return (self.primary, *self.alternatives)

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, Out]:
        return Fallback(children[0], children[1:])

    @property
    def passes_on(self) -> bool:
        return all(node.passes_on for node in self.children)

    @property
    def label(self) -> str:
        return "the first that succeeds"

    @property
    def names(self) -> tuple[str, ...]:
        return ("first", *(f"alternative {n}" for n in range(1, len(self.children))))

    @property
    def input_type(self) -> Any:
        return narrowest(node.input_type for node in self.children)

    @property
    def output_type(self) -> Any:
        return widest(_given_by(self.children))

    def __repr__(self) -> str:
        return f"Fallback({self.primary!r}, {list(self.alternatives)!r})"


class Nothing(Through):
    """The route that does nothing and passes its input on."""

    @property
    def label(self) -> str:
        return "nothing"

    def __repr__(self) -> str:
        return "nothing"


@dataclass(frozen=True, eq=False, repr=False)
class Router(Primitive[In, Out]):
    """One of several routes, chosen once by `router_fn(input, ctx)`; the choice is recorded."""

    routes: Mapping[str, Primitive[In, Out]]
    router_fn: Callable[[In, WorkflowContext], str]
    default: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.routes, Mapping):
            raise DefinitionError(
                f'Router: routes is {shown(self.routes)}; give parts by name: {{"name": part}}'
            )
        object.__setattr__(self, "routes", dict(self.routes))
        if not self.routes:
            raise DefinitionError('Router: give it at least one route: {"name": part}')
        for name, route in self.routes.items():
            checked_name(name, "route")
            as_primitive(route, f"route {name!r}")
        check_alternatives("Router", self.children)
        if self.default is not None and self.default not in self.names:
            raise DefinitionError(
                f"Router: the default {shown(self.default)} is no route; "
                f"there are {', '.join(self.routes)}"
            )
        given = self.input_type
        check_plain(self.router_fn, "Router: router_fn", given, str, parameters=2, common=True)

    def choose(self, value: Any, ctx: WorkflowContext) -> str:
        """The route for *value*."""
        return self.router_fn(value, ctx)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.routes)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return tuple(self.routes.values())

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, Out]:
        return replace(self, routes=dict(zip(self.routes, children, strict=True)))

    @property
    def passes_on(self) -> bool:
        return all(node.passes_on for node in self.children)

    @property
    def label(self) -> str:
        return f"one of {', '.join(self.routes)}"

    @property
    def identity(self) -> str:
        return ",".join(self.routes)

    @property
    def input_type(self) -> Any:
        return narrowest(node.input_type for node in self.children)

    @property
    def output_type(self) -> Any:
        return widest(_given_by(self.children))

    def __repr__(self) -> str:
        if isinstance(self.router_fn, Condition):
            return self.router_fn.spelled(*self.children)
        default = "" if self.default is None else f", default={self.default!r}"
        return f"Router({self.routes!r}, router_fn={spell_argument(self.router_fn)}{default})"


@dataclass(frozen=True, eq=False)
class Condition:
    """What `when` asks, as the function of a router."""

    condition: Callable[[Any], bool]

    def __call__(self, value: Any, ctx: WorkflowContext) -> str:
        return "then" if self.condition(value) else "otherwise"

    def spelled(self, then: Primitive[Any, Any], otherwise: Primitive[Any, Any]) -> str:
        """The call of `when` that made it."""
        rest = "" if isinstance(otherwise, Nothing) else f", otherwise={otherwise!r}"
        return f"when({spell_argument(self.condition)}, then={then!r}{rest})"


@overload
def when(condition: Callable[[A], bool], then: Primitive[A, A]) -> Primitive[A, A]: ...
@overload
def when(
    condition: Callable[[In], bool], then: Primitive[In, Out], otherwise: Primitive[In, Out]
) -> Primitive[In, Out]: ...
def when(
    condition: Callable[[In], bool],
    then: Primitive[In, Out],
    otherwise: Primitive[In, Out] | None = None,
) -> Primitive[In, Out]:
    """*then* where *condition* holds, else *otherwise*; the choice is recorded.

    Left out, *otherwise* passes the input on: then must give what it takes.
    """
    as_primitive(then, "when: then")
    if otherwise is None and not may_fit(then.output_type, then.input_type):
        raise DefinitionError(
            f"when: {shown(then)} turns {spell(then.input_type)} into {spell(then.output_type)}, "
            "so say what happens otherwise: when(..., then=..., otherwise=...)"
        )
    other = Nothing() if otherwise is None else as_primitive(otherwise, "when: otherwise")
    router = Router({"then": then, "otherwise": other}, Condition(condition))
    check_plain(condition, "when: condition", router.input_type, common=True)
    return router


@dataclass(frozen=True, eq=False, repr=False)
class Each(Wrapper[Any, Any]):
    """*inner* for every item of a list that is known when it gets there.

    At most `concurrency` items are under way at once; after a failure no further one begins.
    A list of more than `limit` items fails before anything is begun.
    """

    concurrency: int = 10
    limit: int = FAN_OUT_LIMIT

    spelling: ClassVar[str] = "each"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count(self.concurrency, "each: concurrency", most=CONCURRENCY_LIMIT)
        checked_count(self.limit, "each: limit", most=1_000_000)

    @property
    def passes_on(self) -> bool:
        return False

    @property
    def label(self) -> str:
        return f"each, {self.concurrency} at once"

    @property
    def input_type(self) -> Any:
        return list[self.inner.input_type]  # type: ignore[name-defined]  # built at run time

    @property
    def output_type(self) -> Any:
        return list[self.inner.output_type]  # type: ignore[name-defined]  # built at run time


def each(
    inner: Primitive[A, B], *, concurrency: int = 10, limit: int = FAN_OUT_LIMIT
) -> Primitive[Sequence[A], list[B]]:
    """*inner* for every item of a list, `concurrency` at once; the outputs in the items' order."""
    return Each(inner, concurrency, limit)


@dataclass(frozen=True, eq=False, repr=False)
class Loop(Wrapper[Any, Any]):
    """*inner* again and again, each time on its own last output, until a condition holds."""

    until: Callable[[Any], bool]
    max_iterations: int
    pause: Seconds = 0

    spelling: ClassVar[str] = "loop"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count(self.max_iterations, "loop: max_iterations", most=ITERATION_LIMIT)
        checked_duration(self.pause, "loop: pause", zero=True)
        check_plain(self.until, "loop: until", self.inner.output_type)
        gives, takes = self.inner.output_type, self.inner.input_type
        if not may_fit(gives, takes):
            raise DefinitionError(
                f"loop: {shown(self.inner)} gives {spell(gives)} but takes {spell(takes)}; its "
                "output is the input of the next iteration, so let both be one type"
            )

    @property
    def label(self) -> str:
        return f"loop, at most {self.max_iterations} times"


def loop(
    body: Primitive[A, A], *, until: Callable[[A], bool], max_iterations: int, pause: Seconds = 0
) -> Primitive[A, A]:
    """*body* on its own output until *until* holds for it, at most *max_iterations* times.

    Waits *pause* between iterations. Fails with LoopExhausted when the bound is reached.
    """
    return Loop(body, until, max_iterations, pause)


def check_alternatives(place: str, parts: tuple[Primitive[Any, Any], ...]) -> None:
    """Refuse alternatives that do not take or give the same."""
    why = "alternatives take and give the same"
    check_alike(parts, "takes", [part.input_type for part in parts], place, why)
    check_alike(parts, "gives", _given_by(parts), place, why)


def _given_by(parts: tuple[Primitive[Any, Any], ...]) -> list[Any]:
    """What each of them gives; one that passes on gives what goes into all of them."""
    taken = narrowest(part.input_type for part in parts)
    return [taken if part.passes_on else part.output_type for part in parts]
