"""Branches and lists: they settle before they fail, and are undone one by one unless told."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import each, loop
from orchestrator.domain.commands import RunCompensation, RunStep, StartChild
from orchestrator.domain.definition import Parallel
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Retry, Scope
from tests.parts import doubtable, kept, plain, probed, saga
from tests.spec import BROKEN, DECLINED, Given, given, kinds


def test_undo_is_the_reverse_of_recorded_completion_across_branches() -> None:
    """(2) Undo order is the reverse of recorded completion."""
    body = (kept("a") >> kept("b") | kept("c") >> kept("d")) >> plain("e")
    run = given(saga(body)).when_step_takes("a", 1).when_step_takes("c", 2)
    run.when_step_takes("b", 3).when_step_takes("d", 1).when_step_fails("e")
    run.then_undoes("b", "d", "c", "a").ends("compensated")


def test_by_default_one_thing_is_undone_at_a_time() -> None:
    """(2) The default is strictly one at a time."""
    run = given(saga((kept("a") | kept("b")) >> plain("c"))).when_step_fails("c")
    run.when_undo_fails("b", times=3).then_undoes("b", "a").ends("compensated")
    assert [c.step.name for c in run.begun(RunCompensation)] == ["b", "b", "b", "b", "a"]


def side_by_side(*branches: Any) -> Any:
    return Parallel(tuple(branches), undo="parallel")


def test_a_block_may_undo_its_branches_side_by_side() -> None:
    """(2) A parallel block may undo its branches side by side."""
    body = kept("x") >> side_by_side(kept("a") >> kept("b"), kept("c")) >> plain("d")
    run = given(saga(body)).when_step_fails("d").when_undo_fails("b", times=3)
    run.then_undoes("c", "b", "a", "x").ends("compensated")


def test_what_is_undone_side_by_side_is_undone_in_order_within_each_branch() -> None:
    """(2) Side by side, and within a branch in reverse order."""
    body = side_by_side(kept("a") >> kept("b"), kept("c") >> kept("d")) >> plain("e")
    run = given(saga(body)).when_step_fails("e").ends("compensated")
    undone = [event.step for event in run.all(ev.StepCompensated)]
    assert undone.index("b") < undone.index("a")
    assert undone.index("d") < undone.index("c")
    assert set(undone[:2]) == {"b", "d"}


def test_a_branch_whose_undo_is_stuck_lets_those_beside_it_finish() -> None:
    """(2, 9) Side by side: the others are undone, then a person is needed."""
    body = side_by_side(kept("a"), kept("b")) >> plain("c")
    run = given(saga(body)).when_step_fails("c").when_undo_fails("a", failure=DECLINED)
    run.then_undoes("b").ends("stuck", because="compensation of a")


def test_a_block_side_by_side_within_a_scope_is_undone_there() -> None:
    """(2, 6) A scope undoes what is below it the way that was asked for."""
    body = Retry(side_by_side(kept("a"), kept("b")) >> plain("c"), 1)
    run = given(saga(body)).when_step_fails("c", times=1).ends("completed")
    assert {event.step for event in run.all(ev.StepCompensated)} == {"a", "b"}


def test_a_block_is_undone_side_by_side_as_one_beside_what_completed_between() -> None:
    """(2) What is being undone is never left for what came between it and its fellow."""
    block = side_by_side(kept("a"), kept("b"))
    body = Parallel((block, kept("between"))) >> plain("end")
    run = given(saga(body)).when_step_fails("end")
    run.when_step_takes("between", 5).when_step_takes("b", 9).when_undo_fails("a", times=2)
    run.then_undoes("between", "b", "a").ends("compensated")


def test_nothing_is_undone_beside_a_probe_that_may_let_its_scope_go_on() -> None:
    """(2, 5, 6) Within a scope one thing at a time: it may turn out that it did not fail."""
    scope = Scope(side_by_side(kept("a"), probed("b")))
    run = given(saga(Parallel((kept("x"), scope)), deadline=5)).when_step_takes("x", 1)
    run.when_step_takes("b", 9).when_probe_answers("b", "happened").when_undo_takes("a", 1)
    run.then_undoes("x", "b", "a").ends("compensated", because="deadline")


def test_iterations_unwind_one_by_one() -> None:
    """(2) Loop iterations unwind one by one."""
    body = loop(kept("a"), until=lambda n: n == "end", max_iterations=3)
    run = given(saga(body)).ends("compensated", because="LoopExhausted")
    assert [c.path for c in run.begun(RunCompensation)] == ["s/0#3", "s/0#2", "s/0"]


def test_items_unwind_one_by_one_in_reverse_of_their_completion() -> None:
    """(2) `each` items unwind one by one."""
    run = listed(each(kept("a")) >> plain("end"), "[1,2,3]").when_step_fails("end")
    run.ends("compensated")
    assert [c.path for c in run.begun(RunCompensation)] == ["s/1/2", "s/1/1", "s/1/0"]


def test_branches_settle_before_the_block_fails() -> None:
    """(7) Never undo beside work in flight."""
    run = given(saga(kept("a") | kept("b") >> kept("c"))).when_step_fails("a")
    run.when_step_takes("b", 5).when_step_takes("c", 5).then_undoes("c", "b").ends("compensated")
    turned = kinds(run.history).index("CompensationStarted")
    assert "StepSucceeded" not in kinds(run.history)[turned:]


def test_on_failure_cancel_cuts_the_siblings_off_and_they_are_in_doubt() -> None:
    """(7) `on_failure="cancel"` cuts the siblings off (they are then in doubt)."""
    body: Any = Parallel((kept("a"), doubtable("b") >> plain("c")), on_failure="cancel")
    run = given(saga(body)).when_step_fails("a").when_step_takes("a", 1).when_step_takes("b", 60)
    run.then_undoes("b").then_runs("a", "b").ends("compensated").then_took(1)
    assert [event.step for event in run.all(ev.StepInDoubt)] == ["b"]


def test_on_failure_cancel_leaves_alone_what_has_settled() -> None:
    """(7) Only what runs is cut off."""
    body: Any = Parallel((kept("a"), kept("b"), kept("c")), on_failure="cancel")
    run = given(saga(body)).when_step_fails("a").when_step_takes("a", 5)
    run.then_undoes("c", "b").ends("compensated")


def test_every_error_of_a_block_is_kept() -> None:
    """(7) Every error is kept, none lost."""
    run = given(saga(plain("a") | plain("b") | plain("c"))).when_step_fails("a")
    run.when_step_fails("c", failure=DECLINED).ends("compensated")
    failure = run.drive.state.failure
    assert failure is not None
    assert (failure.causes, failure.permanent) == ((BROKEN, DECLINED), True)


def test_one_permanent_error_among_them_makes_the_group_permanent() -> None:
    """(Groups of errors) No retry can help."""
    run = given(saga(Retry(plain("a") | plain("b"), 9))).when_step_fails("a", failure=DECLINED)
    run.when_step_fails("b").then_runs("a", "b").ends("compensated")


def test_a_retry_narrowed_to_an_error_matches_a_group_that_holds_it() -> None:
    """(Groups of errors) A `Retry(on=…)` outside matches if any matches."""
    body = Retry((plain("a") | plain("b")) | plain("c"), 1, on=(RuntimeError,))
    run = given(saga(body)).when_step_fails("b", times=1).ends("completed")
    assert len(run.all(ev.RetryScheduled)) == 1


def test_no_more_than_the_limit_run_at_once() -> None:
    """(7) Parallel(limit=)."""
    body: Any = Parallel(tuple(plain(f"n{n}") for n in range(5)), limit=2)
    run = given(saga(body))
    for number in range(5):
        run.when_step_takes(f"n{number}", 10)
    run.then_runs("n0", "n1", "n2", "n3", "n4").then_took(30).ends("completed")


def test_after_a_failure_no_further_branch_begins_where_there_is_a_limit() -> None:
    """(Limits) After a failure nothing new begins; what is in flight settles."""
    body: Any = Parallel((plain("a"), kept("b") >> plain("c"), plain("d")), limit=2)
    run = given(saga(body)).when_step_fails("a").when_step_takes("b", 5)
    run.then_runs("a", "b").then_undoes("b").ends("compensated", because="broken")
    assert run.drive.state.failure == BROKEN


def listed(body: Any, items: str) -> Given:
    """A saga that runs *body* on a list of items."""
    return given(saga(plain("list") >> body)).when_step_gives("list", items)


def test_items_run_up_to_their_concurrency_and_give_a_list_in_order() -> None:
    """(14) Each: the count and each item's fate are events."""
    run = listed(each(plain("a"), concurrency=2), "[1,2,3]").when_step_takes("a", 10)
    run.then_took(20).ends("completed")
    assert run.result() == '["a","a","a"]'
    [begun] = run.all(ev.EachStarted)
    assert (begun.count, begun.concurrency, begun.items) == (3, 2, "[1,2,3]")
    assert [event.item for event in run.all(ev.ItemSucceeded)] == [0, 1, 2]
    assert [command.input for command in run.begun(RunStep)][1:] == ["1", "2", "3"]


