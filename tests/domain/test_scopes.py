"""Scopes leave nothing behind: what a failed attempt did is undone before anything else begins."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Fallback, each, loop
from orchestrator.domain.commands import RunCompensation, RunStep
from orchestrator.domain.definition import Parallel, Primitive
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from tests.parts import doubtable, kept, plain, saga, take_back
from tests.spec import BROKEN, DECLINED, given, kinds


def test_what_the_failed_attempt_of_a_retry_completed_is_undone_before_the_next_begins() -> None:
    """(6) What the failed attempt completed is undone before the next attempt begins."""
    run = given(saga(Retry(kept("a") >> plain("b"), 2))).when_step_fails("b", times=2)
    run.then_undoes("a", "a").ends("completed")
    order = [e for e in kinds(run.history) if e in ("StepCompensated", "RetryScheduled")]
    assert order == ["StepCompensated", "RetryScheduled"] * 2


def test_what_a_failed_alternative_completed_is_undone_before_the_next_begins() -> None:
    """(6) before the next alternative begins."""
    body = Fallback(kept("a") >> plain("b"), [kept("c") >> plain("d"), plain("e")])
    run = given(saga(body)).when_step_fails("b").when_step_fails("d")
    run.then_undoes("a", "c").then_runs("a", "b", "c", "d", "e").ends("completed")
    order = [e for e in kinds(run.history) if e in ("StepCompensated", "FallbackTaken")]
    assert order == ["StepCompensated", "FallbackTaken"] * 2


def test_alternatives_get_the_same_input() -> None:
    """(6) Each alternative begins where the first one did."""
    run = given(saga(plain("x") >> Fallback(plain("a"), [plain("b")]))).when_step_fails("a")
    run.ends("completed")
    assert [command.input for command in run.begun(RunStep)] == ["0", '"x"', '"x"']


def test_an_alternative_in_doubt_is_undone_before_the_next_begins() -> None:
    """(A scope leaves nothing behind) In-doubt steps included, by their declaration."""
    run = given(saga(Fallback(doubtable("a"), [plain("b")]))).when_step_is_in_doubt("a")
    run.then_undoes("a").then_runs("a", "b").ends("completed")


def test_a_fallback_whose_alternatives_all_failed_carries_all_their_errors_in_order() -> None:
    """(Groups of errors) A Fallback carries all their errors in order."""
    run = given(saga(Fallback(plain("a"), [plain("b"), plain("c")]))).when_step_fails("a")
    run.when_step_fails("b", failure=DECLINED).when_step_fails("c").ends("compensated")
    failure = run.drive.state.failure
    assert failure is not None
    assert failure.causes == (BROKEN, DECLINED, BROKEN)
    assert not failure.permanent


def test_a_fallback_is_permanent_only_if_all_its_errors_are() -> None:
    """(Groups of errors) It is permanent only if all are."""
    body = Retry(Fallback(plain("a"), [plain("b")]), 1)
    run = given(saga(body)).when_step_fails("a", failure=DECLINED)
    run.when_step_fails("b", failure=DECLINED).then_runs("a", "b").ends("compensated")
    body = Retry(Fallback(plain("a"), [plain("b")]), 1)
    run = given(saga(body)).when_step_fails("a", failure=DECLINED).when_step_fails("b")
    run.then_runs("a", "b", "a", "b").ends("compensated")


def test_a_fallback_that_runs_again_begins_with_its_first_alternative_under_new_keys() -> None:
    """(Keys) After its scope was undone, a step runs under a new key."""
    run = given(saga(Retry(Fallback(kept("a"), [kept("b")]), 1))).when_step_fails("a")
    run.when_step_fails("b", times=1).ends("completed").then_runs("a", "b", "a", "b")
    paths = [command.path for command in run.begun(RunStep)]
    assert len(set(paths)) == 4


def test_a_named_scope_is_undone_where_it_fails() -> None:
    """(6) `Scope(...)` is the same thing by name (a savepoint)."""
    body = kept("x") >> Scope(kept("a") >> plain("b"), "try")
    run = given(saga(body)).when_step_fails("b").then_undoes("a", "x").ends("compensated")
    turned = kinds(run.history).index("CompensationStarted")
    assert kinds(run.history)[:turned].count("StepCompensated") == 1


def test_pairs_of_do_and_undo_are_a_scope() -> None:
    """(6) Compensation around a composite is a scope."""
    pairs: Any = Compensation(
        ((plain("a"), take_back), (plain("b"), None), (plain("c"), take_back))
    )
    run = given(saga(Fallback(pairs, [plain("d")]))).when_step_fails("c")
    run.then_undoes("a").then_runs("a", "b", "c", "d").ends("completed")


def test_a_time_out_round_a_composite_is_a_scope() -> None:
    """(6) Timeout around a composite is a scope."""
    body = Fallback(Timeout(kept("a") >> plain("b"), 10), [plain("c")])
    run = given(saga(body)).when_step_takes("b", 60).then_undoes("a").then_runs("a", "b", "c")
    run.ends("completed").then_took(10)


def test_a_time_out_that_fires_while_a_scope_inside_it_is_undoing_lets_the_undo_finish() -> None:
    """(A time-out that fires while a scope undoes) lets the undo finish, then goes outward."""
    body = Timeout(Scope(kept("a") >> plain("b")), 10)
    run = (
        given(saga(body)).when_step_takes("b", 9).when_step_fails("b").when_undo_fails("a", times=3)
    )
    run.then_undoes("a").ends("compensated", because="not done within 10 s")


def test_an_undo_that_fails_within_a_scope_parks_the_saga_where_it_stands() -> None:
    """(9) Never swallowed, never skipped silently: a scope is no exception."""
    body = Fallback(kept("a") >> plain("b"), [plain("c")])
    run = given(saga(body)).when_step_fails("b").when_undo_fails("a", failure=DECLINED, times=1)
    run.ends("stuck").repaired("retry").then_undoes("a").then_runs("a", "b", "c").ends("completed")


def test_the_last_attempt_is_undone_too_before_the_error_goes_outward() -> None:
    """(A scope leaves nothing behind) undone where it fails, the last one too."""
    body = kept("x") >> Retry(kept("a") >> plain("b"), 1)
    run = given(saga(body)).when_step_fails("b").then_undoes("a", "a", "x").ends("compensated")
    turned = kinds(run.history).index("CompensationStarted")
    assert kinds(run.history)[:turned].count("StepCompensated") == 2


def test_a_cancelled_scope_is_undone_in_reverse_order_like_all_else() -> None:
    """(2, 10) Cancel compensates."""
    body = kept("x") >> Retry(kept("a") >> kept("b") >> plain("c"), 3)
    run = given(saga(body)).when_step_takes("c", 9).when_cancelled_after(5)
    run.then_undoes("b", "a", "x").ends("compensated")


@pytest.mark.parametrize(
    ("inner", "scope"),
    [
        (kept("a") >> kept("b"), True),
        (kept("a") | kept("b"), True),
        (loop(kept("a"), until=bool, max_iterations=1), True),
        (Scope(kept("a")), True),
        (Fallback(kept("a"), [kept("b")]), True),
        (saga(kept("a"), "inner").child(), True),
        (kept("a"), False),
        (kept("a").timeout(9), False),
        (kept("a").retry(1), False),
        (kept("a").keep(), False),
        (kept("a").using(lambda v: v.value), False),
        (kept("a").circuit("c").rate_limit("r", 1), False),
    ],
    ids=repr,
)
def test_composites_are_scopes_and_wrappers_round_one_step_are_not(
    inner: Primitive[Any, Any], scope: bool
) -> None:
    """(Composites) Sequences, parallels, loops, each, children, Scope, Fallback; no wrappers."""
    run = given(saga(Retry(inner, 1, jitter=False))).when_step_fails("a", times=1)
    run.when_child_ends("inner", "compensated").ends("completed")
    again = [event.target for event in run.all(ev.RetryScheduled) if event.node == "s"]
    fell_back = isinstance(inner, Fallback)
    expected = [] if fell_back or _retries(inner) else ["s/0@2" if scope else "s/0"]
    assert again == expected


def _retries(node: Primitive[Any, Any]) -> bool:
    return isinstance(node, Retry)


def test_an_adapter_of_a_composite_is_a_scope() -> None:
    """(Composites) What adapts a composite is one."""
    run = given(saga(Retry((kept("a") >> plain("b")).map(str), 1))).when_step_fails("b", times=1)
    run.then_undoes("a").ends("completed")


def test_attempts_of_one_step_share_one_key_and_a_repeated_scope_has_new_ones() -> None:
    """(Keys) Attempts of one step share one key; after its scope was undone it has a new one."""
    body = Retry(kept("a").retry(1) >> plain("b"), 1)
    run = given(saga(body)).when_step_fails("a", times=1).when_step_fails("b", times=1)
    run.ends("completed").then_runs("a", "a", "b", "a", "b")
    assert [c.path for c in run.begun(RunStep) if c.step.name == "a"] == [
        "s/0/0/0", "s/0/0/0", "s/0@2/0/0",
    ]  # fmt: skip


def test_a_scope_within_a_branch_is_undone_though_its_sibling_still_runs() -> None:
    """(6, 7) A scope is undone where it fails; only its own work must have settled."""
    body: Any = Parallel((Fallback(kept("a") >> plain("b"), [plain("c")]), kept("slow")))
    run = given(saga(body)).when_step_fails("b").when_step_takes("slow", 60)
    run.then_undoes("a").ends("completed")


def test_a_scope_around_a_list_is_undone_item_by_item() -> None:
    """(2, 6) Items unwind one by one, in a scope too."""
    items = plain("list") >> each(kept("a") >> plain("b"), concurrency=1)
    run = given(saga(Fallback(items, [plain("c")]))).when_step_gives("list", "[1,2]")
    run.when_step_succeeds("b").when_step_fails("b").then_undoes("a", "a").ends("completed")
    assert [c.path for c in run.begun(RunCompensation)] == ["s/0/1/1/0", "s/0/1/0/0"]


def test_a_scope_in_a_loop_is_undone_in_its_iteration_only() -> None:
    """(2, 6) An iteration is undone as a scope when it is one."""
    body = loop(Retry(kept("a") >> plain("b"), 1), until=lambda n: n == "end", max_iterations=2)
    run = given(saga(body)).when_step_succeeds("b").when_step_fails("b", times=1)
    run.when_step_gives("b", '"end"').then_undoes("a").ends("completed")
    assert run.begun(RunCompensation)[0].path == "s/0#2/0/0"


def test_an_input_that_a_scope_began_with_is_that_of_its_undo() -> None:
    """(3) An undo receives the recorded input of its step, in every attempt."""
    body = plain("x") >> Retry(kept("a") >> plain("b"), 1)
    run = given(saga(body)).when_step_fails("b").then_undoes("a", "a").ends("compensated")
    assert [c.input for c in run.begun(RunCompensation)] == ['"x"', '"x"']


def test_a_scope_without_anything_to_undo_goes_outward_at_once() -> None:
    """(6) Steps without an undo are passed over."""
    run = given(saga(Scope(plain("a") >> plain("b")))).when_step_fails("b")
    run.then_undoes().ends("compensated")
