"""What persons do to an instance: repairs, each recorded with its actor, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.commands import RunCompensation, RunStep
from orchestrator.domain.definition import pure
from orchestrator.domain.wrappers import Retry
from tests.parts import doubtable, kept, plain, saga, take_back
from tests.spec import BROKEN, DECLINED, START, UNKNOWN, Given, given, kinds

DAY = 24 * 3600


def parked() -> Given:
    """A saga whose compensation of `a` was declined once."""
    run = given(saga(kept("x") >> kept("a") >> plain("b"))).when_step_fails("b")
    return run.when_undo_fails("a", failure=DECLINED, times=1).ends("stuck")


def test_a_failed_undo_is_retried_with_backoff_for_a_day_and_then_parks() -> None:
    """(9) Own policy: retry with backoff, capped, for 24 h by default, then `stuck`."""
    run = (
        given(saga(kept("a") >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=5_000)
    )
    run.ends("stuck", because="the compensation of a failed")
    assert DAY <= (run.drive.now - START).total_seconds() < DAY + 120
    waits = [e.due_at for e in run.all(ev.CompensationRetryScheduled)]
    assert len(waits) > 1_400


def test_an_undo_with_a_policy_of_its_own_follows_it() -> None:
    """(9) Own policy."""
    made = plain("a")
    made.compensation(retries=1)(take_back)
    run = given(saga(made >> plain("b"))).when_step_fails("b").when_undo_fails("a").ends("stuck")
    assert len(run.begun(RunCompensation)) == 2


def test_an_undo_that_raises_permanent_parks_at_once() -> None:
    """(After the pivot) An undo that raises `Permanent` parks at once too."""
    run = parked().ends("stuck", because="Permanent: declined")
    assert len(run.begun(RunCompensation)) == 1


def test_an_undo_in_doubt_is_a_failed_attempt_of_it() -> None:
    """(9) An undo is safe to call again, so it is."""
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b")
    run.when_undo_fails("a", failure=UNKNOWN, times=2).then_undoes("a").ends("compensated")


def test_it_is_never_skipped_silently() -> None:
    """(9) Never swallowed, never skipped: what is older waits for the person."""
    parked().then_undoes()


def test_a_person_has_the_compensation_tried_again() -> None:
    """(9) An operator retries."""
    run = parked().repaired("retry", step="a", reason="the bank is back")
    run.then_undoes("a", "x").ends("compensated")
    [event] = run.all(ev.StepRetried)
    assert (event.actor, event.reason, event.step) == ("ann", "the bank is back", "a")


def test_the_policy_of_the_undo_begins_anew_when_a_person_has_it_tried_again() -> None:
    """(9) An operator retries."""
    made = plain("a")
    made.compensation(retries=2)(take_back)
    run = given(saga(made >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=5)
    run.ends("stuck").repaired("retry").then_undoes("a").ends("compensated")
    assert [c.attempt for c in run.begun(RunCompensation)] == [1, 2, 3, 1, 2, 3]


def test_a_person_takes_the_compensation_on_himself_with_a_reason() -> None:
    """(9) skips with a reason."""
    run = parked().repaired("skip", step="a", reason="refunded by hand")
    run.then_undoes("x").ends("compensated")
    [event] = run.all(ev.CompensationSkipped)
    assert (event.step, event.reason) == ("a", "refunded by hand")
    assert run.drive.state.undone == ["s/1", "s/0"]


def test_a_person_edits_the_input_or_the_output_and_retries() -> None:
    """(9) edits the input and retries."""
    run = parked().repaired("retry", step="a", input='"edited"', output='"other"')
    run.then_undoes("a", "x").ends("compensated")
    [_, again, _] = run.begun(RunCompensation)
    assert (again.input, again.output) == ('"edited"', '"other"')


def test_an_edited_input_of_another_type_is_refused() -> None:
    """(9) Nothing is changed by what is not valid."""
    run = given(saga(typed() >> plain("b"))).when_step_fails("b")
    run.when_undo_fails("number", failure=DECLINED, times=1).ends("stuck")
    run.repaired("retry", input='"no number"').ends("stuck")
    [refused] = run.all(ev.ActionRefused)
    assert refused.problem.startswith("input: not a valid int")


def typed() -> Any:
    from orchestrator.domain.steps import step

    @step
    async def number(value: int, ctx: Any) -> int:
        return value

    return number.undo(take_back)


def test_a_person_terminates() -> None:
    """(9) or terminates."""
    parked().repaired("terminate", reason="enough").then_undoes().ends("terminated")


def test_resume_lets_it_go_on_where_it_stood() -> None:
    """(Statuses) stuck → (operator) → running|compensating."""
    run = parked().repaired("resume", reason="try")
    run.ends("stuck", because="declined")
    assert kinds(run.history)[-2:] == ["SagaResumed", "SagaStuck"]


@pytest.mark.parametrize("kind", ["resume", "retry", "skip", "resolve"])
def test_what_is_not_stuck_cannot_be_repaired(kind: str) -> None:
    """(9) Refused with the reason; nothing is changed."""
    run = given(saga(kept("a") >> plain("b"))).when_step_takes("b", 9).when_told(kind, 5)
    run.ends("completed")
    [refused] = run.all(ev.ActionRefused)
    assert refused.problem == "it is running, not stuck"


def test_a_step_that_is_not_to_be_undone_cannot_be_skipped() -> None:
    """(9) skips with a reason: only what is there to be undone."""
    run = parked().repaired("skip", step="b").ends("stuck")
    assert "'b'" in run.all(ev.ActionRefused)[0].problem


def test_a_step_that_only_fails_forward_cannot_be_skipped() -> None:
    """(9) After the pivot there is no compensation to skip."""
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_fails("b", failure=DECLINED)
    run.ends("stuck").repaired("skip", step="b").ends("stuck")
    assert "no undo to be skipped" in run.all(ev.ActionRefused)[0].problem


def test_what_succeeded_is_not_tried_again() -> None:
    """(9) An operator retries what is stuck, nothing else."""
    run = given(saga(plain("a") >> plain("b").pivot() >> plain("c")))
    run.when_step_fails("c", failure=DECLINED).ends("stuck").repaired("retry", step="a")
    run.ends("stuck")
    assert run.all(ev.ActionRefused)[0].problem == "a is neither stuck nor failed"


def test_a_step_after_the_pivot_runs_again_on_an_edited_input() -> None:
    """(9) edits the input and retries."""
    run = given(saga(plain("a").pivot() >> plain("b")))
    run.when_step_fails("b", failure=DECLINED, times=1).ends("stuck")
    run.repaired("retry", input='"edited"').ends("completed")
    assert [command.input for command in run.begun(RunStep)] == ["0", '"a"', '"edited"']


def test_a_plain_function_that_failed_after_the_pivot_is_computed_again() -> None:
    """(9, Errors in pure) It parks, since there is no way back; then it is tried again."""
    run = given(saga(plain("a").pivot() >> pure(str))).when_step_fails("str", times=1)
    run.ends("stuck").repaired("retry").ends("completed")


def test_a_message_that_nobody_knows_is_refused_and_recorded() -> None:
    """(Operators' actions) All recorded as events with the actor."""
    run = given(saga(plain("a"))).when_step_takes("a", 9).when_told("dance", 5).ends("completed")
    [refused] = run.all(ev.ActionRefused)
    assert (refused.action, refused.actor) == ("dance", "ann")


def test_what_ran_beside_what_got_stuck_may_still_have_happened() -> None:
    """(5, 9) After a repair it is suspected, and runs again with its key."""
    body = Retry(kept("a") >> plain("b"), 1) | (plain("c") >> plain("d"))
    run = given(saga(body)).when_step_fails("b", times=1).when_step_takes("d", 9)
    run.when_undo_fails("a", failure=DECLINED, times=1).ends("stuck")
    run.repaired("retry").then_undoes("a").ends("completed")


def test_two_stuck_branches_are_mended_one_after_the_other() -> None:
    """(9) Each is told when the one before is mended."""
    body = Retry(kept("a") >> plain("b"), 1) | Retry(kept("c") >> plain("d"), 1)
    run = given(saga(body)).when_step_fails("b", times=1).when_step_fails("d", times=1)
    run.when_undo_fails("a", failure=DECLINED, times=1)
    run.when_undo_fails("c", failure=DECLINED, times=1).ends("stuck", because="compensation of a")
    run.repaired("retry").ends("stuck", because="compensation of c")
    run.repaired("retry").then_undoes("a", "c").ends("completed")


def test_a_handler_on_doubt_that_fails_is_retried_like_any_undo() -> None:
    """(9) Compensation failure: own policy."""
    run = given(saga(doubtable("a"))).when_step_is_in_doubt("a").when_undo_fails("a", times=3)
    run.then_undoes("a").ends("compensated")


def test_an_undo_may_say_how_long_to_wait() -> None:
    """(11) `Retryable(after=…)` on the way back."""
    from dataclasses import replace

    busy = replace(BROKEN, retry_after=600.0)
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b")
    run.when_undo_fails("a", times=1, failure=busy).then_undoes("a").then_took(600)