def test_after_an_item_failed_no_further_one_begins_and_those_in_flight_settle() -> None:
    """(Limits) After a failure nothing new begins; what is in flight settles."""
    run = listed(each(kept("a") >> kept("b"), concurrency=2), "[1,2,3,4]")
    run.when_step_takes("b", 5).when_step_fails("a", times=1)
    run.then_runs("list", "a", "a").then_undoes("a").ends("compensated", because="broken")
    assert [event.item for event in run.all(ev.ItemFailed)] == [0, 1]


@pytest.mark.parametrize("inner", [saga(plain("x"), "inner").child(), sleep(9) >> plain("z")])
def test_an_item_that_had_begun_nothing_yet_begins_nothing_after_a_failure(inner: Any) -> None:
    """(Limits) After a failure nothing new begins: no child, no timer, no alternative."""
    late = plain("a").fallback(plain("b") >> inner.fallback(plain("y")))
    run = listed(each(late, concurrency=2), "[1,2]")
    run.when_step_fails("a").when_step_fails("b", times=1).ends("compensated")
    assert run.begun(StartChild) == []
    assert run.all(ev.TimerSet) == []


def test_an_empty_list_is_done_at_once() -> None:
    """(14) The count is an event; nothing is run."""
    run = listed(each(plain("a")), "[]").ends("completed")
    assert run.result() == "[]"


