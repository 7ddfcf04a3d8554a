"""Event-sourced sagas: compose steps, survive crashes, undo in reverse order, audit everything."""

from typing import TYPE_CHECKING, Any

from orchestrator.domain.branching import Fallback, Router, each, loop, when
from orchestrator.domain.context import View, WorkflowContext
from orchestrator.domain.definition import Parallel, Primitive, Sequential, pure
from orchestrator.domain.events import Status
from orchestrator.domain.flow import Flow, flow
from orchestrator.domain.guards import Budget, Cache, CircuitBreaker, RateLimit
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.remote import remote
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import (
    Attempted,
    Completed,
    Happened,
    NotHappened,
    Step,
    Unknown,
    step,
    transactional,
)
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    DefinitionWarning,
    InvalidInputError,
    KeyConflictError,
    NotFoundError,
    OrchestratorError,
    Permanent,
    Retryable,
    SagaFailedError,
    StepError,
    TooLateError,
    UnavailableError,
)
from orchestrator.ports import Filter, Instance
from orchestrator.runtime.service import Handle, HistoryEntry, Orchestrator, Order
from orchestrator.runtime.worker import Worker
from orchestrator.runtime.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from orchestrator.bootstrap import connect, work

__all__ = [
    "Attempted",
    "Budget",
    "Cache",
    "CircuitBreaker",
    "Compensation",
    "Completed",
    "ConflictError",
    "DefinitionError",
    "DefinitionWarning",
    "Fallback",
    "Filter",
    "Flow",
    "Handle",
    "Happened",
    "HistoryEntry",
    "Instance",
    "InvalidInputError",
    "KeyConflictError",
    "NotFoundError",
    "NotHappened",
    "Orchestrator",
    "OrchestratorError",
    "Order",
    "Parallel",
    "Permanent",
    "Primitive",
    "RateLimit",
    "Retry",
    "Retryable",
    "Router",
    "Saga",
    "SagaFailedError",
    "Scope",
    "Sequential",
    "Signal",
    "Status",
    "Step",
    "StepError",
    "Timeout",
    "TooLateError",
    "UnavailableError",
    "Unknown",
    "View",
    "Worker",
    "WorkerSettings",
    "WorkflowContext",
    "connect",
    "each",
    "flow",
    "loop",
    "pure",
    "remote",
    "sleep",
    "step",
    "transactional",
    "when",
    "work",
]


def __getattr__(name: str) -> Any:
    """Load what needs database and broker libraries only when it is asked for."""
    if name in ("connect", "work"):
        from orchestrator import bootstrap

        return getattr(bootstrap, name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
