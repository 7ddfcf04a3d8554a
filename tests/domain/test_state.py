"""The fold: every legal and illegal move, and what each fact changes."""

from __future__ import annotations

import copy
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.events import ENDED, EVENT_TYPES, Event, Json, Status
from orchestrator.domain.state import TRANSITIONS, SagaState, Settled, evolve, fold
from orchestrator.errors import IllegalTransitionError
from tests.spec import BROKEN, SAGA_ID, START, UNKNOWN

NODE = "s/0"
SAMPLES: dict[type[Event], Event] = {
    type(event): event
    for event in (
        ev.SagaStarted("s", 1, "f", START, Json("7"), {"user_id": "ann"}),
        ev.StepStarted(NODE, "a", 1),
        ev.StepSucceeded(NODE, "a", 1, Json("1")),
        ev.StepFailed(NODE, "a", 1, BROKEN),
        ev.StepInDoubt(NODE, "a", 1, UNKNOWN),
        ev.ValueComputed(NODE, "p", Json("1")),
        ev.ComputationFailed(NODE, "p", BROKEN),
        ev.RetryScheduled("s", NODE, 2, START),
        ev.DeadlineSet("s", START),
        ev.DeadlinePassed("s", (NODE,)),
        ev.CancelRequested("ann", "why not", 1, ()),
        ev.CompensationStarted("broken", BROKEN),
        ev.StepCompensated(NODE, "a", 1),
        ev.CompensationFailed(NODE, "a", 1, BROKEN),
        ev.CompensationRetryScheduled(NODE, "a", 2, START, START),
        ev.SagaCompleted(Json("1")),
        ev.SagaCompensated("broken"),
        ev.SagaStuck(NODE, "a", "why"),
    )
}

FORWARD = {
    ev.StepStarted, ev.StepSucceeded, ev.StepFailed, ev.StepInDoubt, ev.ValueComputed,
    ev.ComputationFailed, ev.RetryScheduled, ev.DeadlineSet, ev.DeadlinePassed,
}  # fmt: skip
BACKWARD = {ev.StepCompensated, ev.CompensationFailed, ev.CompensationRetryScheduled}
LEGAL: dict[Status, set[type[Any]]] = {
    Status.PENDING: {ev.SagaStarted, ev.SagaStuck},
    Status.RUNNING: {
        *FORWARD, *BACKWARD, ev.CancelRequested, ev.CompensationStarted, ev.SagaCompleted,
        ev.SagaStuck,
    },
    Status.COMPENSATING: {*BACKWARD, ev.CancelRequested, ev.SagaCompensated, ev.SagaStuck},
}  # fmt: skip
LEADS_TO = {
    ev.CompensationStarted: Status.COMPENSATING,
    ev.SagaCompleted: Status.COMPLETED,
    ev.SagaCompensated: Status.COMPENSATED,
    ev.SagaStuck: Status.STUCK,
    ev.SagaStarted: Status.RUNNING,
}


def standing(status: Status) -> SagaState:
    """An instance in *status*, with one completed step."""
    state = SagaState(SAGA_ID)
    if status is not Status.PENDING:
        evolve(state, SAMPLES[ev.SagaStarted])
        evolve(state, SAMPLES[ev.StepSucceeded])
    state.status = status
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


@pytest.mark.parametrize("status", [*ENDED, Status.STUCK])
def test_nothing_follows_an_end(status: Status) -> None:
    assert TRANSITIONS[status] == {}


def test_what_is_not_there_cannot_be_compensated() -> None:
    for state in (started(), standing(Status.COMPENSATING)):
        before = copy.deepcopy(state)
        with pytest.raises(IllegalTransitionError, match="nothing there is to be undone"):
            evolve(state, ev.StepCompensated("s/9", "z", 1))
        assert state == before


def test_an_instance_begins_with_what_was_asked_for() -> None:
    state = started()
    assert (state.saga, state.saga_version, state.fingerprint) == ("s", 1, "f")
    assert (state.input, state.context, state.version) == ("7", {"user_id": "ann"}, 1)


def test_a_success_records_its_output_and_stands_on_the_undo_stack() -> None:
    state = started(SAMPLES[ev.StepSucceeded])
    assert state.at(NODE).settled is Settled.SUCCEEDED
    assert (state.outputs, state.undo_stack) == ({"a": "1"}, [NODE])


def test_a_failure_does_not_stand_on_the_undo_stack() -> None:
    state = started(SAMPLES[ev.StepFailed])
    assert (state.at(NODE).failure, state.undo_stack) == (BROKEN, [])


def test_doubt_stands_once_and_where_it_was_recorded_first() -> None:
    doubt = SAMPLES[ev.StepInDoubt]
    other = ev.StepSucceeded("s/1", "b", 1, Json("2"))
    state = started(doubt, other, ev.RetryScheduled("s", NODE, 2, START), doubt)
    assert state.undo_stack == [NODE, "s/1"]


def test_a_success_settles_the_doubt_and_moves_up() -> None:
    other = ev.StepSucceeded("s/1", "b", 1, Json("2"))
    state = started(SAMPLES[ev.StepInDoubt], other, ev.StepSucceeded(NODE, "a", 2, Json("1")))
    assert state.undo_stack == ["s/1", NODE]
    assert not state.at(NODE).doubtful


def test_doubt_outlives_a_later_failure() -> None:
    state = started(SAMPLES[ev.StepInDoubt], ev.StepFailed(NODE, "a", 2, BROKEN))
    assert state.at(NODE).doubtful
    assert state.undo_stack == [NODE]


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
        ev.StepCompensated("s/2", "n2", 1),
    )
    assert (state.undo_stack, state.undone) == (["s/0", "s/1"], ["s/2"])


def test_a_scope_that_is_undone_leaves_what_others_completed() -> None:
    state = started(
        *(ev.StepSucceeded(f"s/{n}", f"n{n}", 1, Json("1")) for n in range(3)),
        ev.StepCompensated("s/1", "n1", 1),
    )
    assert state.undo_stack == ["s/0", "s/2"]


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
