"""The point of no return: what follows it, what it does to cancels and deadlines, and its doubt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Fallback, each, loop
from orchestrator.domain.commands import RunProbe, RunStep
from orchestrator.domain.definition import Primitive
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from orchestrator.errors import DefinitionError
from tests.parts import doubtable, kept, plain, probed, saga
from tests.spec import BROKEN, DECLINED, START, given, kinds

DAY = 24 * 3600


def test_after_the_pivot_nothing_is_compensated_any_more() -> None:
    """(8) After it completes nothing is compensated any more."""
    run = given(saga(kept("a") >> kept("b").pivot() >> plain("c")))
    run.when_step_fails("c", failure=DECLINED).then_undoes()
    run.ends("stuck", because="after the point of no return, Permanent: declined")


def test_before_the_pivot_completes_everything_is_compensated() -> None:
    """(8) Only after it completes."""
    run = given(saga(kept("a") >> kept("b").pivot() >> plain("c"))).when_step_fails("b")
    run.then_undoes("a").ends("compensated")


def test_after_the_pivot_a_step_of_its_own_is_retried_for_a_day_and_then_parks() -> None:
    """(After the pivot) It retries like a compensation (backoff, up to 24 h), then parks."""
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_fails("b", times=5_000)
    run.ends("stuck", because="broken")
    assert DAY <= (run.drive.now - START).total_seconds() < DAY + 120


def test_after_the_pivot_the_waits_grow_up_to_their_cap() -> None:
    """(After the pivot) backoff."""
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_fails("b", times=9)
    run.ends("completed")
    at, waits = START, []
    for event in run.all(ev.RetryScheduled):
        waits.append((event.due_at - at).total_seconds())
        at = event.due_at
    assert len(waits) == 9
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits[:6]))
    assert all(30 <= wait <= 60 for wait in waits[6:])


def test_after_the_pivot_permanent_parks_at_once() -> None:
    """(After the pivot) `Permanent` parks at once."""
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_fails("b", failure=DECLINED)
    run.then_runs("a", "b").ends("stuck")


def test_after_the_pivot_a_step_in_doubt_is_run_again_with_the_same_key() -> None:
    """(After the pivot) A step going forward."""
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_is_in_doubt("b", times=2)
    run.then_runs("a", "b", "b", "b").ends("completed")
    assert len({command.path for command in run.begun(RunStep)[1:]}) == 1


@pytest.mark.parametrize(
    ("wrapped", "runs"),
    [
        (lambda b: Retry(b, 1), 2),
        (lambda b: Fallback(b, [plain("other")]), 1),
        (lambda b: Retry(b >> plain("c"), 1), 2),
        (lambda b: Timeout(Retry(b, 2) >> plain("c"), DAY), 3),
    ],
)
def test_after_the_pivot_a_retry_or_fallback_round_a_step_gets_its_failure_at_once(
    wrapped: Any, runs: int
) -> None:
    """(After the pivot) The default applies only when no Retry or Fallback stands between."""
    run = given(saga(plain("a").pivot() >> wrapped(plain("b")))).when_step_fails("b")
    run.when_step_fails("other").ends("stuck")
    assert [c.step.name for c in run.begun(RunStep)].count("b") == runs


def test_after_the_pivot_a_step_inside_a_parallel_block_is_retried_too() -> None:
    """(After the pivot) A step without a policy of its own, wherever it stands."""
    body = plain("a").pivot() >> (plain("b") | plain("c"))
    given(saga(body)).when_step_fails("b", times=3).ends("completed")


def test_a_cancel_after_the_pivot_comes_too_late_and_changes_nothing() -> None:
    """(Cancel) After the pivot it answers `too_late` and changes nothing."""
    run = given(saga(kept("a").pivot() >> plain("b"))).when_step_takes("b", 9)
    run.when_cancelled_after(5).then_undoes().ends("completed")
    assert len(run.all(ev.CancelRefused)) == 1
    assert run.all(ev.CancelRequested) == []


def test_a_cancel_while_the_pivot_runs_is_refused_when_it_completes() -> None:
    """(10) A cancel that comes too late answers so."""
    run = given(saga(kept("x") >> plain("a").pivot() >> plain("b"))).when_step_takes("a", 9)
    run.when_cancelled_after(5).then_runs("x", "a", "b").then_undoes().ends("completed")
    assert kinds(run.history)[2:6] == [
        "CancelRequested", "StepSucceeded", "PivotPassed", "CancelRefused",
    ]  # fmt: skip


def test_a_cancel_while_the_pivot_runs_goes_back_when_it_fails() -> None:
    """(10) Cancel compensates."""
    run = given(saga(kept("x") >> plain("a").pivot() >> plain("b"))).when_step_takes("a", 9)
    run.when_step_fails("a").when_cancelled_after(5).then_undoes("x").ends("compensated")


def test_a_cancel_that_a_crash_hides_behind_the_pivot_is_refused_all_the_same() -> None:
    """(10) The pivot's success is recorded, so whoever looks next knows that it is passed."""
    run = given(saga(kept("x") >> plain("a").pivot() >> plain("b"))).when_step_takes("b", 9)
    run.when_it_crashes_after(ev.PivotPassed)
    run.run.cancel()
    run.ends("completed").then_undoes()
    assert len(run.all(ev.CancelRefused)) == 1


