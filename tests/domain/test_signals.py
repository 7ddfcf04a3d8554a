"""Signals: before the wait, after it, in order, to the wait that began first."""

from __future__ import annotations

from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.branching import each, loop
from orchestrator.domain.commands import RunStep
from orchestrator.domain.events import Status
from orchestrator.domain.waiting import Signal
from orchestrator.domain.wrappers import Retry
from tests.parts import kept, plain, saga
from tests.spec import DECLINED, given, kinds

GO = Signal("go", int)


def test_a_signal_gives_its_payload_to_the_wait() -> None:
    """(15) The payload is the output."""
    run = given(saga(GO.wait() >> plain("a"))).when_signalled("go", "7", after=5).ends("completed")
    assert run.begun(RunStep)[0].input == "7"


def test_signals_may_arrive_before_the_wait() -> None:
    """(15) Signals may arrive before the wait."""
    run = given(saga(plain("a") >> GO.wait())).when_step_takes("a", 9)
    run.when_signalled("go", "7", after=5).ends("completed").then_took(9)
    assert run.result() == "7"


def test_signals_of_one_name_are_taken_first_in_first_out() -> None:
    """(15) First in, first out per name."""
    body = plain("a") >> GO.wait() >> GO.wait().keep() >> plain("b")
    run = given(saga(body)).when_step_takes("a", 9)
    run.when_signalled("go", "1", after=1).when_signalled("go", "2", after=2).ends("completed")
    assert run.begun(RunStep)[1].input == "[1,2]"


def test_each_name_has_its_own_queue() -> None:
    """(15) per name."""
    run = given(saga(Signal("stop", int).wait() | GO.wait()))
    run.when_signalled("go", "1", after=1).when_signalled("stop", "2", after=2).ends("completed")
    assert run.result() == "[2,1]"


def test_the_wait_that_was_recorded_first_gets_the_first_signal() -> None:
    """(Two waits for one signal name) The wait that was recorded first gets the first signal."""
    body = (plain("slow") >> GO.wait()) | GO.wait()
    run = given(saga(body)).when_step_takes("slow", 5)
    run.when_signalled("go", "1", after=10).when_signalled("go", "2", after=11).ends("completed")
    assert run.result() == "[2,1]"


def test_many_waits_share_a_queue_in_the_order_of_their_items() -> None:
    """(Two waits for one signal name) In a list as in branches."""
    run = given(saga(plain("list") >> each(GO.wait()))).when_step_gives("list", "[0,0,0]")
    for number in (7, 8, 9):
        run.when_signalled("go", str(number), after=number)
    assert run.ends("completed").result() == "[7,8,9]"


def test_a_wait_takes_one_signal_and_the_next_iteration_the_next() -> None:
    """(15) Each counts once."""
    body = loop(GO.wait(), until=lambda n: n == 3, max_iterations=9)
    run = given(saga(body))
    for number in (1, 2, 3, 4):
        run.when_signalled("go", str(number), after=number)
    assert run.ends("completed").result() == "3"


def test_a_wait_that_takes_too_long_fails_with_a_time_out() -> None:
    """(15) Fails after *within* (TimeoutError)."""
    run = given(saga(kept("a") >> GO.wait(within=60))).then_undoes("a").then_took(60)
    run.ends("compensated", because="TimeoutError: no signal 'go' within 60 s")


def test_a_signal_that_comes_after_the_time_out_is_kept_for_the_next_wait() -> None:
    """(15) A wait that ended takes nothing any more."""
    body = Retry(GO.wait(within=60), 1, initial=10, jitter=False)
    run = given(saga(body)).when_signalled("go", "7", after=65).ends("completed").then_took(70)
    assert run.result() == "7"


def test_how_long_a_wait_takes_survives_a_crash() -> None:
    """(11) The due time is an event, so it survives a crash."""
    run = given(saga(GO.wait(within=60))).when_it_crashes_after(ev.WaitStarted)
    run.ends("compensated").then_took(60)
    assert kinds(run.history).count("WaitStarted") == 1


def test_a_payload_that_is_not_what_is_waited_for_is_rejected_and_recorded() -> None:
    """(15) It does not count: the wait goes on."""
    run = given(saga(GO.wait())).when_signalled("go", '"seven"', after=1)
    run.when_signalled("go", "7", after=2).ends("completed")
    [rejected] = run.all(ev.SignalRejected)
    assert "int" in rejected.problem
    assert run.result() == "7"


def test_a_signal_while_it_goes_back_changes_nothing() -> None:
    """(15) It is recorded, and nobody waits for it."""
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=3)
    run.when_signalled("go", "7", after=1).then_undoes("a").ends("compensated")
    assert len(run.all(ev.SignalReceived)) == 1


def test_a_signal_to_what_is_stuck_is_kept_for_later() -> None:
    """(15) Signals may arrive before the wait, whatever else is going on."""
    body = plain("a").pivot() >> plain("b") >> GO.wait()
    run = given(saga(body)).when_step_fails("b", failure=DECLINED, times=1).ends("stuck")
    run.repaired("signal", name="go", data="7").ends("stuck")
    run.repaired("retry").ends("completed")
    assert run.result() == "7"


def test_a_cancelled_wait_takes_no_signal() -> None:
    """(Cancel) Nothing waits any more."""
    body = kept("a") >> (GO.wait() | kept("slow"))
    run = given(saga(body)).when_step_takes("slow", 9).when_cancelled_after(5)
    run.when_signalled("go", "7", after=6).then_undoes("slow", "a").ends("compensated")
    assert run.drive.state.mailbox == {"go": ["7"]}


def test_an_instance_remembers_which_messages_it_has_heard() -> None:
    """(15) Nothing is heard twice."""
    run = given(saga(GO.wait() >> GO.wait())).when_signalled("go", "1", after=1)
    run.when_signalled("go", "2", after=2).ends("completed")
    assert run.drive.state.inbox_seen == 2


def test_an_ended_instance_hears_nothing() -> None:
    """(Two waits) A signal to an ended saga is refused as too late."""
    run = given(saga(plain("a"))).when_signalled("go", "1", after=60).ends("completed")
    assert run.drive.state.status is Status.COMPLETED
    assert run.all(ev.SignalReceived) == []


def test_a_wait_of_any_type_takes_any_payload() -> None:
    """(15) The payload is JSON."""
    run = given(saga(Signal("any", Any).wait())).when_signalled("any", '{"a":[1]}', after=1)
    assert run.ends("completed").result() == '{"a":[1]}'
