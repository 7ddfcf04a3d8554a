"""For people who write sagas: simulate them, say how they must behave, kill them everywhere."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.testing.crashes import CrashPointFailed, CrashPoints, Report, crash_points
    from orchestrator.testing.journal import Call
    from orchestrator.testing.outcome import Outcome
    from orchestrator.testing.sentences import Given, given
    from orchestrator.testing.simulated import Simulated
    from orchestrator.testing.simulator import Simulator
    from orchestrator.testing.virtual_time import SimulationError

__all__ = [
    "Call",
    "CrashPointFailed",
    "CrashPoints",
    "Given",
    "Outcome",
    "Report",
    "Simulated",
    "SimulationError",
    "Simulator",
    "crash_points",
    "given",
]

_ROOMS = {
    "Call": "journal",
    "CrashPointFailed": "crashes",
    "CrashPoints": "crashes",
    "Given": "sentences",
    "Outcome": "outcome",
    "Report": "crashes",
    "Simulated": "simulated",
    "SimulationError": "virtual_time",
    "Simulator": "simulator",
    "crash_points": "crashes",
    "given": "sentences",
}


def __getattr__(name: str) -> Any:
    """Load the kit when it is used: pytest imports this package at every start."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'orchestrator.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"orchestrator.testing.{_ROOMS[name]}"), name)
