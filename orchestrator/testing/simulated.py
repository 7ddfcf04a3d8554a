"""One instance in a simulator, as the test that started it holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestrator.domain.saga import Saga
from orchestrator.domain.waiting import Signal
from orchestrator.runtime.service import Handle
from orchestrator.testing.outcome import Outcome

if TYPE_CHECKING:
    from orchestrator.testing.simulator import Simulator

Out = TypeVar("Out")
T = TypeVar("T")


class Simulated(Generic[Out]):
    """One instance in a simulator."""

    def __init__(self, sim: Simulator, handle: Handle[Out], saga: Saga[Any, Out]) -> None:
        self._sim = sim
        self._handle = handle
        self.saga = saga
        self.saga_id = handle.saga_id

    @property
    def outcome(self) -> Outcome[Out]:
        """Where it stands at this moment."""
        return self._sim.outcome(self)

    @property
    def status(self) -> str:
        """Where it stands at this moment, in one word."""
        return self.outcome.status

    def signal(self, signal: Signal[T], payload: T, *, dedupe_key: str | None = None) -> bool:
        """Send it a signal; False when one with the same dedupe key came before."""
        return self._sim.signal(self, signal, payload, dedupe_key=dedupe_key)

    def cancel(self, reason: str = "") -> None:
        """Ask for it to be taken back."""
        self._sim.cancel(self, reason)

    def finish(self) -> Outcome[Out]:
        """Let time pass until it has ended, is stuck, or waits for what only you can send."""
        return self._sim.finish(self)

    def __repr__(self) -> str:
        return repr(self.outcome)
