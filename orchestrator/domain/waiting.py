"""Parts that wait: for time to pass, or for a message from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, get_origin

from orchestrator.domain.bounds import checked_duration, checked_name, shown, spell_seconds
from orchestrator.domain.definition import B, Primitive, Seconds, Through
from orchestrator.domain.signatures import spell
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, eq=False, repr=False)
class Sleep(Through):
    """Wait; the time it is due is recorded, so a crash does not begin it anew."""

    duration: timedelta

    marked = True

    def __post_init__(self) -> None:
        checked_duration(self.duration, "sleep: duration", zero=True)

    @property
    def label(self) -> str:
        return f"sleep {spell_seconds(self.duration)} s"

    def __repr__(self) -> str:
        return f"sleep({spell_seconds(self.duration)})"


def sleep(duration: Seconds) -> Sleep:
    """Wait for *duration* (seconds or timedelta), then pass the input on."""
    return Sleep(checked_duration(duration, "sleep: duration", zero=True))


@dataclass(frozen=True, eq=False, repr=False)
class Signal(Generic[B]):
    """A named message that a running saga can be sent, with the type of its payload."""

    name: str
    model: type[B]

    def __post_init__(self) -> None:
        checked_name(self.name, "signal")
        model = get_origin(self.model) or self.model
        if not isinstance(model, type) or issubclass(model, Primitive):
            raise DefinitionError(
                f"signal {self.name!r}: the model of its payload is a type, not "
                f"{shown(self.model)}; use a pydantic model, a dataclass or a JSON type"
            )

    def wait(self, within: Seconds | None = None) -> Primitive[object, B]:
        """Wait for the next one; its payload is the output. Fails after *within* (TimeoutError)."""
        return Wait(self, checked_patience(within, self.name))

    def __repr__(self) -> str:
        return f"Signal({self.name!r}, {spell(self.model)})"


@dataclass(frozen=True, eq=False, repr=False)
class Wait(Primitive[object, B]):
    """Wait for a signal. One that came before counts too, first in, first out."""

    signal: Signal[B]
    within: timedelta | None = None

    marked = True

    def __post_init__(self) -> None:
        if not isinstance(self.signal, Signal):
            raise DefinitionError(f"what is waited for is a Signal, not {shown(self.signal)}")
        checked_patience(self.within, self.signal.name)

    @property
    def label(self) -> str:
        return f"wait for {self.signal.name}"

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.within is None else (f"within {spell_seconds(self.within)} s",)

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
        within = "" if self.within is None else f"within={spell_seconds(self.within)}"
        return f"{self.signal.name}.wait({within})"


def checked_patience(within: Seconds | None, signal: str) -> timedelta | None:
    """How long is waited for a signal; None for ever. Raises DefinitionError."""
    return None if within is None else checked_duration(within, f"wait for {signal!r}: within")
