"""Remote steps in the simulator: scripted as any step, their commands and replies in the log."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import Attempted, Permanent, Retryable, Saga, WorkflowContext, remote, step
from orchestrator.testing import Simulator, crash_points
from orchestrator.testing.virtual_time import SimulationError

refund = remote("payments.refund", input=str, output=type(None), topic="payments.commands")
charge = remote(
    "payments.charge", input=int, output=str, topic="payments.commands", timeout=30
).undo_with(refund, lambda done: done.output, on_doubt=lambda tried: tried.key)


@step
async def hold(cents: int, ctx: WorkflowContext) -> int:
    return cents


@hold.compensation_on_doubt
async def let_go(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
    pass


@step
async def ship(payment: str, ctx: WorkflowContext) -> str:
    if payment == "p-bad":
        raise Permanent("not shipped")
    return f"shipped for {payment}"


saga = Saga("shop", 1, hold >> charge >> ship)


def simulator(payment: str = "p-1") -> Simulator:
    sim = Simulator()
    sim.stub(charge, returns=payment)
    return sim


def test_a_stubbed_remote_step_is_asked_and_replies() -> None:
    sim = simulator()
    out = sim.run_sync(saga, 5)
    assert (out.status, out.value) == ("completed", "shipped for p-1")
    assert [e.type for e in out.events if "Remote" in e.type] == [
        "RemoteRequested", "RemoteReplied",
    ]  # fmt: skip
    assert sim.effects(charge) == 1


def test_a_remote_undo_is_asked_for_too() -> None:
    sim = simulator("p-bad")
    out = sim.run_sync(saga, 5)
    assert out.status == "compensated"
    assert list(out.compensated) == ["payments.charge", "hold"]
    assert sim.effects(charge, "undo") == 1


def test_a_refusal_and_a_busy_participant_are_scripted_as_for_any_step() -> None:
    sim = simulator()
    sim.fail(charge, Retryable("busy"), times=1)
    assert sim.run_sync(saga, 5).status == "compensated"
    again = simulator()
    again.fail(charge, Retryable("busy"), times=2)
    patient = Saga("patient", 1, hold >> charge.retry(3) >> ship)
    assert again.run_sync(patient, 5).status == "completed"
    assert {call.key for call in again.calls(charge)} == {again.calls(charge)[0].key}


@pytest.mark.parametrize("happened", [True, False])
def test_a_lost_reply_is_found_out_by_asking(happened: bool) -> None:
    sim = simulator()
    sim.doubt(charge, happened=happened)
    out = sim.run_sync(saga, 5)
    assert out.status == ("completed" if happened else "compensated")
    assert sim.elapsed >= timedelta(seconds=30)
    assert len(sim.calls(charge, "probe")) == 1


def test_an_undo_that_fails_is_asked_for_again() -> None:
    sim = simulator("p-bad")
    sim.fail_compensation(charge, times=2)
    assert sim.run_sync(saga, 5).status == "compensated"
    assert len(sim.calls(charge, "undo")) == 3


def test_a_process_that_dies_while_a_reply_is_on_its_way_gets_it_in_its_next_life() -> None:
    sim = simulator()
    sim.when(charge, sim.crash)
    out = sim.run_sync(saga, 5)
    assert out.status == "completed"
    assert [e.type for e in out.events].count("RemoteRequested") == 1


def test_a_saga_with_a_remote_step_comes_out_whole_wherever_its_process_dies() -> None:
    for payment in ("p-1", "p-bad"):
        report = crash_points(saga, 5, stubs={charge: payment})
        assert report.points > 10
        assert report.troubles > 0


def test_what_is_not_stubbed_says_what_to_do() -> None:
    with pytest.raises(SimulationError, match="participant is not here"):
        Simulator().run_sync(saga, 5)
    assert Simulator(auto=True).run_sync(saga, 5).status == "completed"
