"""`@flow`: ordinary async code as a part of a saga. What it asks for is recorded and replayed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

from orchestrator.domain.definition import A, B, C, In, Out, Primitive, Seconds, checked_name
from orchestrator.domain.policies import seconds
from orchestrator.domain.signatures import read_signature
from orchestrator.domain.waiting import Signal, Sleep, Wait
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

        Raises StepError when it failed: all that it completed is undone by then.
        """
        if not isinstance(node, Primitive):
            raise DefinitionError(f"f.run() takes a part of a flow; {node!r} is none")
        result: B = await Request(node, value)
        return result

    async def receive(self, signal: Signal[C], within: Seconds | None = None) -> C:
        """Wait for a signal. Raises StepError (a TimeoutError) after *within*."""
        result: C = await Request(Wait(signal, None if within is None else seconds(within)), None)
        return result

    async def sleep(self, duration: Seconds) -> None:
        """Wait for *duration*."""
        await Request(Sleep(seconds(duration)), None)


@dataclass(frozen=True, eq=False, repr=False)
class FlowNode(Primitive[In, Out], Generic[In, Out]):
    """Imperative code. Made by `@flow`; replayed from its recorded requests after a crash."""

    name: str
    fn: Callable[[Any, Flow], Awaitable[Any]]
    takes: Any
    gives: Any

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
    import inspect

    name = checked_name(getattr(fn, "__name__", ""), "flow")
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(f"flow {name!r} must be an async function (input, f)")
    takes, gives = read_signature(fn, name, parameters=2)
    return FlowNode(name, fn, takes, gives)


def describe(node: Primitive[Any, Any]) -> str:
    """A part in one line: what a replay compares with the record."""
    inside = ",".join(describe(child) for child in node.children)
    named = ":".join(filter(None, (type(node).__name__, node.identity)))
    return f"{named}({inside})" if inside else named
