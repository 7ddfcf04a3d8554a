"""What the language means, one sentence a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.commands import Plan, RunCompensation, RunStep, Succeeded
from orchestrator.domain.decider import plan
from orchestrator.domain.definition import Parallel, Primitive, Sequential, pure
from orchestrator.domain.events import ENDED, Failure, Status
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState
from orchestrator.domain.steps import Step, step
from orchestrator.domain.wrappers import Retry, Timeout
from tests.spec import BROKEN, DECLINED, START, UNKNOWN, Drive, given, kinds

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.errors.DefinitionWarning")


async def act(value: Any, ctx: Any) -> Any:
    return value


async def take_back(done: Any, ctx: Any) -> None:
    return None


def plain(name: str, **options: Any) -> Step[Any, Any]:
    decorate: Any = step(name=name, **options)
    made: Step[Any, Any] = decorate(act)
    return made


def kept(name: str, **options: Any) -> Step[Any, Any]:
    """A step with a compensation."""
    return plain(name, **options).undo(take_back)


def doubtable(name: str, **options: Any) -> Step[Any, Any]:
    """A step with a compensation on doubt only."""
    made = plain(name, **options)
    made.compensation_on_doubt(take_back)
    return made


def saga(body: Primitive[Any, Any]) -> Saga[Any, Any]:
    return Saga("s", 1, body)


@pytest.fixture
def order() -> Saga[Any, Any]:
    return saga(kept("reserve") >> kept("charge") >> plain("ship"))


# ---------------------------------------------------------------------------- forward and back


def test_runs_in_order_and_hands_each_output_on(order: Saga[Any, Any]) -> None:
    run = given(order, input="7").when_step_gives("ship", "42").ends("completed")
    run.then_runs("reserve", "charge", "ship").then_undoes()
    assert [c.input for c in run.begun(RunStep)] == ["7", '"reserve"', '"charge"']
    assert run.result() == "42"


def test_undoes_in_reverse_order_of_completion(order: Saga[Any, Any]) -> None:
    run = given(order).when_step_fails("ship").then_undoes("charge", "reserve")
    run.ends("compensated", because="RuntimeError: broken")


def test_undo_order_across_parallel_branches_is_the_reverse_of_completion() -> None:
    body = kept("hold") >> (kept("pay") >> kept("note") | kept("parcel")) >> plain("end")
    run = given(saga(body)).when_step_takes("pay", 1).when_step_takes("parcel", 2)
    run.when_step_takes("note", 3).when_step_fails("end")
    run.then_undoes("note", "parcel", "pay", "hold").ends("compensated")


def test_a_failed_step_is_not_undone_itself() -> None:
    body = kept("a") >> kept("b")
    given(saga(body)).when_step_fails("b").then_undoes("a").ends("compensated")


def test_a_first_step_that_fails_with_nothing_to_undo_ends_as_compensated() -> None:
    given(saga(plain("a"))).when_step_fails("a").then_undoes().ends("compensated")


def test_a_step_without_compensation_is_passed_over() -> None:
    body = kept("a") >> plain("b") >> kept("c") >> plain("d")
    given(saga(body)).when_step_fails("d").then_undoes("c", "a").ends("compensated")


def test_a_single_step_can_be_the_whole_flow() -> None:
    given(saga(kept("a")), input="1").then_runs("a").ends("completed")


# ---------------------------------------------------------------------------- parallel


def test_a_parallel_block_gives_a_tuple_in_written_order() -> None:
    run = given(saga(plain("a") | plain("b") | plain("c"))).when_step_takes("a", 5)
    assert run.result() == '["a","b","c"]'


def test_branches_settle_before_they_fail() -> None:
    body = kept("quick") | kept("slow") >> kept("slower")
    run = given(saga(body)).when_step_fails("quick").when_step_takes("slow", 5)
    run.then_undoes("slower", "slow").ends("compensated")
    turned = kinds(run.history).index("CompensationStarted")
    assert "StepSucceeded" not in kinds(run.history)[turned:]


def test_all_errors_of_a_parallel_block_are_kept() -> None:
    run = (
        given(saga(plain("a") | plain("b")))
        .when_step_fails("a")
        .when_step_fails("b", failure=DECLINED)
    )
    run.ends("compensated")
    failure = run.drive.state.failure
    assert failure is not None
    assert failure.causes == (BROKEN, DECLINED)
    assert failure.permanent


def test_one_failed_branch_fails_the_block_with_its_own_error() -> None:
    run = given(saga(plain("a") | plain("b"))).when_step_fails("b").ends("compensated")
    assert run.drive.state.failure == BROKEN


def test_a_stuck_branch_lets_its_sibling_settle_and_is_the_last_word() -> None:
    body = Retry(kept("a") >> plain("b"), 1) | Retry(kept("c") >> plain("d"), 1)
    run = given(saga(body)).when_step_fails("b").when_step_fails("d").when_step_takes("c", 9)
    run.when_undo_fails("a", failure=DECLINED).when_undo_fails("c", failure=DECLINED)
    run.ends("stuck", because="compensation of a")
    assert kinds(run.history).count("SagaStuck") == 1
    assert run.all(ev.CompensationFailed)[-1].step == "c"


# ---------------------------------------------------------------------------- retry


def test_a_retry_waits_and_runs_again_under_the_same_path() -> None:
    body = Retry(plain("a"), 3, jitter=False)
    run = given(saga(body)).when_step_fails("a", times=2).then_runs("a", "a", "a")
    run.then_waits(1, 2).ends("completed")
    assert {c.path for c in run.begun(RunStep)} == {"s/0"}
    assert [c.attempt for c in run.begun(RunStep)] == [1, 2, 3]


def test_a_retry_that_is_used_up_gives_the_last_failure() -> None:
    body = kept("a") >> Retry(plain("b"), 2, jitter=False)
    run = given(saga(body)).when_step_fails("b").then_runs("a", "b", "b", "b")
    run.then_undoes("a").ends("compensated", because="broken")


def test_waits_never_exceed_the_cap() -> None:
    body = Retry(plain("a"), 5, initial=1, factor=10, cap=20, jitter=False)
    given(saga(body)).when_step_fails("a").then_waits(1, 10, 20, 20, 20)


def test_an_action_may_ask_for_a_longer_wait() -> None:
    busy = replace(BROKEN, retry_after=30.0)
    body = Retry(plain("a"), 1, jitter=False)
    given(saga(body)).when_step_fails("a", times=1, failure=busy).then_waits(30).ends("completed")


def test_permanent_is_not_retried() -> None:
    body = Retry(plain("a"), 5)
    given(saga(body)).when_step_fails("a", failure=DECLINED).then_runs("a").ends("compensated")


def test_one_permanent_failure_among_branches_stops_the_retry() -> None:
    run = given(saga(Retry(plain("a") | plain("b"), 5))).when_step_fails("a")
    run.when_step_fails("b", failure=DECLINED).ends("compensated")
    assert run.all(ev.RetryScheduled) == []


@pytest.mark.parametrize(
    ("on", "runs"),
    [
        ((RuntimeError,), 2),
        ((Exception,), 2),
        ((ValueError,), 1),
        ((ValueError, RuntimeError), 2),
        ((), 2),
    ],
)
def test_retry_on_narrows_what_is_retried(on: tuple[type[Exception], ...], runs: int) -> None:
    run = given(saga(Retry(plain("a"), 1, on=on))).when_step_fails("a")
    run.then_runs(*["a"] * runs).ends("compensated")


def test_retry_on_matches_any_error_of_a_group() -> None:
    late = Failure("TimeoutError", "late", ("builtins.TimeoutError",))
    body = Retry(plain("a") | plain("b"), 1, on=(TimeoutError,))
    run = given(saga(body)).when_step_fails("a", times=1)
    run.when_step_fails("b", times=1, failure=late).ends("completed")
    assert len(run.all(ev.RetryScheduled)) == 1


def test_doubt_is_resolved_forward_by_running_again_with_the_same_path() -> None:
    run = given(saga(Retry(kept("a"), 1))).when_step_is_in_doubt("a", times=1).ends("completed")
    assert [c.path for c in run.begun(RunStep)] == ["s/0", "s/0"]


# ---------------------------------------------------------------------------- scopes


def test_a_scope_is_undone_before_its_next_attempt_which_gets_a_fresh_path() -> None:
    body = Retry(kept("a") >> plain("b"), 2, jitter=False)
    run = given(saga(body)).when_step_fails("b", times=1).ends("completed")
    run.then_runs("a", "b", "a", "b").then_undoes("a")
    assert [c.path for c in run.begun(RunStep)] == ["s/0/0", "s/0/1", "s/0@2/0", "s/0@2/1"]
    undone = kinds(run.history).index("StepCompensated")
    assert undone < kinds(run.history).index("RetryScheduled")


def test_a_scope_leaves_nothing_behind_when_its_last_attempt_fails() -> None:
    body = kept("first") >> Retry(kept("a") >> plain("b"), 1)
    run = given(saga(body)).when_step_fails("b").then_undoes("a", "a", "first")
    run.ends("compensated")
    turned = kinds(run.history).index("CompensationStarted")
    assert kinds(run.history)[:turned].count("StepCompensated") == 2


def test_a_scope_inside_a_scope_is_undone_from_the_inside() -> None:
    body = Retry(kept("a") >> Retry(kept("b") >> plain("c"), 1) >> plain("d"), 1)
    run = given(saga(body)).when_step_fails("c", times=2).ends("completed")
    run.then_undoes("b", "b", "a")
    assert run.begun(RunStep)[-1].path == "s/0@2/2"


def test_a_parallel_scope_is_undone_while_its_sibling_runs() -> None:
    body = Retry(kept("a") >> plain("b"), 1, jitter=False) | kept("slow")
    run = given(saga(body)).when_step_fails("b", times=1).when_step_takes("slow", 60)
    run.then_undoes("a").ends("completed")


def test_a_scope_undoes_nothing_of_a_neighbour_whose_path_begins_alike() -> None:
    scope = Retry(kept("a") >> plain("b"), 1, jitter=False)
    branches = [kept(f"k{n}") for n in range(11)]
    run = given(saga(Parallel((branches[0], scope, *branches[1:])))).when_step_fails("b", times=1)
    run.then_undoes("a").ends("completed")


def test_a_scope_with_an_unsettled_step_is_stuck_while_the_saga_goes_forward() -> None:
    body = Retry(kept("a") >> plain("b"), 1)
    run = given(saga(body)).when_step_is_in_doubt("a").ends("stuck", because="nobody knows")
    assert run.drive.state.stuck is not None
    assert run.drive.state.stuck.step == "a"


def test_the_output_after_a_repeated_scope_is_that_of_the_last_attempt() -> None:
    body = Retry(plain("a") >> plain("b"), 1) >> kept("c") >> plain("d")
    run = given(saga(body)).when_step_fails("b", times=1).when_step_fails("d").ends("compensated")
    assert run.begun(RunCompensation)[0].input == '"b"'


# ---------------------------------------------------------------------------- time-outs


def test_a_timeout_inside_a_retry_bounds_each_attempt() -> None:
    body = Retry(Timeout(doubtable("a"), 10), 2, jitter=False)
    run = given(saga(body)).when_step_takes("a", 60).ends("compensated", because="TimeoutError")
    run.then_runs("a", "a", "a").then_undoes("a")
    assert run.all(ev.DeadlineSet) == []
    assert (run.drive.now - START).total_seconds() == 10 + 1 + 10 + 2 + 10


def test_a_timeout_around_a_retry_bounds_them_all() -> None:
    body = Timeout(Retry(doubtable("a"), 99, initial=4, factor=1, jitter=False), 10)
    run = given(saga(body)).when_step_fails("a").ends("compensated", because="not done within 10 s")
    run.then_runs("a", "a", "a")
    assert (run.drive.now - START).total_seconds() == 10


def test_what_runs_when_a_timeout_ends_is_in_doubt_and_undone() -> None:
    body = Timeout(kept("a") >> doubtable("b") >> plain("c"), 10)
    run = given(saga(body)).when_step_takes("a", 4).when_step_takes("b", 60)
    run.then_runs("a", "b").then_undoes("b", "a").ends("compensated", because="TimeoutError")
    assert [e.step for e in run.all(ev.StepInDoubt)] == ["b"]


def test_a_deadline_that_passes_while_a_retry_waits_leaves_no_doubt() -> None:
    body = Timeout(Retry(kept("a"), 9, initial=60, jitter=False) >> plain("b"), 10)
    run = given(saga(body)).when_step_fails("a").ends("compensated", because="not done within 10 s")
    assert run.all(ev.DeadlinePassed) == [ev.DeadlinePassed("s", ())]
    assert run.all(ev.StepInDoubt) == []


def test_a_step_that_was_due_after_the_deadline_was_never_begun_and_is_not_in_doubt() -> None:
    body = Timeout(Retry(kept("a"), 9, initial=10, jitter=False) >> plain("b"), 10)
    run = given(saga(body)).when_step_fails("a").then_runs("a").ends("compensated")
    assert run.all(ev.StepInDoubt) == []


def test_the_inner_of_two_timeouts_wins_when_it_is_shorter() -> None:
    body = Timeout(Timeout(plain("a"), 5), 9)
    run = given(saga(body)).when_step_takes("a", 60).ends("compensated")
    assert (run.drive.now - START).total_seconds() == 5


def test_an_outer_timeout_bounds_what_an_inner_one_would_allow() -> None:
    body = Timeout(plain("a") >> Timeout(doubtable("b") >> plain("c"), 60), 10)
    run = given(saga(body)).when_step_takes("a", 8).when_step_takes("b", 60).ends("compensated")
    assert (run.drive.now - START).total_seconds() == 10


def test_a_time_out_that_fires_while_a_scope_inside_it_undoes_lets_the_undo_finish() -> None:
    body = Timeout(Retry(kept("a") >> plain("b"), 5, jitter=False), 10)
    run = given(saga(body)).when_step_fails("b").when_undo_fails("a", times=4)
    run.then_undoes("a").ends("compensated", because="not done within 10 s")
    names = kinds(run.history)
    assert names.index("DeadlinePassed") < names.index("StepCompensated")


def test_a_timeout_that_is_not_needed_leaves_only_its_beginning() -> None:
    run = given(saga(Timeout(plain("a") >> plain("b"), 10))).ends("completed")
    assert kinds(run.history) == [
        "SagaStarted", "DeadlineSet", "StepSucceeded", "StepSucceeded", "SagaCompleted",
    ]  # fmt: skip


def test_a_timeout_scope_is_undone_before_a_retry_around_it() -> None:
    body = Retry(Timeout(kept("a") >> plain("b"), 10), 1, jitter=False)
    run = given(saga(body)).when_step_is_in_doubt("b", times=1).then_undoes("a").ends("completed")
    assert run.begun(RunStep)[2].path == "s/0@2/0/0"


# ---------------------------------------------------------------------------- cancel


def test_cancel_lets_what_runs_settle_and_starts_nothing_new() -> None:
    body = kept("a") >> kept("b") >> kept("c")
    run = given(saga(body)).when_step_takes("b", 10).when_cancelled_after(5)
    run.then_runs("a", "b").then_undoes("b", "a")
    run.ends("compensated", because="cancelled: changed my mind")


def test_cancel_is_recorded_with_what_is_under_way() -> None:
    run = given(saga(kept("a") | kept("b") | kept("c") >> plain("d")))
    run.when_step_takes("b", 10).when_step_takes("c", 10).when_cancelled_after(5)
    run.then_undoes("c", "b", "a").ends("compensated")
    assert run.all(ev.CancelRequested)[0].running == ("s/1", "s/2/0")


def test_cancel_when_everything_is_done_still_takes_it_back() -> None:
    drive = Drive(saga(kept("a")), lambda c: (Succeeded(), START - START))
    drive.turn()
    drive.cancel()
    assert drive.run().state.status == "compensated"
    assert drive.state.undone == ["s"]


def test_cancel_ends_the_wait_for_a_retry() -> None:
    body = kept("a") >> Retry(kept("b"), 9, initial=1_000, jitter=False)
    run = given(saga(body)).when_step_fails("b").when_cancelled_after(5)
    run.then_runs("a", "b").then_undoes("a").ends("compensated", because="cancelled")
    assert (run.drive.now - START).total_seconds() == 5


def test_a_running_step_that_fails_after_a_cancel_is_not_retried() -> None:
    run = given(saga(Retry(kept("a"), 9))).when_step_fails("a").when_step_takes("a", 10)
    run.when_cancelled_after(5).then_runs("a").ends("compensated", because="cancelled")


def test_cancel_does_not_compute_any_more() -> None:
    drive = Drive(saga(plain("a").map(str)), lambda c: (Succeeded(), START - START))
    drive.turn()
    drive.cancel()
    assert "ValueComputed" not in kinds(drive.run().history)


def test_a_second_cancel_changes_nothing() -> None:
    drive = Drive(saga(kept("a") >> kept("b")), lambda c: (Succeeded(), START - START))
    drive.turn()
    drive.cancel("first")
    drive.cancel("second")
    drive.run()
    assert drive.state.reason == "cancelled: first"
    assert drive.state.inbox_seen == 2


def test_cancel_during_compensation_is_accepted_without_effect() -> None:
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=3)
    run.when_cancelled_after(1).then_undoes("a").ends("compensated", because="broken")
    assert len(run.all(ev.CancelRequested)) == 1


def test_cancel_undoes_a_scope_where_it_stands() -> None:
    body = kept("first") >> Retry(kept("a") >> kept("b"), 3)
    run = given(saga(body)).when_step_takes("b", 10).when_cancelled_after(5)
    run.then_undoes("b", "a", "first").ends("compensated", because="cancelled")


# ---------------------------------------------------------------------------- doubt


def test_a_step_in_doubt_is_undone_by_its_on_doubt_handler_without_an_output() -> None:
    run = given(saga(kept("a") >> doubtable("b"))).when_step_is_in_doubt("b")
    run.then_undoes("b", "a").ends("compensated")
    first = run.begun(RunCompensation)[0]
    assert (first.on_doubt, first.output, first.input) == (True, None, '"a"')


def test_an_on_doubt_handler_alone_also_undoes_the_completed_step_with_its_output() -> None:
    run = given(saga(doubtable("a") >> plain("b"))).when_step_fails("b").then_undoes("a")
    undo = run.ends("compensated").begun(RunCompensation)[0]
    assert (undo.on_doubt, undo.output) == (True, '"a"')


def test_with_both_declared_a_completed_step_gets_its_compensation() -> None:
    both = doubtable("a").undo(take_back)
    run = given(saga(both >> plain("b"))).when_step_fails("b").then_undoes("a")
    assert run.begun(RunCompensation)[0].on_doubt is False


def test_a_compensable_step_in_doubt_without_a_handler_is_stuck_and_older_ones_wait() -> None:
    run = given(saga(kept("a") >> kept("b"))).when_step_is_in_doubt("b").then_undoes()
    run.ends("stuck", because="nobody knows whether b happened (TimeoutError: no answer)")


def test_a_step_in_doubt_with_nothing_to_undo_is_passed_over() -> None:
    run = given(saga(kept("a") >> plain("b"))).when_step_is_in_doubt("b")
    run.then_undoes("a").ends("compensated")


def test_doubt_sticks_when_a_later_attempt_fails_definitely() -> None:
    run = given(saga(Retry(doubtable("a"), 1))).when_step_is_in_doubt("a", times=1)
    run.when_step_fails("a").then_runs("a", "a").then_undoes("a").ends("compensated")


def test_doubt_sticks_through_a_permanent_failure() -> None:
    run = given(saga(Retry(kept("a"), 3))).when_step_is_in_doubt("a", times=1)
    run.when_step_fails("a", failure=DECLINED).then_runs("a", "a").ends("stuck")


def test_doubt_sticks_when_a_cancel_ends_the_wait_for_the_next_attempt() -> None:
    run = given(saga(Retry(doubtable("a"), 3))).when_step_is_in_doubt("a")
    run.when_cancelled_after(0.1).then_runs("a").then_undoes("a").ends("compensated")


def test_a_later_success_settles_the_doubt() -> None:
    body = Retry(kept("a"), 1) >> plain("b")
    run = given(saga(body)).when_step_is_in_doubt("a", times=1).when_step_fails("b")
    run.then_undoes("a").ends("compensated")
    assert run.begun(RunCompensation)[0].output == '"a"'


def test_a_success_after_doubt_stands_where_it_completed() -> None:
    body = (Retry(kept("a"), 1, initial=5, jitter=False) | kept("b")) >> plain("c")
    run = given(saga(body)).when_step_is_in_doubt("a", times=1).when_step_takes("b", 1)
    run.when_step_fails("c").then_undoes("a", "b").ends("compensated")


def test_a_step_in_doubt_is_undone_where_its_doubt_was_recorded() -> None:
    body = doubtable("a") | kept("b")
    run = given(saga(body)).when_step_is_in_doubt("a").when_step_takes("b", 5)
    run.then_undoes("b", "a").ends("compensated")


def test_a_result_that_cannot_be_recorded_is_not_run_again() -> None:
    lost = replace(UNKNOWN, permanent=True)
    run = given(saga(Retry(doubtable("a"), 5))).when_step_is_in_doubt("a", failure=lost)
    run.then_runs("a").then_undoes("a").ends("compensated")


# ---------------------------------------------------------------------------- undo policy


def undone_with(**options: Any) -> Saga[Any, Any]:
    first = plain("a")
    first.compensation(**options)(take_back)
    return saga(first >> plain("b"))


def test_a_failed_undo_is_retried_until_it_succeeds() -> None:
    run = given(undone_with()).when_step_fails("b").when_undo_fails("a", times=5)
    run.then_undoes("a").ends("compensated")
    assert [c.attempt for c in run.begun(RunCompensation)] == [1, 2, 3, 4, 5, 6]


def test_an_undo_that_used_up_its_retries_is_stuck() -> None:
    run = given(undone_with(retries=2)).when_step_fails("b").when_undo_fails("a")
    run.then_undoes().ends("stuck", because="failed 3 time(s), the last with RuntimeError: broken")


def test_an_undo_with_no_retries_is_stuck_at_its_first_failure() -> None:
    run = given(undone_with(retries=0)).when_step_fails("b").when_undo_fails("a").ends("stuck")
    assert len(run.begun(RunCompensation)) == 1


def test_an_undo_without_a_limit_is_given_up_after_a_day() -> None:
    run = given(undone_with()).when_step_fails("b").when_undo_fails("a", times=5_000)
    run.ends("stuck")
    assert 24 * 3600 <= (run.drive.now - START).total_seconds() < 24 * 3600 + 120


def test_an_undo_that_fails_permanently_is_stuck_at_once() -> None:
    run = given(undone_with()).when_step_fails("b").when_undo_fails("a", failure=DECLINED)
    run.ends("stuck", because="Permanent: declined")
    assert len(run.begun(RunCompensation)) == 1


def test_an_undo_in_doubt_is_a_failed_attempt_and_tried_again() -> None:
    run = given(undone_with()).when_step_fails("b").when_undo_fails("a", times=1, failure=UNKNOWN)
    run.then_undoes("a").ends("compensated")


def test_older_steps_wait_while_an_undo_waits_for_its_retry() -> None:
    run = given(saga(kept("a") >> kept("b") >> plain("c"))).when_step_fails("c")
    run.when_undo_fails("b", times=2).then_undoes("b", "a").ends("compensated")
    assert [c.step.name for c in run.begun(RunCompensation)] == ["b", "b", "b", "a"]


# ---------------------------------------------------------------------------- once


def test_a_step_that_must_run_once_is_announced_before_it_runs() -> None:
    run = given(saga(plain("a", once=True))).ends("completed")
    assert kinds(run.history) == ["SagaStarted", "StepStarted", "StepSucceeded", "SagaCompleted"]
    assert run.begun(RunStep)[0].announced


def test_each_attempt_that_must_run_once_is_announced_anew() -> None:
    run = given(saga(Retry(plain("a", once=True), 1))).when_step_fails("a", times=1)
    run.ends("completed")
    assert [e.attempt for e in run.all(ev.StepStarted)] == [1, 2]


# ---------------------------------------------------------------------------- inputs of undos


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda: kept("x"), "7"),
        (lambda: plain("p") >> kept("x"), '"p"'),
        (lambda: (plain("p") | plain("q")) >> kept("x"), '["p","q"]'),
        (lambda: plain("p") >> (kept("x") | plain("q")), '"p"'),
        (lambda: plain("p") >> (plain("q") | plain("r") >> kept("x")), '"r"'),
        (lambda: plain("p") >> Retry(kept("x"), 2), '"p"'),
        (lambda: Retry(plain("p") >> plain("q"), 2) >> kept("x"), '"q"'),
        (lambda: Timeout(plain("p") >> plain("q"), 9) >> kept("x"), '"q"'),
        (lambda: plain("p") >> Timeout(Retry(plain("q") >> kept("x"), 2), 9), '"q"'),
        (lambda: plain("p").map(str) >> kept("x"), '"str"'),
        (lambda: Timeout(plain("p") | Retry(plain("q"), 1), 9) >> kept("x"), '["p","q"]'),
        (lambda: Sequential((plain("o"), Sequential((plain("p"), kept("x"))))), '"p"'),
    ],
)  # fmt: skip
def test_an_undo_gets_the_input_that_its_step_had(body: Any, expected: str) -> None:
    run = given(saga(body() >> plain("end")), input="7").when_step_fails("end").ends("compensated")
    assert [(c.input, c.output) for c in run.begun(RunCompensation)] == [(expected, '"x"')]
    assert [c.input for c in run.begun(RunStep) if c.step.name == "x"] == [expected]


def test_an_undo_inside_a_repeated_scope_gets_the_values_of_its_own_attempt() -> None:
    body = Retry(plain("p") >> kept("x") >> plain("end"), 1)
    run = given(saga(body)).when_step_fails("end").then_undoes("x", "x").ends("compensated")
    assert [c.path for c in run.begun(RunCompensation)] == ["s/0/1", "s/0@2/1"]
    assert [c.input for c in run.begun(RunCompensation)] == ['"p"', '"p"']


# ---------------------------------------------------------------------------- pure functions


def test_a_pure_function_that_raises_is_permanent_and_compensates() -> None:
    body = Retry(kept("a") >> pure(str), 5)
    run = given(saga(body)).when_step_fails("str", failure=DECLINED)
    run.then_runs("a").then_undoes("a").ends("compensated")


# ---------------------------------------------------------------------------- nothing to plan


@pytest.mark.parametrize("status", [*ENDED, Status.STUCK, Status.PENDING])
def test_nothing_is_planned_for_what_has_ended_or_not_begun(status: Status) -> None:
    state = SagaState("1", status=status)
    assert plan(saga(plain("a")), state, START) == Plan()
