"""What an instance waits for: each wait by its kind, its name, and its times; nothing that is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.awaiting import Awaited, Want, awaited
from orchestrator.domain.branching import loop
from orchestrator.domain.saga import Saga
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Scope, Timeout
from tests.parts import kept, plain, probed, saga
from tests.spec import DECLINED, START, UNKNOWN, Drive, Given, given

GO = Signal("go", Any)


def looked(run: Drive) -> list[Awaited]:
    """What it waits for now; each event was recorded as many seconds after the start as it is old."""
    history = [(START + timedelta(seconds=n), event) for n, event in enumerate(run.history)]
    return list(awaited(run.state, history, run.now))


def waiting(case: Given, *wants: Want) -> list[Awaited]:
    """What it waits for as soon as it waits for something of these kinds, at least."""
    run = case.run.run_until(lambda: {*wants} <= {one.want for one in looked(case.run)})
    assert not run.over, run.history
    return looked(run)


def number(run: Drive, kind: str) -> int:
    """At which place of the history the last event of a type stands."""
    return max(n for n, event in enumerate(run.history) if type(event).__name__ == kind)


def at(seconds: float) -> Any:
    return START + timedelta(seconds=seconds)


def test_a_signal_is_waited_for_by_its_name() -> None:
    case = given(saga(plain("a") >> GO.wait()))
    [one] = waiting(case, Want.SIGNAL)
    assert (one.name, one.until) == ("go", None)
    assert one.since == at(number(case.run, "WaitStarted"))


def test_a_signal_with_a_limit_is_waited_for_until_then() -> None:
    [one] = waiting(given(saga(GO.wait(within=60))), Want.SIGNAL)
    assert one.until == at(60)


def test_a_sleep_is_a_timer() -> None:
    [one] = waiting(given(saga(sleep(60))), Want.TIMER)
    assert (one.name, one.until) == ("", at(60))


def test_a_retry_names_the_step_and_the_attempt_to_come() -> None:
    case = given(saga(plain("a").retry(3, initial=5))).when_step_fails("a", times=1)
    [one] = waiting(case, Want.RETRY)
    assert (one.name, one.attempt, one.since) == ("a", 2, at(number(case.run, "RetryScheduled")))
    assert one.until is not None


def test_a_scope_that_is_tried_again_is_named_by_its_place() -> None:
    body = Scope(kept("a") >> plain("b")).retry(3, initial=5)
    [one] = waiting(given(saga(body)).when_step_fails("b", times=1), Want.RETRY)
    assert one.name == f"{one.path}/0@2"


def test_a_hold_names_the_guard() -> None:
    case = given(saga(plain("a"))).when_step_is_held("a", by="circuit bank", until=30)
    [one] = waiting(case, Want.HOLD)
    assert (one.name, one.by, one.until) == ("a", "circuit bank", at(30))


def test_a_loop_pauses() -> None:
    body = loop(plain("a"), until=lambda _: False, max_iterations=2, pause=60)
    [one] = waiting(given(saga(body)), Want.PAUSE)
    assert one.until == at(60)


def test_an_undo_that_failed_is_waited_for_on_the_way_back() -> None:
    case = given(saga(kept("a") >> plain("b"))).when_step_fails("b", failure=DECLINED)
    [one] = waiting(case.when_undo_fails("a", times=1), Want.UNDO_RETRY)
    assert (one.name, one.attempt) == ("a", 2)
    assert one.until is not None


def test_an_undo_within_a_scope_is_waited_for_on_the_way_forward() -> None:
    body = Scope(kept("a") >> plain("b")).fallback(plain("c"))
    case = given(saga(body)).when_step_fails("b", failure=DECLINED).when_undo_fails("a", times=1)
    [one] = waiting(case, Want.UNDO_RETRY)
    assert one.name == "a"


def test_a_probe_that_failed_is_asked_again() -> None:
    case = given(saga(probed("a"))).when_step_is_in_doubt("a")
    [one] = waiting(case.when_probe_answers("a", UNKNOWN, "unknown"), Want.PROBE)
    assert one.name == "a"
    assert one.until is not None


def test_a_child_is_waited_for_until_it_has_ended() -> None:
    body = Saga("kid", 1, plain("k")).child() >> plain("a")
    case = given(saga(body)).when_child_ends("kid", "completed", takes=60)
    [one] = waiting(case, Want.CHILD)
    assert [one.name] == list(case.run.state.children)
    case.run.run()
    assert not looked(case.run)


def test_a_child_that_is_taken_back_is_waited_for_on_the_way_back() -> None:
    body = Saga("kid", 1, plain("k")).child() >> plain("a")
    case = given(saga(body)).when_step_fails("a", failure=DECLINED)
    case.when_child_ends("kid", "completed").when_child_ends("kid", "compensated", takes=60)
    [one] = waiting(case, Want.CHILD_UNDO)
    assert [one.name] == list(case.run.state.children)


def test_a_step_that_was_announced_runs() -> None:
    case = given(saga(plain("a") >> plain("b"))).when_step_takes("a", 60)
    case.run.work()
    case.run.note(ev.StepStarted("s/0", "a", 1))
    [one] = looked(case.run)
    assert one.want is Want.STEP
    assert (one.name, one.attempt) == ("a", 1)


def test_a_time_out_and_a_deadline_come_after_what_they_end() -> None:
    body = Timeout(plain("a") >> GO.wait(), 60)
    case = given(Saga("bounded", 1, body, deadline=600))
    found = waiting(case, Want.SIGNAL, Want.TIMEOUT)
    assert [one.want for one in found] == [Want.SIGNAL, Want.TIMEOUT, Want.DEADLINE]
    assert [one.until for one in found] == [None, at(60), at(600)]


def test_branches_wait_side_by_side() -> None:
    found = waiting(given(saga(sleep(60) | GO.wait())), Want.TIMER, Want.SIGNAL)
    assert {one.want for one in found} == {Want.TIMER, Want.SIGNAL}


@pytest.mark.parametrize("body", [sleep(60), GO.wait(), plain("a") >> sleep(60)], ids=repr)
def test_what_was_cancelled_waits_for_nothing_of_the_way_forward(body: Any) -> None:
    case = given(saga(body))
    case.run.run_until(lambda: bool(looked(case.run)))
    case.run.cancel()
    assert not looked(case.run)


def test_what_waits_until_a_time_that_is_past_waits_for_a_worker_only() -> None:
    case = given(saga(sleep(60)))
    waiting(case, Want.TIMER)
    case.run.now += timedelta(seconds=60)
    assert not looked(case.run)


def test_what_is_stuck_or_has_ended_waits_for_nothing_of_its_own() -> None:
    stuck = given(saga(kept("a") >> plain("b"))).when_step_fails("b", failure=DECLINED)
    stuck.when_undo_fails("a", failure=DECLINED).ends("stuck")
    done = given(saga(plain("a"))).ends("completed")
    assert not looked(stuck.run)
    assert not looked(done.run)
