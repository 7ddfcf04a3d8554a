"""The fold: every legal and illegal move, and what each fact changes."""

from __future__ import annotations

import copy
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.events import ENDED, EVENT_TYPES, Event, Json, Status
from orchestrator.domain.evolve import evolve, fold
from orchestrator.domain.node_state import Settled
from orchestrator.domain.state import SagaState
from orchestrator.domain.transitions import TRANSITIONS
from orchestrator.errors import IllegalTransitionError
from tests.spec import BROKEN, SAGA_ID, START, UNKNOWN

NODE, LIST, WAIT, CHILD, FLOW = "s/0", "s/1", "s/2", "s/3", "s/4"
CANCEL = ev.CancelRequested("ann", "why not", 1, ())

SAMPLES: dict[type[Event], Event] = {
    type(event): event
    for event in (
        ev.SagaStarted("s", 1, "f", START, Json("7"), {"user_id": "ann"}),
        ev.StepStarted(NODE, "a", 1),
        ev.StepSucceeded(NODE, "a", 1, Json("1")),
        ev.StepFailed(NODE, "a", 1, BROKEN),
        ev.StepInDoubt(NODE, "a", 1, UNKNOWN),
        ev.StepHeld(NODE, "a", "circuit bank", START),
        ev.RemoteRequested(
            NODE, "a", 1, "do", "pay", "bank", f"{SAGA_ID}/{NODE}", Json("1"), START
        ),
        ev.RemoteReplied(NODE, "a", 1, "do", "succeeded", "bank", 1, Json("1")),
        ev.CacheHit(NODE, "a", "rates", Json("1")),
        ev.ProbeAnswered(NODE, "a", 1, "unknown"),
        ev.ProbeRetryScheduled(NODE, "a", 2, START),
        ev.ValueComputed(NODE, "p", Json("1")),
        ev.ComputationFailed(NODE, "p", BROKEN),
        ev.InputBound(NODE, "bind", Json("1")),
        ev.RouteChosen(NODE, "left"),
        ev.FallbackTaken("s", 1, BROKEN),
        ev.EachStarted(LIST, Json("[1,2]"), 2, 2),
        ev.ItemSucceeded(LIST, 0, Json("1")),
        ev.ItemFailed(LIST, 1, BROKEN),
        ev.ConditionEvaluated("s", 1, holds=False),
        ev.IterationScheduled("s", 2, START, Json("1")),
        ev.TimerSet(NODE, START),
        ev.TimerFired(NODE),
        ev.WaitStarted(WAIT, "go"),
        ev.WaitEnded(WAIT, "go", UNKNOWN),
        ev.SignalReceived("go", Json("1"), "ann", 1),
        ev.SignalRejected("go", "not a number", "ann", 1),
        ev.ChildRequested(CHILD, "c", 1, "c-1", Json("1")),
        ev.ChildStarted(CHILD, "c-1"),
        ev.ChildCancelRequested(CHILD, "c-1"),
        ev.ChildEnded(CHILD, "c-1", "completed", Json("1")),
        ev.ChildUndoRequested(CHILD, "c-1"),
        ev.FlowRequested(FLOW, 0, "Step:a", Json("1")),
        ev.FlowReturned(FLOW, Json("1")),
        ev.FlowFailed(FLOW, BROKEN),
        ev.BranchesHalted("s", (NODE,)),
        ev.PivotPassed(NODE),
        ev.RetryScheduled("s", NODE, 2, START),
        ev.DeadlineSet("s", START),
        ev.DeadlinePassed("s", (NODE,)),
        ev.DeadlineMissed(START),
        ev.HistoryLimitReached(()),
        CANCEL,
        ev.CancelRefused("ann", "why not", 1),
        ev.CompensationStarted("broken", BROKEN),
        ev.StepCompensated(NODE, "a", 1),
        ev.CompensationFailed(NODE, "a", 1, BROKEN),
        ev.CompensationRetryScheduled(NODE, "a", 2, START, START),
        ev.SagaCompleted(Json("1")),
        ev.SagaCompensated("broken"),
        ev.SagaStuck(NODE, "a", "why"),
        ev.SagaTerminated("ann", "enough", 1),
        ev.SagaResumed("ann", "mended", 1),
        ev.StepRetried(NODE, "a", "ann", "mended", 1),
        ev.CompensationSkipped(NODE, "a", "ann", "done by hand", 1),
        ev.StepResolved(NODE, "a", happened=True, actor="ann", reason="seen", inbox_seq=1),
        ev.ActionRefused("retry", "ann", "it is running", 1),
        ev.UndoRequested("p-1", "its parent goes back", 1),
    )
}

