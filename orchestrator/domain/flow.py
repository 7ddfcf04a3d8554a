"""`@flow`: ordinary async code as a part of a saga. What it asks for is recorded and replayed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

from orchestrator.domain.bounds import checked_duration, checked_name
from orchestrator.domain.definition import A, B, C, In, Out, Primitive, Seconds, as_primitive
from orchestrator.domain.signatures import read_signature
from orchestrator.domain.waiting import Signal, Sleep, Wait, checked_patience
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Request:
    """What a flow asks for: a part to be run, on a value."""

    node: Primitive[Any, Any]
    value: Any

    def __await__(self) -> Any:
        return (yield self)

    @property
    def what(self) -> str:
        """What is compared on replay: the kind of part and the names in it."""
        return describe(self.node)


class Flow:
    """What the code of a `@flow` speaks to. Nothing else may be awaited in it."""

    async def run(self, node: Primitive[A, B], value: A) -> B:
        """Run a step, or any other part of a flow, on *value*.

        Raises StepError when it failed: all that it completed is undone by then. Raises
        DefinitionError for a part that a Saga would refuse, and for a pivot in it.
        """
        from orchestrator.domain.checks import check_request

        check_request(as_primitive(node, "f.run()"))
        result: B = await Request(node, value)
        return result

    async def receive(self, signal: Signal[C], within: Seconds | None = None) -> C:
        """Wait for a signal. Raises StepError (a TimeoutError) after *within*."""
        name = getattr(signal, "name", "")
        result: C = await Request(Wait(signal, checked_patience(within, name)), None)
        return result

    async def sleep(self, duration: Seconds) -> None:
        """Wait for *duration*."""
        await Request(Sleep(checked_duration(duration, "f.sleep()", zero=True)), None)


@dataclass(frozen=True, eq=False, repr=False)
class FlowNode(Primitive[In, Out], Generic[In, Out]):
    """Imperative code. Made by `@flow`; replayed from its recorded requests after a crash."""

    name: str
    fn: Callable[[Any, Flow], Awaitable[Any]]
    takes: Any
    gives: Any

    marked = True

    @property
    def label(self) -> str:
        return f"flow {self.name}"

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
        return self.name


def flow(fn: Callable[[A, Flow], Awaitable[B]]) -> Primitive[A, B]:
    """Make a part of a saga of an async function `(input, f) -> output`.

    The function must be deterministic: all that it does goes through *f*. It is run again from
    its beginning whenever the instance is loaded, and gets the recorded answers.
    """
    if isinstance(fn, Primitive):
        raise DefinitionError(
            f"{fn!r} is part of a flow already; @flow takes a function (input, f)"
        )
    name = checked_name(getattr(fn, "__name__", None), "flow")
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"flow {name!r} is not an async function; write async def {name}(input, f)"
        )
    takes, gives = read_signature(fn, f"flow {name!r}", parameters=2, called="(input, f)")
    return FlowNode(name, fn, takes, gives)


def describe(node: Primitive[Any, Any]) -> str:
    """A part in one line: what a replay compares with the record."""
    inside = ",".join(describe(child) for child in node.children)
    named = ":".join(filter(None, (type(node).__name__, node.identity)))
    return f"{named}({inside})" if inside else named
