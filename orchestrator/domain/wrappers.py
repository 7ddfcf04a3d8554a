"""What stands round one part of a flow: retries, time-outs, scopes, the pivot, adapters of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from orchestrator.domain.bounds import (
    checked_count,
    checked_duration,
    checked_errors,
    checked_name,
    checked_number,
    spell_number,
    spell_seconds,
)
from orchestrator.domain.context import View
from orchestrator.domain.definition import (
    In,
    Out,
    Primitive,
    Pure,
    Seconds,
    as_primitive,
    in_brackets,
)
from orchestrator.domain.policies import Backoff, seconds
from orchestrator.domain.signatures import check_plain, name_of

W = TypeVar("W", bound="Wrapper[Any, Any]")
Given = TypeVar("Given")


@dataclass(frozen=True, eq=False, repr=False)
class Wrapper(Primitive[In, Out]):
    """A node with one child."""

    inner: Primitive[Any, Any]

    spelling: ClassVar[str] = ""
    """The function that makes it, where that is what people write."""

    def __post_init__(self) -> None:
        as_primitive(self.inner, self.spelling or type(self).__name__)

    @property
    def passes_on(self) -> bool:
        return self.inner.passes_on

    @property
    def children(self) -> tuple[Primitive[Any, Any], ...]:
        return (self.inner,)

    def with_children(self: W, children: tuple[Primitive[Any, Any], ...]) -> W:
        return replace(self, inner=children[0])

    def __repr__(self) -> str:
        given = [repr(self.inner)]
        for part in fields(self)[1:]:
            value = getattr(self, part.name)
            if part.default is MISSING and not self.spelling:
                given.append(spell_argument(value))
            elif value != part.default:
                given.append(f"{part.name}={spell_argument(value)}")
        return f"{self.spelling or type(self).__name__}({', '.join(given)})"


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
        checked_count(self.max_retries, "Retry: max_retries", least=0)
        checked_duration(self.initial, "Retry: initial", zero=True)
        checked_number(self.factor, "Retry: factor (waits do not shrink)", least=1)
        checked_duration(self.cap, "Retry: cap", zero=True)
        checked_errors(self.on, "Retry: on")

    @property
    def backoff(self) -> Backoff:
        """The waits between attempts."""
        return Backoff(seconds(self.initial), self.factor, seconds(self.cap), self.jitter)

    @property
    def label(self) -> str:
        return f"retry up to {self.max_retries} times"


@dataclass(frozen=True, eq=False, repr=False)
class Timeout(Wrapper[In, Out]):
    """Give *inner* no more than `after`. What is still running then is in doubt."""

    inner: Primitive[In, Out]
    after: Seconds

    transparent = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_duration(self.after, "Timeout: after")

    @property
    def label(self) -> str:
        return f"within {spell_seconds(self.after)} s"


@dataclass(frozen=True, eq=False, repr=False)
class Scope(Wrapper[In, Out]):
    """A savepoint: when *inner* fails, all that it completed is undone before the error goes on."""

    inner: Primitive[In, Out]
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name != "":
            checked_name(self.name, "scope")

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
        return f"{in_brackets(self.inner)}.pivot()"


@dataclass(frozen=True, eq=False, repr=False)
class Keep(Wrapper[In, tuple[Any, Out]]):
    """*inner*, with what came in: the output is the pair of input and output."""

    transparent = True

    @property
    def passes_on(self) -> bool:
        return False

    @property
    def output_type(self) -> Any:
        return tuple[self.inner.input_type, self.inner.output_type]  # type: ignore[name-defined]  # built at run time

    def __repr__(self) -> str:
        return f"{in_brackets(self.inner)}.keep()"


@dataclass(frozen=True, eq=False, repr=False)
class Using(Wrapper[Any, Out]):
    """*inner*, on what a plain function makes of the saga's input and its earlier outputs."""

    bind: Callable[[View], Any]
    name: str

    transparent = True

    @property
    def passes_on(self) -> bool:
        return False

    @classmethod
    def of(cls, inner: Primitive[Any, Out], bind: Callable[[View], Any]) -> Using[Out]:
        """Checks *bind*: a plain function of the view, which gives what *inner* takes."""
        check_plain(bind, "using", View, inner.input_type, called="(view)")
        return cls(inner, bind, name_of(bind, "using"))

    @property
    def label(self) -> str:
        return "using" if self.name == "using" else f"using {self.name}"

    @property
    def input_type(self) -> Any:
        return Any

    def __repr__(self) -> str:
        return f"{in_brackets(self.inner)}.using({spell_argument(self.bind)})"


def spell_argument(value: object) -> str:
    """How an argument is written where it was given."""
    if isinstance(value, timedelta):
        return spell_seconds(value)
    if isinstance(value, float):
        return spell_number(value)
    if isinstance(value, tuple):
        inside = ", ".join(map(spell_argument, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, type) or (callable(value) and not isinstance(value, Primitive)):
        return str(getattr(value, "__name__", repr(value)))
    return repr(value)


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
