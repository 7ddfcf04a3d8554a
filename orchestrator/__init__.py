"""Event-sourced sagas: compose steps, survive crashes, undo in reverse order, audit everything."""

from typing import TYPE_CHECKING, Any

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import Parallel, Primitive, Retry, Sequential, Timeout, pure
from orchestrator.domain.events import Status
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Attempted, Completed, Step, step
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    InvalidInputError,
    KeyConflictError,
    NotFoundError,
    OrchestratorError,
    Permanent,
    Retryable,
    SagaFailedError,
    TooLateError,
    UnavailableError,
)
from orchestrator.ports import Filter, Instance
from orchestrator.runtime.service import Handle, HistoryEntry, Orchestrator, Order
from orchestrator.runtime.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from orchestrator.bootstrap import connect, work

__all__ = [
    "Attempted",
    "Compensation",
    "Completed",
    "ConflictError",
    "DefinitionError",
    "Filter",
    "Handle",
    "HistoryEntry",
    "Instance",
    "InvalidInputError",
    "KeyConflictError",
    "NotFoundError",
    "Orchestrator",
    "OrchestratorError",
    "Order",
    "Parallel",
    "Permanent",
    "Primitive",
    "Retry",
    "Retryable",
    "Saga",
    "SagaFailedError",
    "Sequential",
    "Status",
    "Step",
    "Timeout",
    "TooLateError",
    "UnavailableError",
    "Worker",
    "WorkerSettings",
    "WorkflowContext",
    "connect",
    "pure",
    "step",
    "work",
]


def __getattr__(name: str) -> Any:
    """Load what needs database and broker libraries only when it is asked for."""
    if name in ("connect", "work"):
        from orchestrator import bootstrap

        return getattr(bootstrap, name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