def test_the_deadline_after_the_pivot_is_recorded_and_nothing_else() -> None:
    """(Deadline) After the pivot it records an event and an alert only."""
    run = given(saga(plain("a").pivot() >> plain("b") >> plain("c"), deadline=5))
    run.when_step_takes("b", 9).then_undoes().ends("completed")
    assert len(run.all(ev.DeadlineMissed)) == 1
    assert run.all(ev.StepInDoubt) == []


def test_a_pivot_that_completed_by_the_deadline_has_passed() -> None:
    """(Deadline) What was done by then counts."""
    run = given(saga(plain("a").pivot() >> plain("b"), deadline=5)).when_step_takes("a", 4.999)
    run.when_step_takes("b", 9).ends("completed")
    assert run.all(ev.DeadlinePassed) == []


def test_a_pivot_in_doubt_parks_and_nothing_before_it_is_undone() -> None:
    """(A pivot in doubt) Parks; nothing before it is undone while that is open."""
    run = given(saga(kept("a") >> plain("b").pivot() >> plain("c"))).when_step_is_in_doubt("b")
    run.then_undoes().ends("stuck", because="nobody knows whether b happened")


@pytest.mark.parametrize("pivot", [plain, kept, doubtable])
def test_a_pivot_in_doubt_parks_whatever_undo_it_declares(pivot: Any) -> None:
    """(A pivot in doubt) Parks unless its probe answers."""
    run = given(saga(kept("a") >> pivot("b").pivot())).when_step_is_in_doubt("b")
    run.then_undoes().ends("stuck")


def test_a_pivot_in_doubt_retries_first() -> None:
    """(A pivot in doubt) Retries first like any step (same key), asks its probe, then parks."""
    run = given(saga(kept("a") >> probed("b").retry(2).pivot())).when_step_is_in_doubt("b")
    run.when_probe_answers("b", "unknown").then_runs("a", "b", "b", "b").ends("stuck")
    assert len(run.begun(RunProbe)) == 1


def test_a_pivot_that_happened_as_its_probe_says_is_passed() -> None:
    """(A pivot in doubt) happened → forward."""
    run = given(saga(kept("a") >> probed("b").pivot() >> plain("c"))).when_step_is_in_doubt("b")
    run.when_probe_answers("b", 'happened "x"').then_undoes().ends("completed")
    assert len(run.all(ev.PivotPassed)) == 1


def test_a_pivot_that_did_not_happen_as_its_probe_says_leads_back() -> None:
    """(A pivot in doubt) not happened → back."""
    run = given(saga(kept("a") >> probed("b").pivot() >> plain("c"))).when_step_is_in_doubt("b")
    run.when_probe_answers("b", "not_happened").then_undoes("a").ends("compensated")


@pytest.mark.parametrize("wait", [0, 600])
def test_a_cancel_never_undoes_what_stands_before_a_pivot_in_doubt(wait: float) -> None:
    """(A pivot in doubt) Nothing before it is undone while that is open; a cancel too waits."""
    pivot = plain("b").retry(3, initial=wait, jitter=False).pivot()
    run = given(saga(kept("a") >> pivot)).when_step_is_in_doubt("b").when_step_takes("b", 5)
    run.when_cancelled_after(6).then_undoes().ends("stuck", because="nobody knows")
    run.repaired("resolve", step="b", happened=False).then_undoes("a")
    run.ends("compensated", because="cancelled")


def test_a_cancel_asks_the_probe_of_a_pivot_that_waits_for_its_retry() -> None:
    """(A pivot in doubt) happened → forward, so the cancel came too late."""
    pivot = probed("b").retry(3, initial=600).pivot()
    run = given(saga(kept("a") >> pivot)).when_step_is_in_doubt("b").when_cancelled_after(6)
    run.when_probe_answers("b", "happened 1").then_undoes().ends("completed")
    assert len(run.all(ev.CancelRefused)) == 1


def test_the_deadline_never_undoes_what_stands_before_a_pivot_in_doubt() -> None:
    """(A pivot in doubt) Nothing before it is undone while that is open."""
    pivot = plain("b").retry(3, initial=600).pivot()
    run = given(saga(kept("a") >> pivot, deadline=60)).when_step_is_in_doubt("b")
    run.then_undoes().ends("stuck")


def test_a_time_out_never_undoes_what_stands_before_a_pivot_in_doubt() -> None:
    """(A pivot in doubt) Nothing before it is undone while that is open."""
    pivot = plain("b").retry(9, initial=40, jitter=False).timeout(60).pivot()
    run = given(saga(kept("a") >> pivot)).when_step_is_in_doubt("b").then_undoes()
    run.ends("stuck", because="nobody knows")


