"""Child sagas: known before they start, undone with their parent, cancelled with it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Fallback, each
from orchestrator.domain.commands import CancelChild, RunStep, StartChild, UndoChild, WatchChild
from orchestrator.domain.definition import Parallel
from orchestrator.domain.events import Status
from orchestrator.domain.saga import Saga
from orchestrator.domain.waiting import Signal
from orchestrator.domain.wrappers import Retry, Timeout
from orchestrator.errors import DefinitionError
from tests.parts import kept, plain, saga
from tests.spec import DECLINED, Given, given, kinds


def child(key: Any = None) -> Any:
    return saga(kept("inside"), "inner").child(key=key)


def test_a_childs_id_is_recorded_before_it_starts() -> None:
    """(16) Their ids are recorded before they start."""
    run = given(saga(plain("a") >> child() >> plain("b"))).ends("completed")
    [asked] = run.all(ev.ChildRequested)
    [start] = run.begun(StartChild)
    assert (start.child_id, start.input, start.saga.name) == (asked.child_id, '"a"', "inner")
    assert uuid.UUID(asked.child_id).version == 7
    assert kinds(run.history).index("ChildRequested") < kinds(run.history).index("ChildStarted")
    assert run.begun(RunStep)[-1].input == '"inner"'


@pytest.mark.parametrize("kind", [ev.ChildRequested, ev.ChildStarted])
def test_a_child_is_the_same_one_after_a_crash(kind: type[Any]) -> None:
    """(16) Whatever happens, it is started under the id that was recorded."""
    run = given(saga(child())).when_child_ends("inner", "completed", takes=60)
    run.when_it_crashes_after(kind).ends("completed")
    assert len({command.child_id for command in run.begun(StartChild)}) == 1
    assert len(run.all(ev.ChildRequested)) == 1


def test_a_childs_key_is_made_from_its_input_and_recorded() -> None:
    """(16) The key is a recorded fact like every other choice."""
    run = given(saga(plain("a") >> child(key=lambda v: f"key-{v}"))).ends("completed")
    assert run.begun(StartChild)[0].key == "key-a"
    assert run.all(ev.ChildRequested)[0].key == "key-a"


def test_a_child_that_cannot_be_started_fails_its_place() -> None:
    """(16) A key that belongs to another instance is a definite failure."""
    run = given(saga(kept("a") >> child())).when_child_is_refused("inner", DECLINED)
    run.then_undoes("a").ends("compensated", because="declined")
    assert run.begun(UndoChild) == []


def test_a_child_that_completed_is_compensated_when_its_parent_goes_back() -> None:
    """(16) A child that completed is compensated when its parent goes back."""
    run = given(saga(kept("a") >> child() >> plain("b"))).when_step_fails("b")
    run.then_undoes("inner", "a").ends("compensated")
    assert [event.child_id for event in run.all(ev.ChildUndoRequested)] == list(run.drive.kids)


def test_a_child_that_went_back_by_itself_is_not_undone() -> None:
    """(16) Only a child that completed."""
    run = given(saga(kept("a") >> child())).when_child_ends("inner", "compensated")
    run.then_undoes("a").ends("compensated")
    assert run.begun(UndoChild) == []


def test_a_child_that_failed_may_be_tried_again_as_another_one() -> None:
    """(6, 16) A child is a composite: a retry round it is a scope."""
    run = given(saga(Retry(child(), 1))).when_child_ends("inner", "compensated").ends("completed")
    assert len({event.child_id for event in run.all(ev.ChildRequested)}) == 2


def test_cancel_goes_down_the_tree() -> None:
    """(16) Cancel goes down the tree."""
    run = given(saga(kept("a") >> child())).when_child_ends("inner", "completed", takes=60)
    run.when_cancelled_after(5).then_undoes("a").ends("compensated", because="cancelled")
    assert len(run.begun(CancelChild)) == 1
    assert run.all(ev.ChildEnded)[0].status == "compensated"
    run.then_took(5)


def test_the_deadline_goes_down_to_live_children() -> None:
    """(Deadline) Cancel and deadline go down to live children, which compensate."""
    run = given(saga(kept("a") >> child(), deadline=10))
    run.when_child_ends("inner", "completed", takes=60).then_undoes("a")
    run.ends("compensated", because="the deadline passed")
    assert len(run.begun(CancelChild)) == 1


def test_a_child_that_was_done_before_the_cancel_reached_it_is_undone() -> None:
    """(16) Either it went back by itself, or it is asked to."""
    run = given(saga(kept("a") >> (child() | plain("slow"))))
    run.when_child_ends("inner", "completed", takes=5).when_step_takes("slow", 60)
    run.when_cancelled_after(5).then_undoes("inner", "a").ends("compensated")


def test_a_child_that_was_only_asked_for_is_not_forgotten_by_a_cancel() -> None:
    """(16) An earlier owner may have started it: so it is started, cancelled and waited for."""
    run = given(saga(kept("a") >> child())).when_child_ends("inner", "completed", takes=60)
    run.when_it_crashes_after(ev.ChildRequested)
    run.run.cancel()
    run.then_undoes("a").ends("compensated")
    assert [len(run.begun(kind)) for kind in (StartChild, CancelChild)] == [1, 1]


def test_a_time_out_cancels_a_child_and_waits_until_it_has_gone_back() -> None:
    """(16) Nothing is left behind."""
    body = Fallback(Timeout(child(), 5), [plain("b")])
    run = given(saga(body)).when_child_ends("inner", "completed", takes=60).ends("completed")
    run.then_runs("b").then_took(5)


def test_a_child_beside_a_failed_branch_is_cancelled_where_siblings_are_cut_off() -> None:
    """(7, 16) `on_failure="cancel"` reaches children too."""
    body: Any = Parallel((plain("a"), child()), on_failure="cancel")
    run = given(saga(body)).when_child_ends("inner", "completed", takes=60).when_step_fails("a")
    run.when_step_takes("a", 5).ends("compensated", because="broken").then_took(5)
    assert len(run.begun(CancelChild)) == 1


def test_a_child_in_a_scope_is_undone_before_the_next_attempt() -> None:
    """(6, 16) What the failed attempt completed is undone, children included."""
    run = given(saga(Retry(child() >> plain("b"), 1))).when_step_fails("b", times=1)
    run.then_undoes("inner").ends("completed")
    assert len({event.child_id for event in run.all(ev.ChildRequested)}) == 2


def test_a_parent_whose_childs_undo_takes_long_stays_compensating() -> None:
    """(A parent whose child's undo is stuck) stays `compensating`."""
    run = given(saga(kept("a") >> child() >> plain("b"))).when_step_fails("b")
    run.when_child_ends("inner", "completed").when_child_ends("inner", "compensated", takes=3_600)
    run.run.run_until(lambda: any(isinstance(c, WatchChild) and c.undone for c in run.run.begun))
    assert run.run.state.status is Status.COMPENSATING
    run.then_undoes("inner", "a").ends("compensated").then_took(3_600)


def test_a_child_that_cannot_be_undone_parks_its_parent() -> None:
    """(16) Somebody terminated it meanwhile: a person is needed here too."""
    run = given(saga(kept("a") >> child() >> plain("b"))).when_step_fails("b")
    run.when_child_ends("inner", "completed").when_child_ends("inner", "terminated")
    run.then_undoes().ends("stuck", because="was to be undone, but it is terminated")
    run.repaired("skip", step="inner", reason="by hand").then_undoes("a").ends("compensated")


def listed(concurrency: int) -> Given:
    body = plain("list") >> each(child(), concurrency=concurrency) >> plain("end")
    return given(saga(body)).when_step_gives("list", "[1,2,3]")


def test_items_as_children_are_started_up_to_their_concurrency() -> None:
    """(14, 16) Each item a child saga."""
    run = listed(2)
    for _ in range(3):
        run.when_child_ends("inner", "completed", takes=10)
    run.then_took(20).ends("completed")
    assert [command.input for command in run.begun(StartChild)] == ["1", "2", "3"]


def test_items_as_children_unwind_one_by_one() -> None:
    """(2, 16) `each` items unwind one by one."""
    run = listed(3).when_step_fails("end").then_undoes("inner", "inner", "inner")
    run.ends("compensated")
    paths = [event.node for event in run.all(ev.ChildUndoRequested)]
    assert paths == ["s/1/2", "s/1/1", "s/1/0"]


def test_a_child_with_a_pivot_must_be_a_pivot_in_its_parent() -> None:
    """(Where a pivot may stand) A child that has a pivot must be written `.pivot()` there."""
    inner = saga(plain("x").pivot(), "inner")
    with pytest.raises(DefinitionError, match=r"\.pivot\(\)"):
        saga(inner.child() >> plain("b"))
    run = given(saga(kept("a") >> inner.child().pivot() >> plain("b"))).ends("completed")
    assert len(run.all(ev.PivotPassed)) == 1


def test_a_child_that_is_the_pivot_makes_a_later_cancel_too_late() -> None:
    """(8, 16) After it completed nothing is compensated."""
    inner = saga(plain("x").pivot(), "inner")
    run = given(saga(kept("a") >> inner.child().pivot() >> plain("b"))).when_step_takes("b", 9)
    run.when_cancelled_after(5).then_undoes().ends("completed")
    assert len(run.all(ev.CancelRefused)) == 1


def test_only_its_parent_moves_a_completed_saga_again() -> None:
    """(16) The only case in which a completed saga moves again, and only its parent can ask."""
    run = given(saga(kept("a") >> kept("b"), "inner")).ends("completed")
    before = list(run.history)
    for kind in ("cancel", "resume", "retry", "terminate", "signal"):
        run.run.send(kind)
        run.run.turn()
    assert run.history == before
    run.repaired("undo", reason="its parent goes back").then_undoes("b", "a").ends("compensated")
    assert len(run.all(ev.UndoRequested)) == 1


def test_a_completed_saga_that_passed_its_pivot_is_not_undone() -> None:
    """(8) After a pivot nothing is compensated any more, whoever asks."""
    run = given(saga(kept("a") >> plain("b").pivot(), "inner")).ends("completed")
    run.repaired("undo").ends("completed").then_undoes()
    assert "point of no return" in run.all(ev.ActionRefused)[0].problem


def test_a_stuck_place_is_told_though_a_child_beside_it_still_runs() -> None:
    """(9, 16) A child may take for ever, and a person is needed now."""
    body = Retry(kept("a") >> plain("b"), 1) | child()
    run = given(saga(body)).when_child_ends("inner", "completed", takes=86_400)
    run.when_step_fails("b", times=1).when_undo_fails("a", failure=DECLINED, times=1)
    run.ends("stuck", because="compensation of a").then_took(0)
    run.repaired("retry").ends("completed").then_took(86_400)


def test_children_are_sagas_with_names_of_their_own() -> None:
    """(16) The request names saga and version."""
    inner: Saga[Any, Any] = saga(Signal("go", Any).wait(), "inner")
    run = given(saga(inner.child())).ends("completed")
    [asked] = run.all(ev.ChildRequested)
    assert (asked.saga, asked.saga_version, asked.node) == ("inner", 1, "s")
