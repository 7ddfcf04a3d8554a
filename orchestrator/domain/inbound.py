"""What records of a topic mean to sagas: declarations, checked when they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from orchestrator.domain.bounds import shown
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.messages import signals
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.waiting import Signal
from orchestrator.errors import DefinitionError

M = TypeVar("M")
In = TypeVar("In")
B = TypeVar("B")

When = Callable[[Mapping[str, str]], bool]
"""Whether a record is meant, by its headers."""

PATIENCE = 60.0
"""Seconds for which a signal is tried when its instance is not there yet."""


@dataclass(frozen=True, slots=True)
class OnEvent:
    """Each record of `topic` starts an instance of `saga`; see `on_event`."""

    topic: str
    saga: Saga[Any, Any]
    model: Any
    key: Callable[[Any], str] | None
    input: Callable[[Any], Any] | None
    when: When | None

    @property
    def told(self) -> str:
        """What this is, for people."""
        return f"on_event({self.topic!r}, {self.saga.name!r})"


@dataclass(frozen=True, slots=True)
class OnSignal:
    """Each record of `topic` is a signal to an instance of `saga`; see `on_signal`."""

    topic: str
    signal: Signal[Any]
    saga: Saga[Any, Any]
    model: Any
    key: Callable[[Any], str] | None
    saga_id: Callable[[Any], str] | None
    payload: Callable[[Any], Any] | None
    when: When | None
    patience: float

    @property
    def told(self) -> str:
        """What this is, for people."""
        return f"on_signal({self.topic!r}, {self.signal.name!r}, {self.saga.name!r})"


Inbound = OnEvent | OnSignal


@overload
def on_event(
    topic: str,
    saga: Saga[In, Any],
    *,
    key: Callable[[In], str] | None = None,
    when: When | None = None,
) -> OnEvent: ...
@overload
def on_event(
    topic: str,
    saga: Saga[In, Any],
    *,
    model: type[M],
    input: Callable[[M], In],
    key: Callable[[M], str] | None = None,
    when: When | None = None,
) -> OnEvent: ...
def on_event(
    topic: str,
    saga: Saga[Any, Any],
    *,
    model: Any = None,
    input: Callable[[Any], Any] | None = None,
    key: Callable[[Any], str] | None = None,
    when: When | None = None,
) -> OnEvent:
    """Each record of *topic* starts one instance of *saga*.

    The record's JSON value is the saga's input; with *model* it is read as that, and *input*
    makes the saga's input of it. *key* gives the business key; without one the record itself is
    the key. With *when*, only records whose headers it accepts are meant.
    """
    told = f"on_event({shown(topic)})"
    _check_topic(topic, told)
    if not isinstance(saga, Saga):
        raise DefinitionError(f"{told}: what is started is a Saga, not {shown(saga)}")
    if (model is None) != (input is None):
        raise DefinitionError(
            f"{told}: model and input go together: the record is read as the model, and input "
            f"makes of it what {saga.name!r} takes"
        )
    _check_functions(told, key=key, input=input, when=when)
    return OnEvent(topic, saga, saga.input_type if model is None else model, key, input, when)


@overload
def on_signal(
    topic: str,
    signal: Signal[B],
    saga: Saga[Any, Any],
    *,
    key: Callable[[B], str] | None = None,
    saga_id: Callable[[B], str] | None = None,
    when: When | None = None,
    patience: float = PATIENCE,
) -> OnSignal: ...
@overload
def on_signal(
    topic: str,
    signal: Signal[B],
    saga: Saga[Any, Any],
    *,
    model: type[M],
    payload: Callable[[M], B],
    key: Callable[[M], str] | None = None,
    saga_id: Callable[[M], str] | None = None,
    when: When | None = None,
    patience: float = PATIENCE,
) -> OnSignal: ...
def on_signal(
    topic: str,
    signal: Signal[Any],
    saga: Saga[Any, Any],
    *,
    model: Any = None,
    payload: Callable[[Any], Any] | None = None,
    key: Callable[[Any], str] | None = None,
    saga_id: Callable[[Any], str] | None = None,
    when: When | None = None,
    patience: float = PATIENCE,
) -> OnSignal:
    """Each record of *topic* is a *signal* to one instance of *saga*.

    Which one: *key* gives its business key, or *saga_id* its id; without either the record's own
    key is the business key. The record's JSON value is the payload; with *model* it is read as
    that, and *payload* makes the signal's payload of it. A record whose instance is not there is
    tried again for *patience* seconds. With *when*, only records whose headers it accepts count.
    """
    told = f"on_signal({shown(topic)})"
    _check_topic(topic, told)
    _check_signal(told, signal, saga)
    if (model is None) != (payload is None):
        raise DefinitionError(
            f"{told}: model and payload go together: the record is read as the model, and "
            f"payload makes of it what signal {signal.name!r} takes"
        )
    if key is not None and saga_id is not None:
        raise DefinitionError(f"{told}: give key or saga_id, not both")
    if not isinstance(patience, int | float) or not 0 <= patience < float("inf"):
        raise DefinitionError(f"{told}: patience is 0 or more seconds, not {shown(patience)}")
    _check_functions(told, key=key, saga_id=saga_id, payload=payload, when=when)
    read_as = signal.model if model is None else model
    return OnSignal(topic, signal, saga, read_as, key, saga_id, payload, when, float(patience))


def _check_signal(told: str, signal: object, saga: object) -> None:
    if not isinstance(signal, Signal):
        raise DefinitionError(f"{told}: what is sent is a Signal, not {shown(signal)}")
    if not isinstance(saga, Saga):
        raise DefinitionError(f"{told}: it is sent to instances of a Saga, not {shown(saga)}")
    known = signals(saga)
    has_code = any(isinstance(node, FlowNode) for node in walk(saga.tree))
    if signal.name not in known and not has_code:
        there = ", ".join(known) or "none at all"
        raise DefinitionError(
            f"{told}: saga {saga.name!r} waits for no signal {signal.name!r}; it waits for: {there}"
        )


def _check_topic(topic: object, told: str) -> None:
    legal = isinstance(topic, str) and 0 < len(topic) <= 249 and topic not in {".", ".."}
    if not legal or not all(c.isascii() and (c.isalnum() or c in "._-") for c in str(topic)):
        raise DefinitionError(
            f"{told}: a topic has 1 to 249 ASCII letters, digits, '.', '_' or '-', not {shown(topic)}"
        )


def _check_functions(told: str, **functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise DefinitionError(f"{told}: {name} is a function, not {shown(function)}")