BACKWARD = {
    ev.StepCompensated, ev.CompensationFailed, ev.CompensationRetryScheduled, ev.ProbeAnswered,
    ev.ProbeRetryScheduled, ev.ChildUndoRequested, ev.ChildEnded, ev.RemoteRequested,
}  # fmt: skip
MESSAGES = {
    ev.CancelRequested, ev.CancelRefused, ev.SignalReceived, ev.SignalRejected, ev.ActionRefused,
    ev.RemoteReplied,
}  # fmt: skip
REPAIRS = {ev.SagaResumed, ev.StepRetried, ev.CompensationSkipped, ev.StepResolved}
ENDS = {ev.SagaCompleted, ev.SagaCompensated, ev.SagaStuck, ev.SagaTerminated}
FORWARD = (
    set(SAMPLES) - BACKWARD - MESSAGES - REPAIRS - ENDS
    - {ev.SagaStarted, ev.CompensationStarted, ev.UndoRequested}
)  # fmt: skip

LEGAL: dict[Status, set[type[Any]]] = {
    Status.PENDING: {ev.SagaStarted, ev.SagaStuck, ev.SagaTerminated, ev.ActionRefused},
    Status.RUNNING: {
        *FORWARD, *BACKWARD, *MESSAGES, ev.CompensationStarted, ev.SagaCompleted, ev.SagaStuck,
        ev.SagaTerminated,
    },
    Status.COMPENSATING: {
        *BACKWARD, *MESSAGES, ev.SagaCompensated, ev.SagaStuck, ev.SagaTerminated,
    },
    Status.STUCK: {*REPAIRS, *MESSAGES, ev.SagaStuck, ev.SagaTerminated},
    Status.COMPLETED: {ev.UndoRequested, *MESSAGES},
}  # fmt: skip
LEADS_TO = {
    ev.CompensationStarted: Status.COMPENSATING,
    ev.UndoRequested: Status.COMPENSATING,
    ev.SagaCompleted: Status.COMPLETED,
    ev.SagaCompensated: Status.COMPENSATED,
    ev.SagaStuck: Status.STUCK,
    ev.SagaStarted: Status.RUNNING,
    ev.SagaTerminated: Status.TERMINATED,
    **dict.fromkeys(REPAIRS, Status.RUNNING),
}


def standing(status: Status) -> SagaState:
    """An instance in *status*: one step done, a list, a wait, a child and a flow begun."""
    state = SagaState(SAGA_ID)
    if status is not Status.PENDING:
        begun = (ev.SagaStarted, ev.StepSucceeded, ev.EachStarted, ev.WaitStarted)
        for kind in (*begun, ev.ChildRequested, ev.FlowRequested):
            evolve(state, SAMPLES[kind])
    state.status, state.before_stuck = status, Status.RUNNING
    return state


def started(*history: Event) -> SagaState:
    return fold(SAGA_ID, [SAMPLES[ev.SagaStarted], *history])


def test_every_kind_of_event_and_every_status_is_in_the_tables() -> None:
    assert set(SAMPLES) == set(EVENT_TYPES.values())
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize(("status", "kind"), list(product(Status, SAMPLES)))
def test_each_move_is_legal_or_changes_nothing(status: Status, kind: type[Event]) -> None:
    state = standing(status)
    before = copy.deepcopy(state)
    if kind in LEGAL.get(status, set()):
        evolve(state, SAMPLES[kind])
        assert state.status is LEADS_TO.get(kind, status)
        assert state.version == before.version + 1
        return
    with pytest.raises(IllegalTransitionError, match=rf"{kind.__name__} .* nothing was changed"):
        evolve(state, SAMPLES[kind])
    assert state == before


def test_only_its_parent_can_move_what_has_ended() -> None:
    moves = {
        status: {kind for kind, to in TRANSITIONS[status].items() if to is not status}
        for status in ENDED
    }
    assert moves == {
        Status.COMPLETED: {ev.UndoRequested}, Status.COMPENSATED: set(), Status.TERMINATED: set(),
    }  # fmt: skip


def test_what_is_stuck_is_moved_by_persons_only() -> None:
    moves = {kind for kind, to in TRANSITIONS[Status.STUCK].items() if to is not Status.STUCK}
    assert moves == {*REPAIRS, ev.SagaTerminated}


