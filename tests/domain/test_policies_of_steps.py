"""What stands round one step: retries, waits, guards, caches and budgets, as the rules see them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Fallback
from orchestrator.domain.commands import CacheGuard, RunCompensation, RunStep
from orchestrator.domain.definition import Parallel
from orchestrator.domain.guards import Budget
from orchestrator.domain.policies import BudgetRule, Circuit, Rate
from orchestrator.domain.waiting import sleep
from orchestrator.domain.wrappers import Retry
from tests.parts import doubtable, kept, plain, saga
from tests.spec import BROKEN, DECLINED, START, given, kinds


def test_waits_are_one_two_and_four_seconds_by_default() -> None:
    """(11) Waits of 1, 2, 4 s by default for `max_retries=3`."""
    given(saga(Retry(plain("a"), jitter=False))).when_step_fails("a").then_waits(1, 2, 4)


def test_jitter_only_shortens_between_half_and_the_whole_of_the_delay() -> None:
    """(Retry) jitter only shortens (between half and the whole of the delay)."""
    run = given(saga(Retry(plain("a"), 8))).when_step_fails("a").ends("compensated")
    at = START
    for number, event in enumerate(run.all(ev.RetryScheduled)):
        wait, whole = (event.due_at - at).total_seconds(), min(2.0**number, 60)
        assert whole / 2 <= wait <= whole
        at = event.due_at


def test_the_due_time_is_an_event_so_it_survives_a_crash() -> None:
    """(11) The due time is an event, so it survives a crash."""
    body = Retry(plain("a"), 1, initial=60, jitter=False)
    run = given(saga(body)).when_step_fails("a", times=1).when_it_crashes_after(ev.RetryScheduled)
    run.ends("completed").then_took(60).then_runs("a", "a")


def test_an_action_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() -> None:
    """(11) `Retryable(after=…)`."""
    body = Retry(plain("a"), 2, initial=10, factor=1, jitter=False)
    run = given(saga(body))
    run.when_step_fails("a", times=1, failure=replace(BROKEN, retry_after=60.0))
    run.when_step_fails("a", times=1, failure=replace(BROKEN, retry_after=1.0))
    run.then_waits(60, 10).ends("completed")


def test_permanent_is_never_retried() -> None:
    """(11) `Permanent(…)`."""
    given(saga(Retry(plain("a"), 9))).when_step_fails("a", failure=DECLINED).then_runs("a")


def test_a_crash_burns_no_retry() -> None:
    """(A crash) burns no retry."""
    run = given(saga(Retry(plain("a"), 1))).when_step_takes("a", 9).when_step_fails("a", times=1)
    run.run.work()
    run.run.crash()
    run.when_step_fails("a", times=1).ends("completed")
    assert [event.attempt for event in run.all(ev.StepFailed)] == [1]


def test_a_step_that_is_held_waits_until_then_and_burns_no_retry() -> None:
    """(12) OPEN parks the step until the reset time and consumes no retry."""
    body = Retry(plain("a").circuit("bank"), 0)
    run = given(saga(body)).when_step_is_held("a", by="circuit bank", until=60).ends("completed")
    run.then_took(60)
    assert [(e.by, e.due_at - START) for e in run.all(ev.StepHeld)] == [
        ("circuit bank", timedelta(seconds=60))
    ]
    assert [event.attempt for event in run.all(ev.StepSucceeded)] == [1]


def test_a_step_that_is_held_stays_held_after_a_crash() -> None:
    """(12) The time is an event."""
    run = given(saga(plain("a").circuit("bank"))).when_step_is_held(
        "a", by="circuit bank", until=60
    )
    run.when_it_crashes_after(ev.StepHeld).ends("completed").then_took(60)


def test_a_time_out_that_fires_while_a_step_is_held_leaves_no_doubt() -> None:
    """(12) It was not called."""
    body = (kept("a").circuit("bank") >> plain("b")).timeout(10)
    run = given(saga(body)).when_step_is_held("a", by="circuit bank", until=60).then_undoes()
    run.ends("compensated", because="not done within 10 s").then_took(10)


def test_a_known_output_is_taken_without_a_call_and_nothing_is_undone() -> None:
    """(13) Cache: never on compensable steps."""
    run = given(saga(kept("x") >> plain("a").cache(60) >> plain("b"))).when_step_fails("b")
    run.when_step_is_remembered("a", "null").then_undoes("x").ends("compensated")
    assert run.all(ev.CacheHit) == [
        ev.CacheHit("s/1/0", "a", "cache", run.all(ev.CacheHit)[0].output)
    ]
    assert run.begun(RunStep)[2].input == "null"


def test_guards_are_asked_from_the_outermost_inward() -> None:
    """(12, 13) Nesting order is the semantics."""
    body = plain("a").circuit("bank").rate_limit("calls", 5).cache(9).budget(3, name="money")
    run = given(saga(body)).ends("completed")
    [command] = run.begun(RunStep)
    budget, cache, rate, circuit = command.guards
    assert isinstance(budget, BudgetRule)
    assert isinstance(cache, CacheGuard)
    assert (cache.rule.name, budget.name) == ("a", "money")
    assert isinstance(rate, Rate)
    assert isinstance(circuit, Circuit)


def test_a_guard_round_a_block_guards_every_step_in_it() -> None:
    """(12) Shared by name."""
    run = given(saga((plain("a") >> (plain("b") | plain("c"))).circuit("bank"))).ends("completed")
    assert [len(command.guards) for command in run.begun(RunStep)] == [1, 1, 1]


def test_a_guard_does_not_reach_beyond_what_it_stands_round() -> None:
    """(12) Nesting order is the semantics."""
    run = given(saga(plain("a").circuit("bank") >> plain("b"))).ends("completed")
    assert [len(command.guards) for command in run.begun(RunStep)] == [1, 0]


def test_a_budget_lets_nothing_begin_once_it_is_spent() -> None:
    """(Budget) Begin nothing below once the limit is spent."""
    body = kept("x") >> Budget(kept("a") >> kept("b") >> kept("c"), limit=3)
    run = given(saga(body)).when_step_costs("a", 2).when_step_costs("b", 2)
    run.then_runs("x", "a", "b").then_undoes("b", "a", "x")
    run.ends("compensated", because="BudgetExceeded: 4 of 3 are spent")


def test_a_budget_that_is_spent_by_the_last_step_is_no_failure() -> None:
    """(Budget) Begin nothing below: there was nothing left to begin."""
    given(saga(Budget(plain("a"), limit=3) >> plain("b"))).when_step_costs("a", 9).ends("completed")


def test_what_runs_when_a_budget_is_spent_settles_and_is_undone() -> None:
    """(Budget, 7) Nothing is undone beside work in flight, and nothing is lost."""
    body = Budget((kept("a") >> plain("n")) | (kept("b") >> plain("m")), limit=3)
    run = given(saga(body)).when_step_costs("a", 9).when_step_takes("b", 5)
    run.then_runs("a", "b").then_undoes("b", "a").ends("compensated", because="BudgetExceeded")
    assert len(run.all(ev.StepSucceeded)) == 2


def test_what_runs_when_a_budget_is_spent_settles_after_a_crash_too() -> None:
    """(Budget, 7) What may be under way is recorded."""
    body = Budget((kept("a") >> plain("n")) | (kept("b") >> plain("m")), limit=3)
    run = given(saga(body)).when_step_costs("a", 9).when_step_takes("b", 5)
    run.when_it_crashes_after(ev.BranchesHalted).then_undoes("b", "a").ends("compensated")


def test_a_spent_budget_retries_nothing() -> None:
    """(Budget) Begin nothing below, no attempt either."""
    body = Budget(plain("a") | doubtable("b").retry(5), limit=3)
    run = given(saga(body)).when_step_costs("a", 9).when_step_takes("b", 5)
    run.when_step_is_in_doubt("b").then_runs("a", "b").then_undoes("b").ends("compensated")


def test_costs_of_failed_attempts_count() -> None:
    """(Budget) What was spent was spent."""
    run = given(saga(Budget(Retry(plain("a"), 9), limit=3)))
    run.when_step_fails("a", cost=2).then_runs("a", "a").ends(
        "compensated", because="BudgetExceeded"
    )


def test_a_spent_budget_waits_for_what_costs_nothing() -> None:
    """(Budget) Begin no step; a sleep is none."""
    body = Budget(plain("a") >> sleep(60), limit=3) >> plain("b")
    run = given(saga(body)).when_step_costs("a", 9).ends("completed")
    run.then_took(60)


def test_an_alternative_outside_of_a_spent_budget_is_taken() -> None:
    """(Budget, 6) The failure is one like any other."""
    body = Fallback(Budget(kept("a") >> plain("b"), limit=1), [plain("cheap")])
    run = given(saga(body)).when_step_costs("a", 9).then_undoes("a").ends("completed")
    run.then_runs("a", "cheap")


@pytest.mark.parametrize("limit", [1, 2])
def test_each_budget_counts_what_is_below_it(limit: int) -> None:
    """(Budget) This saga's own budget for what is below."""
    body: Any = Parallel((Budget(plain("a") >> plain("b"), limit=limit), plain("c")))
    run = given(saga(body)).when_step_costs("c", 9).when_step_costs("a", 1)
    run.ends("completed" if limit == 2 else "compensated")


