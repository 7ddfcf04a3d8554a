"""Code as a part of a saga: recorded, replayed, compared, undone like anything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import each
from orchestrator.domain.commands import RunCompensation, RunStep
from orchestrator.domain.flow import Flow, flow
from orchestrator.domain.forward import REQUEST_LIMIT
from orchestrator.domain.waiting import Signal
from orchestrator.domain.wrappers import Retry
from orchestrator.errors import StepError
from tests.parts import doubtable, kept, plain, saga
from tests.spec import DECLINED, START, UNKNOWN, Drive, given, kinds

GO = Signal("go", Any)
Code = Callable[[Any, Flow], Awaitable[Any]]


@flow
async def two(value: Any, f: Flow) -> Any:
    first = await f.run(kept("one"), value)
    return await f.run(kept("two"), first)


@flow
async def careful(value: Any, f: Flow) -> Any:
    try:
        return await f.run(kept("one") >> plain("two"), value)
    except StepError:
        return await f.run(plain("other"), value)


@flow
async def patient(value: Any, f: Flow) -> Any:
    await f.sleep(60)
    return await f.receive(GO, within=60)


def test_its_requests_are_events_under_its_path() -> None:
    """(1) Its requests are events under its path."""
    run = given(saga(plain("a") >> two >> plain("b"))).ends("completed")
    asked = run.all(ev.FlowRequested)
    assert [(e.node, e.index, e.input) for e in asked] == [("s/1", 0, '"a"'), ("s/1", 1, '"one"')]
    assert [command.path for command in run.begun(RunStep)] == ["s/0", "s/1/0", "s/1/1", "s/2"]
    assert run.all(ev.FlowReturned)[0].output == '"two"'


def test_it_is_replayed_after_a_crash_and_nothing_runs_twice() -> None:
    """(1) Replayed code."""
    run = (
        given(saga(two)).when_step_takes("two", 9).when_it_crashes_after(ev.FlowRequested, times=2)
    )
    run.ends("completed").then_runs("one", "two")


def test_code_that_is_not_what_made_the_record_parks_before_any_effect() -> None:
    """(1) The first one that differs parks as `stuck`, naming what was expected and found."""
    changed = [kept("one"), kept("two")]

    @flow
    async def code(value: Any, f: Flow) -> Any:
        first = await f.run(changed[0], value)
        return await f.run(changed[1], first)

    run = given(saga(kept("x") >> code)).when_step_takes("two", 9)
    run.when_it_crashes_after(ev.FlowRequested)
    changed[0] = plain("another")
    run.run.crash()
    run.ends("stuck", because="request 0 was Step:one on")
    assert "Step:another" in run.drive.state.stuck.reason  # type: ignore[union-attr]  # it is stuck
    assert run.drive.state.stuck.step == "code"  # type: ignore[union-attr]  # it is stuck
    changed[0] = kept("one")
    run.repaired("resume").ends("completed")


def test_code_that_ends_before_its_record_does_parks_too() -> None:
    """(1) the first one that differs."""
    short: list[bool] = []

    @flow
    async def code(value: Any, f: Flow) -> Any:
        if short:
            return value
        return await f.run(plain("one"), value)

    run = given(saga(code)).when_step_takes("one", 9)
    run.run.run_until(lambda: len(run.run.begun) == 1)
    short.append(True)
    run.run.crash()
    run.ends("stuck", because="is now the end of the code")


def test_a_request_on_another_value_differs() -> None:
    """(1) What was expected and what was found."""
    values = [1]

    @flow
    async def code(value: Any, f: Flow) -> Any:
        return await f.run(plain("one"), values[0])

    run = given(saga(code)).when_step_takes("one", 9)
    run.run.run_until(lambda: len(run.run.begun) == 1)
    values[0] = 2
    run.run.crash()
    run.ends("stuck", because="was Step:one on 1, and is now Step:one on 2")


def test_its_steps_stand_on_the_same_undo_stack() -> None:
    """(13 of the examples) Same guarantees, same undo stack."""
    run = given(saga(kept("a") >> two >> plain("b"))).when_step_fails("b")
    run.then_undoes("two", "one", "a").ends("compensated")
    assert [c.input for c in run.begun(RunCompensation)] == ['"one"', '"a"', "0"]


def test_its_code_is_loaded_again_to_undo_its_steps_after_a_crash() -> None:
    """(1, 2) Its parts are known from its code, on the way back too."""
    run = given(saga(kept("a") >> two >> plain("b"))).when_step_fails("b")
    run.when_it_crashes_after(ev.CompensationStarted)
    run.then_undoes("two", "one", "a").ends("compensated")


def test_its_code_is_loaded_again_in_the_middle_of_the_way_back() -> None:
    """(1, 2) Its parts are known from its code, on the way back too."""
    run = (
        given(saga(two >> plain("b")))
        .when_step_fails("b")
        .when_it_crashes_after(ev.StepCompensated)
    )
    run.then_undoes("two", "one").ends("compensated")


def test_a_part_that_failed_leaves_nothing_behind_when_the_code_hears_of_it() -> None:
    """(6) All that it completed is undone by then."""
    run = given(saga(careful)).when_step_fails("two").then_undoes("one")
    run.then_runs("one", "two", "other").ends("completed")
    assert kinds(run.history).index("StepCompensated") < len(kinds(run.history)) - 3


def test_a_part_in_doubt_is_undone_before_the_code_hears_of_it() -> None:
    """(A scope leaves nothing behind) in-doubt steps included."""

    @flow
    async def code(value: Any, f: Flow) -> Any:
        try:
            return await f.run(doubtable("one"), value)
        except StepError as error:
            return str(error)

    run = given(saga(code)).when_step_is_in_doubt("one").then_undoes("one").ends("completed")
    assert run.result() == '"TimeoutError: no answer"'


def test_code_that_lets_a_failure_through_fails_with_it() -> None:
    """(1) Same guarantees."""
    run = given(saga(kept("a") >> two)).when_step_fails("two", failure=DECLINED)
    run.then_undoes("one", "a").ends("compensated", because="Permanent: declined")
    assert run.drive.state.failure == DECLINED


def test_code_that_raises_fails_its_place() -> None:
    """(1) An exception of its own."""

    @flow
    async def code(value: Any, f: Flow) -> Any:
        await f.run(kept("one"), value)
        raise ValueError("no deal")

    run = given(saga(kept("a") >> code)).then_undoes("one", "a")
    run.ends("compensated", because="ValueError: no deal")


def test_it_sleeps_and_waits_durably() -> None:
    """(13 of the examples) receive and sleep."""
    run = given(saga(patient)).when_signalled("go", "7", after=90)
    run.when_it_crashes_after(ev.WaitStarted).ends("completed").then_took(90)
    assert run.result() == "7"


def test_a_wait_in_it_that_takes_too_long_is_a_time_out_in_its_code() -> None:
    """(11) Both builtin and our own time-outs are `TimeoutError`."""
    run = given(saga(kept("a") >> patient)).then_undoes("a").then_took(120)
    run.ends("compensated", because="TimeoutError: no signal 'go' within 60 s")


def test_cancel_stops_it_where_it_stands_and_undoes_its_steps() -> None:
    """(10) Cancel compensates; the code asks for nothing more."""
    run = given(saga(kept("a") >> two)).when_step_takes("one", 9).when_cancelled_after(5)
    run.then_runs("a", "one").then_undoes("one", "a").ends("compensated", because="cancelled")
    assert len(run.all(ev.FlowRequested)) == 1


def test_a_retry_round_it_runs_the_code_afresh() -> None:
    """(6) A flow is a composite; its next attempt has new keys."""
    run = given(saga(Retry(two, 1))).when_step_fails("two", times=1).then_undoes("one")
    run.ends("completed").then_runs("one", "two", "one", "two")
    assert len({command.path for command in run.begun(RunStep)}) == 4


def test_a_request_may_be_any_part_also_a_list() -> None:
    """(1) Run a step, or any other part of a flow."""

    @flow
    async def code(value: Any, f: Flow) -> Any:
        return await f.run(each(kept("one")), [1, 2])

    run = given(saga(code >> plain("b"))).when_step_fails("b").then_undoes("one", "one")
    run.ends("compensated")
    assert sorted(c.path for c in run.begun(RunStep))[:2] == ["s/0/0/0", "s/0/0/1"]


def test_a_flow_may_run_another_flow() -> None:
    """(1) Its parts too are known from its code, level by level."""

    @flow
    async def outer(value: Any, f: Flow) -> Any:
        await f.run(kept("before"), value)
        return await f.run(two, value)

    run = given(saga(outer >> plain("b"))).when_step_fails("b")
    run.when_it_crashes_after(ev.CompensationStarted)
    run.then_undoes("two", "one", "before").ends("compensated")


def test_a_flow_makes_a_bounded_number_of_requests() -> None:
    """(Limits) Its code is run again from the beginning whenever it is loaded."""

    @flow
    async def endless(value: Any, f: Flow) -> Any:
        while True:
            await f.sleep(0)

    run = given(saga(endless)).ends("compensated", because="RequestLimitExceeded")
    assert len(run.all(ev.FlowRequested)) == REQUEST_LIMIT


def test_what_awaits_something_else_fails_for_good() -> None:
    """(1) Nothing else may be awaited in it."""

    class Other:
        def __await__(self) -> Any:
            yield "something"

    @flow
    async def code(value: Any, f: Flow) -> Any:
        await Other()

    given(saga(Retry(code, 3))).ends("compensated", because="awaits something that is not f.run")


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_flow_behind_the_pivot_handles_failures_by_itself(seconds: float) -> None:
    """(After the pivot) Its code is what stands between a step and the spine."""
    run = given(saga(plain("a").pivot() >> careful)).when_step_fails("one", failure=UNKNOWN)
    run.when_step_takes("other", seconds)
    with pytest.raises(Exception, match="after"):
        saga(plain("a").pivot() >> kept("one"))
    run.ends("completed").then_runs("a", "one", "other").then_undoes()
    assert (run.drive.now - START).total_seconds() == seconds


def test_two_owners_see_the_same_code() -> None:
    """(1) A replay asks for nothing that was answered."""
    run = given(saga(two)).ends("completed")
    again = Drive(run.run.saga, run.run.play, history=list(run.history))
    again.restart(run.history[:-1])
    assert again.run().history == run.history


def test_what_came_to_its_end_runs_its_code_afresh_when_a_person_has_it_tried_again() -> None:
    """(8) After the pivot a flow that failed parks; retried, its failed part runs once more."""
    run = given(saga(plain("pivot").pivot() >> two)).when_step_fails(
        "two", failure=DECLINED, times=2
    )
    run.ends("stuck").repaired("retry").ends("stuck").repaired("retry").ends("completed")
    assert [command.path for command in run.begun(RunStep)].count("s/1/1") == 3


def test_a_person_has_only_that_part_tried_again_from_which_the_code_did_not_go_on() -> None:
    """(1, 8) What the code has seen fail stays as it was recorded."""
    run = given(saga(plain("pivot").pivot() >> careful)).when_step_fails("two", failure=DECLINED)
    run.when_step_fails("other", failure=DECLINED, times=1)
    run.ends("stuck").repaired("retry").ends("completed")
    ran = [command.path for command in run.begun(RunStep)]
    assert ran == ["s/0/0", "s/1/0/0", "s/1/0/1", "s/1/1", "s/1/1"]