@pytest.mark.parametrize(
    "event",
    [
        ev.StepCompensated("s/9", "z", 1),
        ev.ItemSucceeded("s/9", 0, Json("1")),
        ev.ItemFailed(NODE, 0, BROKEN),
        ev.ChildStarted("s/9", "c-9"),
        ev.ChildEnded(NODE, "c-9", "completed"),
        ev.WaitEnded("s/9", "go", UNKNOWN),
        ev.WaitEnded(NODE, "go", UNKNOWN),
    ],
    ids=lambda event: f"{type(event).__name__} {event.node}",
)
def test_what_never_began_cannot_end_and_nothing_is_changed(event: Event) -> None:
    for status in (Status.RUNNING, Status.COMPENSATING):
        state = standing(status)
        before = copy.deepcopy(state)
        with pytest.raises(IllegalTransitionError, match="nothing was changed"):
            evolve(state, event)
        assert state == before


def test_what_is_not_to_be_undone_cannot_be_skipped() -> None:
    state = standing(Status.STUCK)
    before = copy.deepcopy(state)
    with pytest.raises(IllegalTransitionError, match="nothing there is to be undone"):
        evolve(state, ev.CompensationSkipped("s/9", "z", "ann", "why", 1))
    assert state == before


def test_an_instance_begins_with_what_was_asked_for() -> None:
    state = started()
    assert (state.saga, state.saga_version, state.fingerprint) == ("s", 1, "f")
    assert (state.input, state.context, state.version) == ("7", {"user_id": "ann"}, 1)


def test_a_success_records_its_output_and_stands_on_the_undo_stack() -> None:
    state = started(SAMPLES[ev.StepSucceeded])
    assert state.at(NODE).settled is Settled.SUCCEEDED
    assert (state.outputs, state.undo_stack) == ({"a": "1"}, (NODE,))


def test_a_failure_does_not_stand_on_the_undo_stack() -> None:
    state = started(SAMPLES[ev.StepFailed])
    assert (state.at(NODE).failure, state.undo_stack) == (BROKEN, ())


def test_doubt_stands_once_and_where_it_was_recorded_first() -> None:
    doubt = SAMPLES[ev.StepInDoubt]
    other = ev.StepSucceeded("s/1", "b", 1, Json("2"))
    state = started(doubt, other, ev.RetryScheduled("s", NODE, 2, START), doubt)
    assert state.undo_stack == (NODE, "s/1")


def test_a_success_settles_the_doubt_and_moves_up() -> None:
    other = ev.StepSucceeded("s/1", "b", 1, Json("2"))
    state = started(SAMPLES[ev.StepInDoubt], other, ev.StepSucceeded(NODE, "a", 2, Json("1")))
    assert state.undo_stack == ("s/1", NODE)
    assert not state.at(NODE).doubtful


def test_doubt_outlives_a_later_failure() -> None:
    state = started(SAMPLES[ev.StepInDoubt], ev.StepFailed(NODE, "a", 2, BROKEN))
    assert state.at(NODE).doubtful
    assert state.undo_stack == (NODE,)


def test_a_retry_lets_the_step_below_run_again_but_keeps_its_count() -> None:
    due = START + timedelta(seconds=1)
    state = started(SAMPLES[ev.StepFailed], ev.RetryScheduled("s", NODE, 2, due))
    node = state.at(NODE)
    assert (node.settled, node.attempts) == (None, 1)
    assert (state.root.retries, state.root.due_at) == (1, due)


def test_a_retry_around_wrappers_makes_them_begin_anew() -> None:
    state = started(
        ev.DeadlineSet("s/0", START),
        ev.StepFailed("s/0/0/0", "a", 1, BROKEN),
        ev.RetryScheduled("s/0/0", "s/0/0/0", 2, START),
        ev.StepInDoubt("s/0/0/0", "a", 2, UNKNOWN),
        ev.DeadlinePassed("s/0", ("s/0/0/0",)),
        ev.RetryScheduled("s", "s/0", 2, START),
    )
    outer, inner, leaf = state.at("s/0"), state.at("s/0/0"), state.at("s/0/0/0")
    assert (outer.deadline, outer.halted, inner.retries, inner.due_at) == (None, None, 0, None)
    assert (leaf.settled, leaf.attempts, leaf.doubtful) == (None, 2, True)


