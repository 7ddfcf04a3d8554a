"""Sagas with remote steps, recorded by the simulator, and how their participants behave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator import Permanent, Retryable, Saga, Step, WorkflowContext, remote, step
from orchestrator.testing import Simulator

TOPIC = "payments.commands"

refund = remote("payments.refund", input=str, output=type(None), topic=TOPIC, timeout=20)
charge = remote("payments.charge", input=int, output=str, topic=TOPIC, timeout=30, retries=1)
blunt = remote("payments.charge", input=int, output=str, topic=TOPIC, timeout=30)
mute = remote("payments.charge", input=int, output=str, topic=TOPIC, timeout=30, probe=False)


@step
async def ship(payment: str, ctx: WorkflowContext) -> str:
    if ctx.input > 100:
        raise Permanent("too heavy")
    return f"shipped for {payment}"


def _saga(name: str, charge: Step[int, str] = charge) -> Saga[int, str]:
    undone = charge.undo_with(refund, lambda done: done.output, on_doubt=lambda tried: tried.key)
    return Saga(name, 1, undone >> ship)


def _well(sim: Simulator) -> None:
    sim.stub(charge, returns="p-1")


def _busy(sim: Simulator) -> None:
    _well(sim)
    sim.fail(charge, Retryable("busy", after=3))


def _silent(sim: Simulator) -> None:
    _well(sim)
    sim.doubt(charge, times=2)


def _deaf(sim: Simulator) -> None:
    _well(sim)
    sim.doubt(charge, times=2, happened=False)


def _slow_to_refund(sim: Simulator) -> None:
    _well(sim)
    sim.fail_compensation(charge)


FAR: dict[str, tuple[Saga[Any, Any], int, Callable[[Simulator], None]]] = {
    "remote": (_saga("remote"), 5, _well),
    "remote-busy": (_saga("remote-busy"), 5, _busy),
    "remote-probed": (_saga("remote-probed", blunt), 5, _silent),
    "remote-not-happened": (_saga("remote-not-happened"), 5, _deaf),
    "remote-in-doubt": (_saga("remote-in-doubt", mute), 5, _silent),
    "remote-undone": (_saga("remote-undone"), 500, _slow_to_refund),
}
