"""The table of legal moves: what may follow in which status."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Status

_FORWARD = dict.fromkeys(
    (
        ev.BranchesHalted,
        ev.CacheHit,
        ev.ChildCancelRequested,
        ev.ChildRequested,
        ev.ChildStarted,
        ev.ComputationFailed,
        ev.ConditionEvaluated,
        ev.DeadlineMissed,
        ev.DeadlinePassed,
        ev.DeadlineSet,
        ev.EachStarted,
        ev.FallbackTaken,
        ev.FlowFailed,
        ev.FlowRequested,
        ev.FlowReturned,
        ev.HistoryLimitReached,
        ev.InputBound,
        ev.ItemFailed,
        ev.ItemSucceeded,
        ev.IterationScheduled,
        ev.PivotPassed,
        ev.RemoteRequested,
        ev.RetryScheduled,
        ev.RouteChosen,
        ev.StepFailed,
        ev.StepHeld,
        ev.StepInDoubt,
        ev.StepStarted,
        ev.StepSucceeded,
        ev.TimerFired,
        ev.TimerSet,
        ev.ValueComputed,
        ev.WaitEnded,
        ev.WaitStarted,
    ),
    Status.RUNNING,
)

_UNDOING = (
    ev.StepCompensated, ev.CompensationFailed, ev.CompensationRetryScheduled, ev.ProbeAnswered,
    ev.ProbeRetryScheduled, ev.ChildUndoRequested, ev.ChildEnded, ev.RemoteRequested,
)  # fmt: skip

_MESSAGES = (
    ev.CancelRequested, ev.CancelRefused, ev.SignalReceived, ev.SignalRejected, ev.ActionRefused,
    ev.RemoteReplied,
)  # fmt: skip

REPAIRS = (ev.SagaResumed, ev.StepRetried, ev.CompensationSkipped, ev.StepResolved)

TRANSITIONS: Mapping[Status, Mapping[type[Event], Status]] = {
    Status.PENDING: {
        ev.SagaStarted: Status.RUNNING,
        ev.SagaStuck: Status.STUCK,
        ev.SagaTerminated: Status.TERMINATED,
        ev.ActionRefused: Status.PENDING,
    },
    Status.RUNNING: {
        **_FORWARD,
        # A scope that failed is undone while the saga as a whole goes forward.
        **dict.fromkeys(_UNDOING, Status.RUNNING),
        **dict.fromkeys(_MESSAGES, Status.RUNNING),
        ev.CompensationStarted: Status.COMPENSATING,
        ev.SagaCompleted: Status.COMPLETED,
        ev.SagaStuck: Status.STUCK,
        ev.SagaTerminated: Status.TERMINATED,
    },
    Status.COMPENSATING: {
        **dict.fromkeys(_UNDOING, Status.COMPENSATING),
        **dict.fromkeys(_MESSAGES, Status.COMPENSATING),
        ev.SagaCompensated: Status.COMPENSATED,
        ev.SagaStuck: Status.STUCK,
        ev.SagaTerminated: Status.TERMINATED,
    },
    Status.STUCK: {
        # A repair leads back to where the instance was before it got stuck.
        **dict.fromkeys(REPAIRS, Status.RUNNING),
        **dict.fromkeys(_MESSAGES, Status.STUCK),
        # Freed to be repaired, it was found unfit to be gone on with once more.
        ev.SagaStuck: Status.STUCK,
        ev.SagaTerminated: Status.TERMINATED,
    },
    # Only its parent can move an instance that is done.
    Status.COMPLETED: {
        ev.UndoRequested: Status.COMPENSATING,
        **dict.fromkeys(_MESSAGES, Status.COMPLETED),
    },
    Status.WAITING: {},
    Status.COMPENSATED: {},
    Status.TERMINATED: {},
}
"""What may follow in which status. `waiting` is `running` as the work queue sees it: no event
leads there, because nothing happened."""