def test_undoing_passes_over_what_has_no_undo_and_never_asks_again() -> None:
    state = started(
        *(ev.StepSucceeded(f"s/{n}", f"n{n}", 1, Json("1")) for n in range(4)),
        SAMPLES[ev.CompensationStarted],
        ev.StepCompensated("s/2", "n2", 1, passed=("s/3",)),
    )
    assert (state.undo_stack, state.undone) == (("s/0", "s/1"), ["s/2"])


def test_a_scope_that_is_undone_leaves_what_others_completed() -> None:
    state = started(
        *(ev.StepSucceeded(f"s/{n}", f"n{n}", 1, Json("1")) for n in range(3)),
        ev.StepCompensated("s/1", "n1", 1),
    )
    assert state.undo_stack == ("s/0", "s/2")


def test_a_failed_undo_counts_and_its_retry_remembers_the_first_failure() -> None:
    due = START + timedelta(seconds=5)
    state = started(
        SAMPLES[ev.StepSucceeded],
        SAMPLES[ev.CompensationStarted],
        ev.CompensationFailed(NODE, "a", 1, BROKEN),
    )
    assert (state.at(NODE).undo_attempts, state.at(NODE).undo_failure) == (1, BROKEN)
    evolve(state, ev.CompensationRetryScheduled(NODE, "a", 2, due, START))
    node = state.at(NODE)
    assert (node.undo_failure, node.undo_due_at, node.undo_since) == (None, due, START)


def test_the_first_cancel_counts_and_all_are_read() -> None:
    state = started(
        ev.CancelRequested("ann", "first", 3, ()), ev.CancelRequested("bob", "second", 4, ())
    )
    assert state.cancel is not None
    assert state.cancel.actor == "ann"
    assert state.inbox_seen == 4


def test_a_cancel_of_what_is_stuck_counts_when_it_is_mended() -> None:
    state = started(SAMPLES[ev.SagaStuck], CANCEL)
    assert state.status is Status.STUCK
    assert state.halt is not None
    evolve(state, SAMPLES[ev.SagaResumed])
    assert (state.status, state.halt.reason) == (Status.RUNNING, "cancelled: why not")


def test_a_repair_leads_back_to_where_the_instance_stood() -> None:
    stuck = (SAMPLES[ev.CompensationStarted], SAMPLES[ev.SagaStuck])
    state = started(SAMPLES[ev.StepSucceeded], *stuck, SAMPLES[ev.StepRetried])
    assert (state.status, state.stuck) == (Status.COMPENSATING, None)


def test_stuck_once_more_as_a_whole_it_keeps_the_place_that_is_to_be_repaired() -> None:
    undo = (SAMPLES[ev.StepSucceeded], SAMPLES[ev.CompensationStarted])
    state = started(*undo, ev.SagaStuck(NODE, "a", "bank down"), ev.SagaStuck("", "", "old code"))
    assert state.stuck == ev.SagaStuck(NODE, "a", "old code")
    evolve(state, SAMPLES[ev.SagaResumed])
    assert state.status is Status.COMPENSATING


def test_what_runs_again_after_the_pivot_counts_its_retries_and_keeps_its_first_failure() -> None:
    later = START + timedelta(hours=1)
    state = started(
        SAMPLES[ev.StepFailed],
        ev.RetryScheduled(NODE, NODE, 2, START, since=START),
        ev.StepFailed(NODE, "a", 2, BROKEN),
        ev.RetryScheduled(NODE, NODE, 3, later, since=START),
    )
    node = state.at(NODE)
    assert (node.retries, node.due_at, node.since) == (2, later, START)


def test_what_a_person_has_tried_again_is_counted_anew() -> None:
    again = ev.StepRetried(NODE, "a", "ann", "mended", 1)
    begun = ev.RetryScheduled(NODE, NODE, 2, START, since=START)
    state = started(SAMPLES[ev.StepFailed], begun, SAMPLES[ev.SagaStuck], again)
    node = state.at(NODE)
    assert (node.retries, node.since, node.settled) == (0, None, None)


def test_ends_keep_their_result_or_reason() -> None:
    assert started(ev.SagaCompleted(Json("42"))).result == "42"
    stuck = ev.SagaStuck(NODE, "a", "why")
    assert started(stuck).stuck == stuck
    back = started(SAMPLES[ev.CompensationStarted], ev.SagaCompensated("broken"))
    assert (back.reason, back.failure) == ("broken", BROKEN)


def test_looking_at_a_place_where_nothing_happened_keeps_nothing() -> None:
    state = started()
    assert state.root.child("7").settled is None
    assert state == started()
