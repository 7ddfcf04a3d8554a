"""What stands round one part of a flow: retries, time-outs, scopes, the pivot, adapters of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from orchestrator.domain.context import View
from orchestrator.domain.definition import In, Out, Primitive, Pure, Seconds, as_primitive
from orchestrator.domain.policies import Backoff, seconds
from orchestrator.domain.signatures import name_of, read_signature
from orchestrator.errors import DefinitionError

W = TypeVar("W", bound="Wrapper[Any, Any]")
Given = TypeVar("Given")


@dataclass(frozen=True, eq=False, repr=False)
class Wrapper(Primitive[In, Out]):
    """A node with one child."""

    inner: Primitive[Any, Any]

    def __post_init__(self) -> None:
        as_primitive(self.inner, type(self).__name__)

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return (self.inner,)

    def with_children(self: W, children: tuple[Primitive[Any, Any], ...]) -> W:
        return replace(self, inner=children[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Retry(Wrapper[In, Out]):
    """Try *inner* again when it fails, at most `max_retries` times after the first attempt.

    Waits `min(initial * factor**n, cap)` between attempts, shortened by jitter to 50-100 %.
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

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
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
    def label(self) -> str:
        return f"retry up to {self.max_retries} times"

    def __repr__(self) -> str:
        return f"Retry({self.inner!r}, {self.max_retries})"


@dataclass(frozen=True, eq=False, repr=False)
class Timeout(Wrapper[In, Out]):
    """Give *inner* no more than `after`. What is still running then is in doubt."""

    inner: Primitive[In, Out]
    after: Seconds

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if seconds(self.after) <= timedelta(0):
            raise DefinitionError(f"a time-out of {self.after} never lets anything run")

    @property
    def label(self) -> str:
        return f"within {seconds(self.after).total_seconds():g} s"

    def __repr__(self) -> str:
        return f"Timeout({self.inner!r}, {seconds(self.after).total_seconds():g})"


@dataclass(frozen=True, eq=False, repr=False)
class Scope(Wrapper[In, Out]):
    """A savepoint: when *inner* fails, all that it completed is undone before the error goes on."""

    inner: Primitive[In, Out]
    name: str = ""

    @property
    def label(self) -> str:
        return f"scope {self.name}".rstrip()

    @property
    def identity(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Pivot(Wrapper[In, Out]):
    """The point of no return: once *inner* has completed, nothing is undone any more."""

    inner: Primitive[In, Out]

    transparent = True

    def __repr__(self) -> str:
        return f"{self.inner!r}.pivot()"


@dataclass(frozen=True, eq=False, repr=False)
class Keep(Wrapper[In, tuple[Any, Out]]):
    """*inner*, with what came in: the output is the pair of input and output."""

    transparent = True

    @property
    def output_type(self) -> Any:
        return tuple[self.inner.input_type, self.inner.output_type]  # type: ignore[name-defined]  # built at run time

    def __repr__(self) -> str:
        return f"{self.inner!r}.keep()"


@dataclass(frozen=True, eq=False, repr=False)
class Using(Wrapper[Any, Out]):
    """*inner*, on what a plain function makes of the saga's input and its earlier outputs."""

    bind: Callable[[View], Any]
    name: str

    transparent = True

    @classmethod
    def of(cls, inner: Primitive[Any, Out], bind: Callable[[View], Any]) -> Using[Out]:
        """Checks *bind*: a plain function of one parameter. Raises DefinitionError."""
        if isinstance(bind, Primitive) or not callable(bind):
            raise DefinitionError(f"using() takes a function of the view, not {bind!r}")
        read_signature(bind, name_of(bind, "using"), parameters=1)
        return cls(inner, bind, name_of(bind, "using"))

    @property
    def label(self) -> str:
        return f"using {self.name}"

    @property
    def input_type(self) -> Any:
        return Any

    def __repr__(self) -> str:
        return f"{self.inner!r}.using(...)"


def below_adapters(node: Primitive[Any, Any]) -> Primitive[Any, Any]:
    """What *node* comes down to when wrappers and adapters are taken off."""
    while node.transparent:
        node = node.children[0]
    return node


def is_composite(node: Primitive[Any, Any]) -> bool:
    """Whether a wrapper round *node* is a scope: it can complete more than one thing."""
    from orchestrator.domain.steps import Step
    from orchestrator.domain.waiting import Sleep, Wait

    return not isinstance(below_adapters(node), Step | Pure | Sleep | Wait)
