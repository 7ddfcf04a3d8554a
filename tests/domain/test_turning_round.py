"""Cancels, deadlines and terminations: what they cut off, what they let settle, what they undo."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import each, loop
from orchestrator.domain.commands import RunStep
from orchestrator.domain.decider import EVENT_LIMIT
from orchestrator.domain.definition import pure
from orchestrator.domain.events import Status
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from tests.parts import doubtable, kept, plain, saga
from tests.spec import DECLINED, given, kinds

GO = Signal("go", Any)


def test_cancel_compensates_and_is_recorded_with_actor_and_reason() -> None:
    """(10) Cancel compensates; recorded with actor and reason."""
    run = given(saga(kept("a") >> kept("b") >> kept("c"))).when_step_takes("b", 9)
    run.when_cancelled_after(5, "a better offer").then_runs("a", "b").then_undoes("b", "a")
    run.ends("compensated", because="cancelled: a better offer")
    [cancel] = run.all(ev.CancelRequested)
    assert (cancel.actor, cancel.reason) == ("ann", "a better offer")


def test_cancel_lets_a_running_step_settle_and_starts_nothing_new() -> None:
    """(Cancel) lets a running step settle (within its time-out) before it compensates."""
    body = doubtable("a").timeout(20) >> kept("b")
    run = given(saga(body)).when_step_takes("a", 60).when_cancelled_after(5)
    run.then_runs("a").then_undoes("a").ends("compensated", because="cancelled").then_took(20)


@pytest.mark.parametrize(
    "waiting",
    [
        sleep(600),
        GO.wait(),
        plain("r").retry(3, initial=600),
        loop(plain("b"), until=lambda _: False, max_iterations=2, pause=600),
        Timeout(GO.wait() >> plain("b"), 600),
    ],
    ids=repr,
)
def test_cancel_does_not_wait_for_what_only_waits(waiting: Any) -> None:
    """(Cancel) nothing new is started, and time is not waited for."""
    run = given(saga(kept("a") >> waiting >> plain("c"))).when_step_fails("r", times=1)
    run.when_cancelled_after(5).then_undoes("a").ends("compensated", "cancelled").then_took(5)


def test_a_step_that_a_guard_holds_was_not_begun_when_a_cancel_comes() -> None:
    """(Cancel) nothing new is started; (12) what a circuit holds was never called."""
    run = given(saga(kept("a") >> kept("b"))).when_step_is_held("b", by="circuit c", until=60)
    run.when_cancelled_after(5).then_undoes("a").ends("compensated")


def test_a_step_that_runs_after_a_guard_held_it_settles_when_a_cancel_comes() -> None:
    """(Cancel) lets a running step settle; (12) what was held before runs like any other."""
    run = given(saga(kept("a") >> kept("b"))).when_step_takes("b", 9)
    run.when_step_is_held("b", by="circuit c", until=60).when_cancelled_after(65)
    run.then_undoes("b", "a").ends("compensated").then_took(69)


def test_a_branch_that_runs_after_a_guard_held_it_settles_when_another_one_fails() -> None:
    """(7) Branches settle before the block fails."""
    run = given(saga((kept("a") | plain("b") | kept("c")).with_options(limit=3)))
    run.when_step_is_held("a", by="circuit c", until=60).when_step_takes("a", 9)
    run.when_step_is_held("b", by="circuit c", until=65).when_step_fails("b")
    run.then_undoes("a", "c").ends("compensated")


def test_cancel_while_everything_settles_undoes_all_branches() -> None:
    """(10) Cancel compensates, also in branches and lists."""
    body = plain("list") >> each(kept("a") >> kept("b"), concurrency=2)
    run = given(saga(body)).when_step_gives("list", "[1,2,3]").when_step_takes("b", 9)
    run.when_cancelled_after(5).then_undoes("b", "b", "a", "a").ends("compensated")


def test_cancel_of_what_is_stuck_takes_effect_when_it_is_mended() -> None:
    """(10) Cancel compensates; a person is needed first."""
    body = kept("x") >> (kept("a") >> plain("b")).fallback(plain("c"))
    run = given(saga(body)).when_step_fails("b").when_undo_fails("a", failure=DECLINED, times=1)
    run.ends("stuck").repaired("cancel", reason="enough").ends("stuck")
    run.repaired("retry").then_undoes("a", "x").ends("compensated", because="cancelled: enough")
    assert "c" not in [command.step.name for command in run.begun(RunStep)]


def test_cancel_during_compensation_is_accepted_without_effect() -> None:
    """(Cancel) during compensation it is accepted without effect."""
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=3)
    run.when_cancelled_after(1).then_undoes("a").ends("compensated", because="broken")


def test_the_deadline_of_the_saga_compensates_and_cuts_running_steps_off() -> None:
    """(Deadline) Before the pivot it cuts running steps off (they are then in doubt)."""
    body = kept("a") >> doubtable("b") >> plain("c")
    run = given(saga(body, deadline=10)).when_step_takes("b", 60)
    run.then_undoes("b", "a").ends("compensated", because="the deadline passed").then_took(10)
    assert [event.step for event in run.all(ev.StepInDoubt)] == ["b"]


def test_the_deadline_counts_from_the_request_and_survives_a_crash() -> None:
    """(10) The deadline of the whole saga, from its request on."""
    run = given(saga(kept("a") >> doubtable("b"), deadline=10)).when_step_takes("b", 6)
    run.run.now += timedelta(seconds=7)
    run.ends("compensated", because="the deadline passed").then_took(10)


def test_a_deadline_that_passed_before_anything_began_leaves_no_doubt() -> None:
    """(Deadline) What was not begun is not in doubt."""
    run = given(saga(kept("a"), deadline=10))
    run.run.now += timedelta(seconds=60)
    run.then_runs().then_undoes().ends("compensated", because="the deadline passed")


def test_the_deadline_ends_waits_and_undoes_what_was_done() -> None:
    """(10) The deadline of the whole saga compensates."""
    run = given(saga(kept("a") >> GO.wait(), deadline=10)).then_undoes("a")
    run.ends("compensated", because="the deadline passed").then_took(10)


def test_a_cancel_that_came_before_the_deadline_is_the_reason_that_is_told() -> None:
    """(10) All are recorded; the first one turns the saga round."""
    run = given(saga(kept("a") >> plain("b"), deadline=10)).when_step_takes("b", 60)
    run.when_cancelled_after(5).ends("compensated", because="cancelled")


def test_what_a_cancel_let_run_is_cut_off_by_the_deadline_all_the_same() -> None:
    """(Deadline) It cuts running steps off, whatever else happened."""
    run = given(saga(doubtable("a"), deadline=10)).when_step_takes("a", 60).when_cancelled_after(5)
    run.then_undoes("a").ends("compensated", because="cancelled").then_took(10)


def test_terminate_stops_without_compensation_and_is_recorded() -> None:
    """(10) Terminate stops without; recorded with actor and reason."""
    run = given(saga(kept("a") >> plain("b"))).when_step_takes("b", 9)
    run.when_told("terminate", 5, reason="enough").then_undoes().ends("terminated", "enough")
    [event] = run.all(ev.SagaTerminated)
    assert (event.actor, event.reason) == ("ann", "enough")
    assert kinds(run.history)[-1] == "SagaTerminated"


@pytest.mark.parametrize("status", [Status.COMPENSATING, Status.STUCK])
def test_terminate_ends_what_is_going_back_or_stuck(status: Status) -> None:
    """(Statuses) any live → terminated."""
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b")
    if status is Status.STUCK:
        run.when_undo_fails("a", failure=DECLINED).ends("stuck")
        run.repaired("terminate", reason="enough").ends("terminated")
    else:
        run.when_undo_fails("a").when_told("terminate", 5, reason="enough").ends("terminated")


def test_a_first_step_that_fails_with_nothing_to_undo_ends_as_compensated() -> None:
    """(Statuses) A first step that fails with nothing to undo ends as `compensated`."""
    given(saga(plain("a"))).when_step_fails("a").ends("compensated", because="broken")


def test_a_time_out_turns_round_its_own_part_only() -> None:
    """(6, 10) What stands beside it goes on."""
    body = (Timeout(kept("a") >> GO.wait(), 5).fallback(plain("b")) | kept("c")) >> plain("d")
    run = given(saga(body)).when_step_takes("c", 60).then_undoes("a").ends("completed")
    assert run.begun(RunStep)[-1].step.name == "d"


def test_a_time_out_is_an_event_and_survives_a_crash() -> None:
    """(11) The due time is an event, so it survives a crash."""
    body = Timeout(plain("a") >> GO.wait(), 10)
    run = given(saga(body)).when_step_takes("a", 4).when_it_crashes_after(ev.WaitStarted)
    run.run.now += timedelta(seconds=3)
    run.ends("compensated", because="not done within 10 s").then_took(10)


def test_cancel_inside_a_scope_undoes_the_scope_and_then_the_rest() -> None:
    """(2, 10) One reverse order."""
    body = kept("x") >> Retry(Scope(kept("a") >> kept("b")) >> kept("c"), 2)
    run = given(saga(body)).when_step_takes("c", 9).when_cancelled_after(5)
    run.then_undoes("c", "b", "a", "x").ends("compensated")


def test_a_history_that_grew_too_long_turns_round() -> None:
    """(Limits) An instance that cannot be folded safely any more is taken back."""
    run = given(saga(kept("a") >> plain("b") >> plain("c"))).when_step_takes("b", 9)
    run.run.turn()
    run.run.work()
    run.run.state.version = EVENT_LIMIT
    run.then_runs("a", "b").then_undoes("a").ends("compensated", because="history grew too long")


def test_nothing_is_computed_any_more_once_the_saga_turned_round() -> None:
    """(Cancel) nothing new is started, plain functions neither."""
    run = given(saga(kept("a") >> pure(str))).when_step_takes("a", 9).when_cancelled_after(5)
    run.ends("compensated")
    assert run.all(ev.ValueComputed) == []
