"""Routes, conditions, loops, bindings and plain functions: chosen once, recorded, never again."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Router, each, loop, when
from orchestrator.domain.commands import Compute, RunCompensation, RunStep
from orchestrator.domain.definition import Sequential, pure
from orchestrator.domain.waiting import sleep
from orchestrator.domain.wrappers import Retry
from tests.parts import kept, plain, saga
from tests.spec import BROKEN, Given, given, kinds


def routed(choose: Any, **options: Any) -> Any:
    return Router({"left": kept("a"), "right": kept("b")}, choose, **options)


def test_a_router_takes_one_route_and_records_its_choice() -> None:
    """(14) The choice is an event."""
    run = given(saga(routed(lambda v, ctx: "right")), input="7").then_runs("b").ends("completed")
    assert [event.route for event in run.all(ev.RouteChosen)] == ["right"]
    assert run.begun(RunStep)[0].input == "7"


def test_a_choice_is_not_made_again_on_replay() -> None:
    """(14) Nothing is recomputed on replay."""
    choices = iter(["left", "right", "right"])
    run = given(saga(routed(lambda v, ctx: next(choices)))).when_step_takes("a", 9)
    run.when_it_crashes_after(ev.RouteChosen).then_runs("a").ends("completed")


def test_a_route_that_is_not_there_is_the_default_or_a_permanent_failure() -> None:
    """(Errors) An unknown route without default is a definite, permanent failure."""
    run = given(saga(routed(lambda v, ctx: "up", default="left"))).then_runs("a").ends("completed")
    run = given(saga(Retry(routed(lambda v, ctx: "up"), 5))).then_runs()
    run.ends("compensated", because="there is no route 'up'")


def test_a_condition_takes_one_way_or_passes_on() -> None:
    """(14) when: the choice is an event."""
    for number, names in ((9, ("x", "a", "c")), (1, ("x", "c"))):
        body = plain("x") >> when(lambda n: n > 5, then=plain("a")) >> plain("c")
        run = given(saga(body)).when_step_gives("x", str(number)).then_runs(*names)
        run.ends("completed")
        assert run.begun(RunStep)[-1].input == ('"a"' if number > 5 else "1")


def test_an_undo_behind_a_condition_that_passed_on_gets_its_input() -> None:
    """(3) An undo receives the recorded input of its step, whatever passed it on."""
    quiet = when(lambda n: False, then=plain("a"))
    body = plain("x") >> quiet >> sleep(5) >> kept("c") >> plain("end")
    run = given(saga(body)).when_step_fails("end").ends("compensated")
    assert run.begun(RunCompensation)[0].input == '"x"'


def test_a_route_is_undone_like_any_other_part() -> None:
    """(2) Undo order is the reverse of recorded completion."""
    body = kept("x") >> routed(lambda v, ctx: "left") >> plain("end")
    given(saga(body)).when_step_fails("end").then_undoes("a", "x").ends("compensated")


def test_a_loop_runs_until_its_condition_holds_each_time_on_its_last_output() -> None:
    """(14) The count is an event. Each iteration gets the previous output."""
    body: Any = loop(pure(lambda n: n), until=lambda n: n >= 3, max_iterations=9)
    outputs = iter(["1", "2", "3"])
    run = given(saga(body), input="0")
    run.run.play = lambda c: _counting(c, outputs, run)
    run.ends("completed")
    assert run.result() == "3"
    assert [event.input for event in run.all(ev.IterationScheduled)] == ["1", "2"]
    assert [event.holds for event in run.all(ev.ConditionEvaluated)] == [False, False, True]


def _counting(command: Any, outputs: Any, run: Given) -> Any:
    from orchestrator.domain.commands import Succeeded

    if isinstance(command, Compute) and command.name != "until":
        return Succeeded(next(outputs)), run.run.now - run.run.now
    return run._play(command)


def test_a_loop_that_reaches_its_bound_fails_as_exhausted() -> None:
    """(Errors) `loop` that reaches `max_iterations` fails with `LoopExhausted`."""
    run = given(saga(kept("x") >> loop(kept("a"), until=lambda _: False, max_iterations=3)))
    run.then_runs("x", "a", "a", "a").then_undoes("a", "a", "a", "x")
    run.ends("compensated", because="LoopExhausted")
    assert len({command.path for command in run.begun(RunStep)}) == 4


def test_a_loop_waits_between_its_iterations_and_the_due_time_survives_a_crash() -> None:
    """(10 of the examples) Durable polling."""
    body = loop(plain("a"), until=lambda _: False, max_iterations=3, pause=60)
    run = given(saga(body)).when_it_crashes_after(ev.IterationScheduled, times=2)
    run.ends("compensated").then_took(120).then_runs("a", "a", "a")


def test_a_loop_that_runs_again_as_a_scope_counts_anew() -> None:
    """(6) A loop is a composite."""
    body = Retry(loop(kept("a"), until=lambda _: False, max_iterations=2), 1)
    given(saga(body)).then_runs("a", "a", "a", "a").then_undoes("a", "a", "a", "a")


@pytest.mark.parametrize(
    "body",
    [
        pure(len),
        plain("a").map(len),
        plain("a").using(lambda v: v.input.nothing),
        Router({"x": plain("a")}, lambda v, ctx: v.nothing),
        when(lambda v: v.nothing, then=plain("a")),
        loop(plain("a"), until=lambda v: v.nothing, max_iterations=3),
        saga(plain("a"), "inner").child(key=lambda v: v.nothing),
    ],
    ids=["pure", "map", "using", "router", "when", "until", "key"],
)
def test_an_error_in_a_plain_function_is_definite_and_permanent_and_compensates(body: Any) -> None:
    """(Errors in `pure`, `.map`, `.using`, `router_fn`, `until`, conditions)"""
    tree: Any = kept("x") >> Retry(Sequential((body,)), 5)
    run = given(saga(tree)).when_step_fails("len").then_undoes("x").ends("compensated")
    assert len(run.all(ev.ComputationFailed)) == 1
    assert run.all(ev.RetryScheduled) == []
    failure = run.drive.state.failure
    assert failure is not None
    assert failure.permanent


def test_a_value_that_was_computed_is_an_event() -> None:
    """(14) Nothing is recomputed on replay."""
    run = given(saga(plain("a").map(str) >> plain("b"))).ends("completed")
    assert [event.output for event in run.all(ev.ValueComputed)] == ['"str"']


def test_what_is_bound_is_computed_once_and_recorded() -> None:
    """(14) InputBound: made of earlier outputs, recorded before it is used."""
    first = plain("first")
    body = first >> plain("second") >> kept("third").using(lambda v: v.output(first))
    run = given(saga(body >> plain("end"))).when_step_fails("end").then_undoes("third")
    assert [event.input for event in run.all(ev.InputBound)] == ['"first"']
    assert run.begun(RunStep)[2].input == '"first"'
    assert run.begun(RunCompensation)[0].input == '"first"'


def test_what_is_bound_to_a_step_that_is_not_done_fails() -> None:
    """(17) LookupError when it has not succeeded yet."""
    later = plain("later")
    body = plain("a").using(lambda v: v.output(later)) >> later
    given(saga(body)).ends("compensated", because="'later' has no recorded output")


def test_keep_gives_the_pair_of_input_and_output() -> None:
    """(Data flow) `.keep()`: input and output as a pair."""
    run = given(saga(plain("a") >> plain("b").keep() >> plain("c"))).ends("completed")
    assert run.begun(RunStep)[2].input == '["a","b"]'


def test_keep_and_using_give_the_neighbours_output_beside_the_result() -> None:
    """(Data flow) What came in is what the neighbour gave, whatever was bound."""
    body = plain("a") >> plain("b").using(lambda v: [v.value]).keep() >> plain("c")
    run = given(saga(body)).ends("completed")
    assert [c.input for c in run.begun(RunStep)] == ["0", '["a"]', '["a","b"]']


def test_a_part_may_be_nothing_but_adapters_round_a_list() -> None:
    """(14) Each item's fate is an event, whatever adapts it."""
    body = plain("list") >> each(plain("a").keep().map(str)) >> plain("b")
    run = given(saga(body)).when_step_gives("list", "[1,2]").ends("completed")
    assert run.begun(RunStep)[-1].input == '["str","str"]'


def test_a_sleep_waits_for_its_time_and_passes_its_input_on() -> None:
    """(11) The due time is an event, so it survives a crash."""
    run = given(saga(plain("a") >> sleep(60) >> plain("b"))).when_it_crashes_after(ev.TimerSet)
    run.ends("completed").then_took(60)
    assert run.begun(RunStep)[-1].input == '"a"'
    assert kinds(run.history).count("TimerSet") == 1


def test_a_step_that_failed_gives_its_place_the_failure_it_had() -> None:
    """(4) failed: the action raised."""
    run = given(saga(plain("a"))).when_step_fails("a").ends("compensated")
    assert run.drive.state.failure == BROKEN
