"""When nobody knows whether a step happened: who is asked, what is undone, who is stuck."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import each
from orchestrator.domain.commands import RunCompensation, RunProbe, RunStep
from orchestrator.domain.definition import pure
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from tests.parts import ask, doubtable, kept, plain, probed, saga, take_back
from tests.spec import BROKEN, DECLINED, UNKNOWN, given, kinds


def test_completed_steps_are_undone_always_and_definitely_failed_ones_never() -> None:
    """(5) Completed steps always; definitely failed ones never."""
    run = given(saga(kept("a") >> kept("b"))).when_step_fails("b")
    run.then_undoes("a").ends("compensated")


def test_going_forward_doubt_is_resolved_by_running_the_step_again_with_the_same_key() -> None:
    """(5) Going forward, doubt is resolved by running the step again with the same key."""
    run = given(saga(kept("a").retry(2))).when_step_is_in_doubt("a", times=2).ends("completed")
    assert {command.path for command in run.begun(RunStep)} == {"s/0"}


def test_a_probe_is_asked_before_the_handler_on_doubt() -> None:
    """(5) In-doubt ones by their own declaration, tried in this order: probe, on doubt."""
    both = probed("a")
    both.compensation_on_doubt(take_back)
    run = given(saga(both)).when_step_is_in_doubt("a").when_probe_answers("a", "unknown")
    run.then_undoes("a").ends("compensated")
    assert [command.on_doubt for command in run.begun(RunCompensation)] == [True]
    assert kinds(run.history).index("ProbeAnswered") < kinds(run.history).index("StepCompensated")


def test_a_probe_that_says_it_happened_lets_the_saga_go_on_with_the_output() -> None:
    """(Probe) `Happened(output)`: the step has succeeded; the saga goes on."""
    run = given(saga(probed("a") >> plain("b"))).when_step_is_in_doubt("a")
    run.when_probe_answers("a", 'happened "found"').then_runs("a", "b").ends("completed")
    assert run.begun(RunStep)[1].input == '"found"'


def test_a_probe_that_says_it_did_not_happen_is_a_definite_failure() -> None:
    """(Probe) `NotHappened()`: a definite failure."""
    run = given(saga(kept("a") >> probed("b"))).when_step_is_in_doubt("b")
    run.when_probe_answers("b", "not_happened").then_undoes("a").ends("compensated", "no answer")


def test_a_probe_that_cannot_tell_leaves_it_to_a_person_when_nothing_else_is_declared() -> None:
    """(5) A compensable step with neither ends its saga as stuck, until a person says."""
    run = given(saga(kept("a") >> probed("b"))).when_step_is_in_doubt("b")
    run.when_probe_answers("b", "unknown").ends("stuck", because="nobody knows whether b happened")
    assert len(run.begun(RunProbe)) == 1


def test_a_probe_is_asked_only_when_no_retry_is_left() -> None:
    """(Probe) Asked when an attempt is in doubt and no retry is left."""
    run = given(saga(Retry(probed("a"), 2))).when_step_is_in_doubt("a", times=3)
    run.when_probe_answers("a", "happened 7").then_runs("a", "a", "a").ends("completed")
    assert run.result() == "7"
    assert len(run.begun(RunProbe)) == 1


def test_a_probe_is_asked_only_when_no_outer_retry_is_left_either() -> None:
    """(Probe) Asked when an attempt is in doubt and no retry is left."""
    body = Retry(Retry(probed("a"), 1), 1)
    run = (
        given(saga(body)).when_step_is_in_doubt("a", times=4).when_probe_answers("a", "happened 7")
    )
    run.then_runs("a", "a", "a", "a").ends("completed")
    assert len(run.begun(RunProbe)) == 1


def test_a_failure_that_no_retry_can_help_with_has_the_probe_asked_at_once() -> None:
    """(Probe) Asked when an attempt is in doubt and no retry is left."""
    lost = replace(UNKNOWN, permanent=True)
    run = given(saga(Retry(probed("a"), 5))).when_step_is_in_doubt("a", failure=lost)
    run.when_probe_answers("a", "happened 7").then_runs("a").ends("completed")


def test_a_probe_is_asked_on_the_way_back_too() -> None:
    """(Probe) Asked forward or backward: here a cancel leaves no time for it forward."""
    run = given(saga(probed("a") >> plain("b"))).when_step_is_in_doubt("a").when_step_takes("a", 5)
    run.when_cancelled_after(1).when_probe_answers("a", "happened 7")
    run.then_undoes("a").ends("compensated", because="cancelled")
    assert [command.output for command in run.begun(RunCompensation)] == ["7"]


def test_a_probe_that_fails_is_asked_again_with_waits_and_then_given_up() -> None:
    """(Probe) One that raises is asked again, and then it is unknown."""
    made = kept("a")
    made.probe(retries=2)(ask)
    run = given(saga(made)).when_step_is_in_doubt("a").when_probe_answers("a", *[BROKEN] * 9)
    run.ends("stuck", because="nobody knows")
    assert [command.attempt for command in run.begun(RunProbe)] == [1, 2, 3]
    assert len(run.all(ev.ProbeRetryScheduled)) == 2


def test_a_step_that_nothing_undoes_is_not_asked_about_on_the_way_back() -> None:
    """(5) Only what would be undone is asked about when it is to be undone."""
    made = plain("a")
    made.probe(ask)
    run = given(saga(made >> plain("b"))).when_step_is_in_doubt("a").when_step_takes("a", 5)
    run.when_cancelled_after(1).ends("compensated")
    assert run.begun(RunProbe) == []


def test_doubt_sticks_until_a_probe_settles_it() -> None:
    """(Doubt sticks) A later definite failure leaves it in doubt until a probe settles it."""
    run = given(saga(Retry(probed("a"), 1))).when_step_is_in_doubt("a", times=1)
    run.when_step_fails("a", failure=DECLINED).when_probe_answers("a", "not_happened")
    run.then_undoes().ends("compensated", because="declined")


def test_doubt_that_a_probe_settled_as_not_happened_does_not_come_back() -> None:
    """(Doubt sticks) until a probe, an undo on doubt or a person settles it."""
    run = given(saga(kept("x") >> Retry(probed("a"), 0))).when_step_is_in_doubt("a")
    run.when_probe_answers("a", "not_happened").then_undoes("x").ends("compensated")


def test_an_undo_on_doubt_settles_the_doubt() -> None:
    """(Doubt sticks) until a probe, an undo on doubt or a person settles it."""
    body = Retry(doubtable("a") >> plain("b"), 1)
    run = given(saga(body)).when_step_is_in_doubt("a", times=1).then_undoes("a").ends("completed")
    assert [command.path for command in run.begun(RunStep)] == ["s/0/0", "s/0@2/0", "s/0@2/1"]


def test_a_step_in_doubt_stands_where_its_doubt_was_first_recorded() -> None:
    """(Undo order with doubt) It stands where its doubt was recorded."""
    body = (Retry(doubtable("a"), 1, initial=9, jitter=False) | kept("b")) >> plain("c")
    run = given(saga(body)).when_step_is_in_doubt("a").when_step_takes("b", 3)
    run.then_undoes("b", "a").ends("compensated")


def test_older_steps_wait_while_one_in_doubt_is_parked() -> None:
    """(Undo order with doubt) When it parks, older ones wait."""
    run = given(saga(kept("a") >> kept("b") >> kept("c"))).when_step_is_in_doubt("b")
    run.ends("stuck").then_undoes()
    run.repaired("resolve", step="b", happened=False).then_undoes("a").ends("compensated")


def test_a_person_may_say_that_it_happened_and_what_it_gave() -> None:
    """(resolve) With an output the step is completed."""
    run = given(saga(kept("a"))).when_step_is_in_doubt("a").ends("stuck")
    run.repaired("resolve", step="a", happened=True, output='"p1"')
    run.then_undoes("a").ends("compensated")
    assert [(c.output, c.on_doubt) for c in run.begun(RunCompensation)] == [('"p1"', False)]


def test_a_person_who_says_that_it_happened_without_an_output_is_asked_for_it() -> None:
    """(resolve) Where there is no on-doubt handler the command asks for the output."""
    run = given(saga(kept("a"))).when_step_is_in_doubt("a").ends("stuck")
    run.repaired("resolve", step="a", happened=True).ends("stuck")
    assert "--output" in run.all(ev.ActionRefused)[0].problem


def test_a_person_may_send_a_step_to_its_handler_on_doubt() -> None:
    """(resolve) Without an output its on-doubt handler is used."""
    made = doubtable("a")
    run = (
        given(saga(made)).when_step_is_in_doubt("a").when_undo_fails("a", failure=DECLINED, times=1)
    )
    run.ends("stuck").repaired("resolve", step="a", happened=True).ends("stuck")
    run.repaired("retry").then_undoes("a").ends("compensated")
    assert [command.on_doubt for command in run.begun(RunCompensation)] == [True, True]


def test_what_a_person_says_of_a_step_that_is_not_in_doubt_is_refused() -> None:
    """(resolve) Only what is in doubt can be resolved."""
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b")
    run.when_undo_fails("a", failure=DECLINED, times=1).ends("stuck")
    run.repaired("resolve", step="a", happened=False).ends("stuck")
    assert run.all(ev.ActionRefused)[0].problem == "a is not in doubt"


def test_the_time_out_of_an_attempt_leaves_it_in_doubt() -> None:
    """(4) In doubt: time-out."""
    run = given(saga(doubtable("a").timeout(5))).when_step_takes("a", 9).then_undoes("a")
    run.ends("compensated", because="TimeoutError").then_took(5)
    assert kinds(run.history)[1] == "StepInDoubt"


def test_a_step_that_must_run_once_is_in_doubt_when_its_process_died() -> None:
    """(4) In doubt: process died on the way back."""
    run = given(saga(doubtable("a", once=True))).when_step_takes("a", 60)
    run.when_it_crashes_after(ev.StepStarted).then_undoes("a").ends("compensated")
    assert len(run.all(ev.StepInDoubt)) == 1


def test_any_other_step_is_run_again_with_the_same_key_when_its_process_died() -> None:
    """(A crash) burns no retry."""
    run = given(saga(Retry(kept("a"), 0))).when_step_takes("a", 60)
    run.run.work()
    run.run.crash()
    run.ends("completed")
    assert [(c.path, c.attempt) for c in run.begun(RunStep)] == [("s/0", 1), ("s/0", 1)]


def test_a_result_that_cannot_be_recorded_is_not_run_again_and_undone_on_doubt() -> None:
    """(A result that cannot be recorded) In doubt, not run again, undone by its handler."""
    lost = replace(UNKNOWN, type="UnrecordableError", permanent=True)
    run = given(saga(kept("x") >> Retry(doubtable("a"), 9))).when_step_is_in_doubt(
        "a", failure=lost
    )
    run.then_runs("x", "a").then_undoes("a", "x").ends("compensated", because="UnrecordableError")


def test_a_result_that_cannot_be_recorded_parks_a_step_without_a_handler() -> None:
    """(A result that cannot be recorded) or parks."""
    lost = replace(UNKNOWN, permanent=True)
    run = given(saga(Retry(kept("a"), 9))).when_step_is_in_doubt("a", failure=lost).then_runs("a")
    run.ends("stuck", because="nobody knows whether a happened")


def test_a_probe_within_a_scope_that_is_undone_never_lets_it_go_on_half_undone() -> None:
    """(5, 6) What was undone is gone, so the scope fails though its step turned out to be done."""
    both = probed("a") | kept("b")
    run = given(saga(Timeout(both >> plain("c"), 10))).when_step_takes("a", 60)
    run.when_step_takes("b", 10).when_probe_answers("a", "happened 7")
    run.ends("compensated", because="TimeoutError")
    assert {event.step for event in run.all(ev.StepCompensated)} == {"a", "b"}


def test_a_person_within_a_scope_that_is_undone_never_lets_it_go_on_half_undone() -> None:
    """(5, 6) What was undone is gone, so the scope fails though its step turned out to be done."""
    run = given(saga(Retry(kept("a") | kept("b"), 1, jitter=False))).when_step_takes("b", 5)
    run.when_step_is_in_doubt("a", times=1).ends("stuck").then_undoes("b")
    run.repaired("resolve", step="a", happened=True, output="1").ends("completed")
    run.then_undoes("b", "a").then_runs("a", "b", "a", "b")


def test_each_item_in_doubt_is_undone_by_its_own_handler() -> None:
    """(5) In-doubt ones by their own declaration, in a list as elsewhere."""
    three: Any = pure(lambda _: [1, 2, 3])
    run = given(saga(three >> each(doubtable("a"), concurrency=1))).when_step_gives(
        "<lambda>", "[1,2]"
    )
    run.when_step_succeeds("a").when_step_is_in_doubt("a").then_undoes("a", "a").ends("compensated")
    assert [command.output for command in run.begun(RunCompensation)] == [None, '"a"']


def test_a_named_scope_asks_a_probe_like_any_other_place() -> None:
    """(5, 6) A scope can meet a step in doubt while the saga goes forward."""
    body = Scope(kept("x") >> probed("a")).fallback(plain("other"))
    run = given(saga(body)).when_step_is_in_doubt("a").when_probe_answers("a", "not_happened")
    run.then_undoes("x").then_runs("x", "a", "other").ends("completed")


@pytest.mark.parametrize("crash", [False, True])
def test_what_an_owner_may_have_called_before_it_died_stays_in_doubt_while_a_guard_holds_it(
    crash: bool,
) -> None:
    """(5) In-doubt ones by their own declaration; (12) also where the circuit is open by now."""
    run = given(saga(kept("a") >> doubtable("b")))
    run.when_step_is_held("b", by="circuit c", until=60, in_doubt=True).when_cancelled_after(5)
    if crash:
        run.when_it_crashes_after(ev.StepHeld)
    run.then_undoes("b", "a").ends("compensated")


def test_what_was_held_in_doubt_is_settled_by_a_later_success() -> None:
    """(Doubt sticks) A later success with the same key settles it as done."""
    run = given(saga(doubtable("b") >> plain("c")))
    run.when_step_is_held("b", by="circuit c", until=60, in_doubt=True).ends("completed")
    assert run.run.state.undo_stack == ("s/0", "s/1")


def test_what_was_held_in_doubt_and_then_refused_is_in_doubt_all_the_same() -> None:
    """(Doubt sticks) A later attempt that fails definitely says nothing of the first call."""
    run = given(saga(kept("a") >> doubtable("b")))
    run.when_step_is_held("b", by="circuit c", until=60, in_doubt=True).when_step_fails("b")
    run.then_undoes("b", "a").ends("compensated")


def test_a_pivot_that_was_held_in_doubt_parks_when_a_cancel_comes() -> None:
    """(A pivot in doubt) Nothing before it is undone while that is open."""
    run = given(saga(kept("a") >> plain("b").pivot()))
    run.when_step_is_held("b", by="circuit c", until=60, in_doubt=True).when_cancelled_after(5)
    run.then_undoes().ends("stuck", because="nobody knows whether b happened")