def test_a_person_settles_a_pivot_in_doubt() -> None:
    """(A pivot in doubt) resolve --happened leads forward."""
    run = given(saga(kept("a") >> plain("b").pivot() >> plain("c"))).when_step_is_in_doubt("b")
    run.ends("stuck").repaired("resolve", step="b", happened=True, output="7")
    run.then_runs("a", "b", "c").ends("completed")


def test_a_pivot_in_doubt_that_a_person_retries_runs_again_with_the_same_key() -> None:
    """(9, pivot) An operator retries."""
    run = given(saga(kept("a") >> plain("b").pivot())).when_step_is_in_doubt("b", times=1)
    run.ends("stuck").repaired("retry", step="b").then_runs("a", "b", "b").ends("completed")
    assert len({command.path for command in run.begun(RunStep)[1:]}) == 1


def test_a_cancelled_pivot_in_doubt_that_a_person_retries_runs_again() -> None:
    """(9, pivot) An operator retries; that a cancel came changes nothing of it."""
    run = given(saga(kept("a") >> plain("b").pivot())).when_step_is_in_doubt("b", times=1)
    run.when_step_takes("b", 5).when_cancelled_after(1).ends("stuck")
    run.repaired("retry", step="b").then_runs("a", "b", "b").ends("completed")


def test_a_step_in_doubt_after_the_pivot_that_a_person_retries_runs_again() -> None:
    """(9) An operator retries: after the pivot that is the step, never its undo."""
    lost = DECLINED
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_is_in_doubt(
        "b", times=1, failure=lost
    )
    run.ends("stuck").repaired("retry").then_runs("a", "b", "b").ends("completed")


def test_a_block_that_failed_after_the_pivot_runs_again_in_all_its_failed_parts() -> None:
    """(9) An operator retries: what succeeded is not run again."""
    body = plain("a").pivot() >> (plain("b") | plain("c") | plain("d"))
    run = given(saga(body)).when_step_fails("b", failure=DECLINED, times=1)
    run.when_step_fails("c", failure=DECLINED, times=1).ends("stuck")
    run.repaired("retry").then_runs("a", "b", "c", "d", "b", "c").ends("completed")


def test_items_that_failed_after_the_pivot_run_again_and_the_others_go_on() -> None:
    """(9) An operator retries: what succeeded is not run again."""
    body = plain("a").pivot() >> each(plain("b").retry(0), concurrency=1)
    run = given(saga(body)).when_step_gives("a", "[1,2,3]").when_step_succeeds("b")
    run.when_step_fails("b", times=1).ends("stuck").repaired("retry").ends("completed")
    assert [command.path for command in run.begun(RunStep)][1:] == [
        "s/1/0/0", "s/1/1/0", "s/1/1/0", "s/1/2/0",
    ]  # fmt: skip


def test_a_loop_that_was_exhausted_after_the_pivot_goes_on_when_a_person_says_so() -> None:
    """(9) An operator retries: the count begins anew, the iterations go on."""
    again = loop(plain("b"), until=lambda n: n == "b3", max_iterations=2)
    run = given(saga(plain("a").pivot() >> again)).when_step_gives("b", '"b"').ends("stuck")
    run.when_step_gives("b", '"b3"').repaired("retry").ends("completed")
    assert [c.path for c in run.begun(RunStep)][1:] == ["s/1/0", "s/1/0#2", "s/1/0#3"]


def test_a_step_after_the_pivot_has_a_day_again_when_a_person_retries_it() -> None:
    """(9, After the pivot) A repair counts anew."""
    run = given(saga(plain("a").pivot() >> plain("b"))).when_step_fails("b", times=5_000)
    run.ends("stuck")
    before = len(run.begun(RunStep))
    run.repaired("retry").ends("stuck")
    assert len(run.begun(RunStep)) > before + 1_000


@pytest.mark.parametrize(
    "body",
    [
        plain("a").pivot() | plain("b"),
        loop(plain("a").pivot(), until=bool, max_iterations=2),
        each(plain("a").pivot()),
        Scope(plain("a").pivot()),
        Fallback(plain("a").pivot(), [plain("b")]),
        Retry(plain("a").pivot() >> plain("b"), 1),
        (plain("a") >> plain("b")).pivot(),
        plain("a").pivot() >> plain("b").pivot(),
        plain("a").pivot() >> kept("b"),
    ],
    ids=repr,
)
def test_a_pivot_stands_on_the_spine_and_nothing_after_it_is_compensable(
    body: Primitive[Any, Any],
) -> None:
    """(8, Where a pivot may stand) Elsewhere it is refused when built."""
    with pytest.raises(DefinitionError):
        saga(body)


def test_a_pivot_may_be_the_whole_saga() -> None:
    """(8) One step that is the point of no return."""
    run = given(saga(plain("a").timeout(timedelta(seconds=5)).pivot())).ends("completed")
    assert kinds(run.history)[-2:] == ["PivotPassed", "SagaCompleted"]


def test_what_failed_before_the_pivot_is_never_tried_for_a_day() -> None:
    """(8) Later steps only."""
    run = given(saga(plain("a") >> plain("b").pivot())).when_step_fails("a", failure=BROKEN)
    run.then_runs("a").ends("compensated")
