"""Parts that choose or repeat: alternatives, routes, items of a list, loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

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
    checked_name,
)
from orchestrator.domain.policies import seconds
from orchestrator.domain.signatures import counts_parameters, may_fit, name_of, spell
from orchestrator.domain.wrappers import Wrapper
from orchestrator.errors import DefinitionError

FAN_OUT_LIMIT = 10_000
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
        object.__setattr__(self, "alternatives", tuple(self.alternatives))
        if not self.alternatives:
            raise DefinitionError(
                "Fallback: without an alternative there is nothing to fall back to"
            )
        for other in self.alternatives:
            as_primitive(other, "Fallback")
            check_alike("Fallback", self.primary, other)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return (self.primary, *self.alternatives)

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, Out]:
        return Fallback(children[0], children[1:])

    @property
    def label(self) -> str:
        return "the first that succeeds"

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
        object.__setattr__(self, "routes", dict(self.routes))
        if not self.routes:
            raise DefinitionError("Router: give it at least one route")
        first = next(iter(self.routes.values()))
        for name, route in self.routes.items():
            checked_name(name, "route")
            as_primitive(route, f"route {name!r}")
            check_alike(f"route {name!r}", first, route)
        if isinstance(self.router_fn, Primitive) or not callable(self.router_fn):
            raise DefinitionError(
                f"router_fn takes (input, ctx) and names a route; {self.router_fn!r} cannot"
            )
        if self.default is not None and self.default not in self.routes:
            raise DefinitionError(
                f"Router: the default {self.default!r} is no route; there are {', '.join(self.routes)}"
            )
        counts_parameters(self.router_fn, name_of(self.router_fn, "router_fn"), 2)

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
    def label(self) -> str:
        return f"one of {', '.join(self.routes)}"

    @property
    def identity(self) -> str:
        return ",".join(self.routes)

    @property
    def input_type(self) -> Any:
        return _first_known(node.input_type for node in self.children)

    @property
    def output_type(self) -> Any:
        return _first_known(node.output_type for node in self.children)

    def __repr__(self) -> str:
        return f"Router({self.routes!r})"


def when(
    condition: Callable[[In], bool],
    then: Primitive[In, Out],
    otherwise: Primitive[In, Out] | None = None,
) -> Primitive[In, Out]:
    """*then* where *condition* holds, else *otherwise*; the choice is recorded.

    Left out, *otherwise* passes the input on: then must give what it takes.
    """
    if isinstance(condition, Primitive) or not callable(condition):
        raise DefinitionError(
            f"when: the condition is a plain function of the input, not {condition!r}"
        )
    as_primitive(then, "when")
    if otherwise is None and not may_fit(then.input_type, then.output_type):
        raise DefinitionError(
            f"when: {then!r} turns {spell(then.input_type)} into {spell(then.output_type)}, so "
            "say what happens otherwise: when(..., then=..., otherwise=...)"
        )
    counts_parameters(condition, name_of(condition, "condition"), 1)
    return Router(
        {"then": then, "otherwise": Nothing() if otherwise is None else otherwise},
        lambda value, ctx: "then" if condition(value) else "otherwise",
    )


@dataclass(frozen=True, eq=False, repr=False)
class Each(Wrapper[Any, Any]):
    """*inner* for every item of a list that is known when it gets there.

    At most `concurrency` items are under way at once; after a failure no further one begins.
    A list of more than `limit` items fails before anything is begun.
    """

    concurrency: int = 10
    limit: int = FAN_OUT_LIMIT

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.concurrency <= 1_000:
            raise DefinitionError(f"each: concurrency is {self.concurrency}; 1 to 1,000 go at once")
        if self.limit < 1:
            raise DefinitionError(f"each: a limit of {self.limit} items never lets it begin")

    @property
    def label(self) -> str:
        return f"each, {self.concurrency} at once"

    @property
    def input_type(self) -> Any:
        return list[self.inner.input_type]  # type: ignore[name-defined]  # built at run time

    @property
    def output_type(self) -> Any:
        return list[self.inner.output_type]  # type: ignore[name-defined]  # built at run time

    def __repr__(self) -> str:
        return f"each({self.inner!r})"


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.max_iterations <= ITERATION_LIMIT:
            raise DefinitionError(
                f"loop: max_iterations is {self.max_iterations}; give a bound from 1 to "
                f"{ITERATION_LIMIT:,}"
            )
        if seconds(self.pause) < timedelta(0):
            raise DefinitionError(f"loop: a pause of {self.pause} is negative")
        if isinstance(self.until, Primitive) or not callable(self.until):
            raise DefinitionError(
                f"loop: until is a plain function of the output, not {self.until!r}"
            )
        counts_parameters(self.until, name_of(self.until, "until"), 1)
        gives, takes = self.inner.output_type, self.inner.input_type
        if not may_fit(gives, takes):
            raise DefinitionError(
                f"loop: {self.inner!r} gives {spell(gives)} but takes {spell(takes)}; its output "
                "is the input of the next iteration"
            )

    @property
    def label(self) -> str:
        return f"loop, at most {self.max_iterations} times"

    def __repr__(self) -> str:
        return f"loop({self.inner!r}, max_iterations={self.max_iterations})"


def loop(
    body: Primitive[A, A], *, until: Callable[[A], bool], max_iterations: int, pause: Seconds = 0
) -> Primitive[A, A]:
    """*body* on its own output until *until* holds for it, at most *max_iterations* times.

    Waits *pause* between iterations. Fails with LoopExhausted when the bound is reached.
    """
    return Loop(body, until, max_iterations, pause)


def check_alike(place: str, first: Primitive[Any, Any], other: Primitive[Any, Any]) -> None:
    """Refuse alternatives that do not take or give the same."""
    if other.passes_on or first.passes_on:
        return
    for verb, one, two in (
        ("takes", first.input_type, other.input_type),
        ("gives", first.output_type, other.output_type),
    ):
        if not may_fit(one, two) and not may_fit(two, one):
            raise DefinitionError(
                f"{place}: {first!r} {verb} {spell(one)}, but {other!r} {verb} {spell(two)}; "
                "alternatives take and give the same"
            )


def _first_known(annotations: Any) -> Any:
    return next((found for found in annotations if found is not Any), Any)