def test_an_undo_receives_the_recorded_input_and_output_of_its_step() -> None:
    """(3) An undo receives the recorded input *and* output of its step."""
    run = given(saga(kept("a") >> plain("b")), input="7").when_step_gives("a", "[1]")
    run.when_step_fails("b").ends("compensated")
    [undo] = run.begun(RunCompensation)
    assert (undo.input, undo.output, undo.path) == ("7", "[1]", "s/0")


def test_the_key_of_an_undo_is_stable_over_its_attempts() -> None:
    """(3) A key of its own family, stable over attempts."""
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=3)
    run.ends("compensated")
    assert {command.path for command in run.begun(RunCompensation)} == {"s/0"}
    assert [command.attempt for command in run.begun(RunCompensation)] == [1, 2, 3, 4]


def test_the_own_time_out_of_a_step_bounds_each_attempt() -> None:
    """(Every step has a time-out) its own."""
    run = given(saga(plain("a", timeout=5, retries=1))).when_step_takes("a", 60).ends("compensated")
    assert [command.timeout for command in run.begun(RunStep)] == [timedelta(seconds=5)] * 2


def test_a_step_that_takes_long_is_recorded_as_begun() -> None:
    """(1) An attempt is running: written when it takes long."""
    run = given(saga(plain("a"))).when_step_takes("a", 60)
    run.run.announce_after = timedelta(seconds=5)
    run.ends("completed")
    assert kinds(run.history) == ["SagaStarted", "StepStarted", "StepSucceeded", "SagaCompleted"]


def test_outputs_are_kept_by_the_name_of_their_step() -> None:
    """(17) `ctx.output(step)` the typed output of an earlier step."""
    run = given(saga(plain("a") >> plain("b"))).ends("completed")
    outputs: Any = run.drive.state.outputs
    assert outputs == {"a": '"a"', "b": '"b"'}