@pytest.mark.parametrize("items", ["7", "null", '"abc"', "{}"])
def test_what_is_no_list_fails_for_good(items: str) -> None:
    """(14) Refused before anything is begun."""
    run = listed(Retry(each(plain("a")), 5), items).then_runs("list")
    run.ends("compensated", because="each() takes a list")


def test_a_list_over_the_limit_fails_before_anything_is_begun() -> None:
    """(14) Fails before anything is begun."""
    run = listed(each(plain("a"), limit=2), "[1,2,3]").then_runs("list")
    run.ends("compensated", because="more than the limit of 2")


def test_every_error_of_a_list_is_kept() -> None:
    """(7) Every error is kept, none lost; what was not begun is no error."""
    run = listed(each(plain("a"), concurrency=3), "[1,2,3]").when_step_succeeds("a")
    run.when_step_fails("a", failure=DECLINED).ends("compensated")
    failure = run.drive.state.failure
    assert failure is not None
    assert failure.causes == (DECLINED, DECLINED)


def test_lists_nest_and_each_unwinds_below_its_own_item() -> None:
    """(2, 14) Paths tell the item at each level."""
    run = listed(each(each(kept("a"))) >> plain("end"), "[[1],[2,3]]").when_step_fails("end")
    run.ends("compensated")
    paths = ["s/1/0/0", "s/1/1/0", "s/1/1/1"]
    assert sorted(command.path for command in run.begun(RunCompensation)) == paths
    assert sorted(c.input for c in run.begun(RunCompensation)) == ["1", "2", "3"]


def test_a_wait_in_a_branch_ends_when_another_branch_fails_and_there_is_a_limit() -> None:
    """(Limits, 15) What only waits is not waited for."""
    body: Any = Parallel((plain("a"), Signal("go", Any).wait()), limit=2)
    run = given(saga(body)).when_step_fails("a").when_step_takes("a", 5).ends("compensated")
    assert run.drive.state.failure == BROKEN
    assert len(run.all(ev.WaitEnded)) == 1
