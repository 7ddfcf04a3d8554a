"""Parts that wait: for time to pass, or for a message from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic

from orchestrator.domain.definition import B, Primitive, Seconds, Through, checked_name
from orchestrator.domain.policies import seconds
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, eq=False, repr=False)
class Sleep(Through):
    """Wait; the time it is due is recorded, so a crash does not begin it anew."""

    duration: timedelta

    def __post_init__(self) -> None:
        if self.duration < timedelta(0):
            raise DefinitionError(f"sleep: {self.duration} is negative")

    @property
    def label(self) -> str:
        return f"sleep {self.duration.total_seconds():g} s"

    def __repr__(self) -> str:
        return f"sleep({self.duration.total_seconds():g})"


def sleep(duration: Seconds) -> Sleep:
    """Wait for *duration* (seconds or timedelta), then pass the input on."""
    return Sleep(seconds(duration))


@dataclass(frozen=True, eq=False)
class Signal(Generic[B]):
    """A named message that a running saga can be sent, with the type of its payload."""

    name: str
    model: type[B]

    def __post_init__(self) -> None:
        checked_name(self.name, "signal")

    def wait(self, within: Seconds | None = None) -> Primitive[object, B]:
        """Wait for the next one; its payload is the output. Fails after *within* (TimeoutError)."""
        return Wait(self, None if within is None else seconds(within))


@dataclass(frozen=True, eq=False, repr=False)
class Wait(Primitive[object, B]):
    """Wait for a signal. One that came before counts too, first in, first out."""

    signal: Signal[B]
    within: timedelta | None = None

    def __post_init__(self) -> None:
        if self.within is not None and self.within <= timedelta(0):
            raise DefinitionError(f"waiting {self.within} for {self.signal.name!r} never succeeds")

    @property
    def label(self) -> str:
        return f"wait for {self.signal.name}"

    @property
    def identity(self) -> str:
        return self.signal.name

    @property
    def input_type(self) -> Any:
        return Any

    @property
    def output_type(self) -> Any:
        return self.signal.model

    def __repr__(self) -> str:
        return f"{self.signal.name}.wait()"
