"""Remote steps: a command goes out as an event, a reply comes back, and what if it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import (
    Attempted,
    Completed,
    DefinitionError,
    Parallel,
    Saga,
    Signal,
    WorkflowContext,
    pure,
    remote,
    sleep,
    step,
)
from orchestrator.domain import events as ev
from orchestrator.domain.awaiting import Awaited, Want, awaited
from orchestrator.domain.commands import (
    Command,
    Compute,
    Requested,
    RunCompensation,
    RunProbe,
    RunStep,
    Succeeded,
)
from orchestrator.domain.events import Event, Json, Status
from orchestrator.domain.evolve import fold
from orchestrator.domain.marks import RUNNING, mark_of, words_of
from orchestrator.runtime.remote import read_reply, remote_of, request
from tests.drive import CODEC, NOW, SAGA_ID, START, Answer, Drive, computed

charge = remote("payments.charge", input=int, output=str, topic="payments.commands")
refund = remote("payments.refund", input=str, output=type(None), topic="payments.commands")
other = remote("ledger.refund", input=str, output=type(None), topic="ledger.commands")


def _done(done: Completed[int, str]) -> str:
    return done.output


def _tried(tried: Attempted[int, str]) -> str:
    return tried.output or tried.key


undone = charge.undo_with(refund, _done, on_doubt=_tried)
probed = charge.undo_with(refund, _done)


@step
async def ship(payment: str, ctx: WorkflowContext) -> str:
    raise AssertionError("scripted")


@step
async def hold(n: int, ctx: WorkflowContext) -> int:
    raise AssertionError("scripted")


@hold.compensation
async def let_go(done: Completed[int, int], ctx: WorkflowContext) -> None:
    raise AssertionError("scripted")


Says = dict[str, Any] | None
"""What a participant replies, a second later; None for nothing."""


def yes(output: str = '"p-1"', **more: Any) -> Says:
    return {"answer": "succeeded", "output": output} | more


def no(message: str = "declined", *, permanent: bool = True, **more: Any) -> Says:
    failure = {"type": "Declined", "message": message, "permanent": permanent}
    return {"answer": "failed", "failure": failure} | more


def probe(answer: str, output: str | None = None) -> Says:
    return {"answer": answer, "output": output}


@dataclass(slots=True)
class World:
    """One instance, and participants that reply by a script: by command, or `probe`."""

    saga: Saga[Any, Any]
    script: dict[str, list[Says]] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    sent: list[ev.RemoteRequested] = field(default_factory=list)
    run: Drive = field(init=False)

    def __post_init__(self) -> None:
        self.run = Drive(self.saga, self._play, "5")

    def _play(self, command: Command) -> Answer:
        if not isinstance(command, RunStep | RunCompensation | RunProbe):
            assert isinstance(command, Compute)
            return computed(command), NOW
        if remote_of(command) is None:
            return self.local.get(command.step.name, Succeeded(Json('"local"'))), NOW
        if command.reply is not None:
            return read_reply(CODEC, command, command.reply), NOW
        return self._requested(command), NOW

    def _requested(self, command: RunStep | RunCompensation | RunProbe) -> Requested:
        due = self.run.now + timedelta(seconds=45)
        made = request(command, Json("5"), due, f"{SAGA_ID}/{command.path}")
        name = "probe" if isinstance(command, RunProbe) else remote_of(command).command  # type: ignore[union-attr]  # asked above
        says = self.script[name].pop(0) if self.script.get(name) else None
        if says is not None:
            intent = {RunStep: "do", RunCompensation: "undo", RunProbe: "probe"}[type(command)]
            reply = {"command_id": made.command_id, "intent": intent, "number": made.number}
            self.run.send("reply", **{"after": 1, **reply, **says})
        return made

    def when(self, command: str, *says: Says) -> World:
        self.script.setdefault(command, []).extend(says)
        return self

    def ends(self, status: str) -> World:
        self.run.run()
        assert self.run.state.status == status, (self.run.state.stuck, self.kinds())
        assert fold(SAGA_ID, self.run.history) == self.run.state
        return self

    def all(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.run.history if isinstance(event, kind)]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.run.history]

    def until(self, kind: type[Event]) -> World:
        self.run.run_until(lambda: bool(self.all(kind)))
        return self


def saga_of(body: Any) -> Saga[Any, Any]:
    return Saga("far", 1, body)


# ---------------------------------------------------------------------------- forward


def test_a_remote_step_succeeds_by_its_reply() -> None:
    world = World(saga_of(probed)).when("payments.charge", yes()).ends("completed")
    assert world.kinds() == [
        "SagaStarted", "RemoteRequested", "RemoteReplied", "StepSucceeded", "SagaCompleted",
    ]  # fmt: skip
    [asked] = world.all(ev.RemoteRequested)
    assert (asked.command, asked.topic, asked.intent) == (
        "payments.charge", "payments.commands", "do",
    )  # fmt: skip
    assert asked.command_id == f"{SAGA_ID}/far"
    assert world.run.state.result == '"p-1"'


def test_while_it_waits_for_the_reply_nothing_is_planned() -> None:
    world = World(saga_of(probed)).until(ev.RemoteRequested)
    plan = world.run.plan()
    assert (plan.decisions, plan.commands) == ((), ())
    assert plan.wake_at == world.all(ev.RemoteRequested)[0].due_at


def test_a_refusal_is_a_failure_and_what_came_before_is_undone() -> None:
    world = World(saga_of(hold >> probed)).when("payments.charge", no()).ends("compensated")
    [failed] = world.all(ev.StepFailed)
    assert (failed.failure.type, failed.failure.permanent) == ("Declined", True)
    assert [e.step for e in world.all(ev.StepCompensated)] == ["hold"]


def test_what_may_be_retried_is_sent_again_under_the_same_id() -> None:
    far = remote("payments.charge", input=int, output=str, topic="t", retries=2)
    busy = no("busy", permanent=False)
    world = World(saga_of(far)).when("payments.charge", busy, busy, yes()).ends("completed")
    asked = world.all(ev.RemoteRequested)
    assert {one.command_id for one in asked} == {f"{SAGA_ID}/far/0"}
    assert [one.number for one in asked] == [1, 2, 3]
    assert [one.attempt for one in asked] == [1, 2, 3]


@pytest.mark.parametrize("kind", [ev.RemoteRequested, ev.RemoteReplied, ev.StepSucceeded])
def test_a_crash_sends_no_second_command(kind: type[Event]) -> None:
    world = World(saga_of(probed >> ship)).when("payments.charge", yes()).until(kind)
    world.run.crash()
    world.ends("completed")
    assert len(world.all(ev.RemoteRequested)) == 1


def test_a_reply_that_comes_twice_changes_nothing() -> None:
    world = World(saga_of(probed >> Signal("go", int).wait())).when("payments.charge", yes())
    world.until(ev.WaitStarted)
    before = world.kinds()
    world.run.send("reply", command_id=f"{SAGA_ID}/far/0", intent="do", number=1,
                   answer="failed", failure={"type": "X", "message": "late"})  # fmt: skip
    world.run._read_letters()
    assert world.kinds() == before


@pytest.mark.parametrize(
    "change",
    [
        {"command_id": "somebody/else"},
        {"command_id": f"{SAGA_ID}/far/7"},
        {"command_id": f"{SAGA_ID}/far/undo", "intent": "undo"},
        {"intent": "probe"},
        {"number": 0, "answer": "failed"},
    ],
)
def test_a_reply_to_something_else_changes_nothing(change: dict[str, Any]) -> None:
    says = {"answer": "succeeded", "output": '"p-1"', **change}
    world = World(saga_of(undone)).when("payments.charge", says).until(ev.RemoteRequested)
    world.run.turn()
    world.run.turn()
    assert world.kinds() == ["SagaStarted", "RemoteRequested"]


# ---------------------------------------------------------------------------- doubt


def test_without_a_reply_it_is_in_doubt_and_the_participant_is_asked() -> None:
    world = World(saga_of(probed)).when("probe", probe("happened", '"p-9"')).ends("completed")
    assert [e.intent for e in world.all(ev.RemoteRequested)] == ["do", "probe"]
    assert len(world.all(ev.StepInDoubt)) == 1
    assert world.run.state.result == '"p-9"'


def test_what_the_participant_knows_nothing_of_has_failed() -> None:
    world = World(saga_of(hold >> probed)).when("probe", probe("not_happened")).ends("compensated")
    assert [e.step for e in world.all(ev.StepCompensated)] == ["hold"]


def test_a_participant_that_is_still_at_it_is_asked_again() -> None:
    world = World(saga_of(probed)).when("probe", probe("busy"), None, probe("happened", '"p-9"'))
    world.ends("completed")
    assert len(world.all(ev.ProbeRetryScheduled)) == 2


def test_a_participant_that_never_answers_is_undone_in_doubt() -> None:
    world = World(saga_of(hold >> undone)).when("payments.refund", yes("null"))
    world.ends("compensated")
    assert [e.step for e in world.all(ev.StepCompensated)] == ["payments.charge", "hold"]
    undo = world.all(ev.RemoteRequested)[-1]
    assert (undo.command, undo.intent) == ("payments.refund", "undo")
    assert undo.command_id == f"{SAGA_ID}/far/1/undo"
    assert undo.undoes == f"{SAGA_ID}/far/1"


def test_without_any_word_on_doubt_a_person_is_asked_and_it_never_hangs() -> None:
    world = World(saga_of(hold >> probed)).ends("stuck")
    stuck = world.all(ev.SagaStuck)[0]
    assert "nobody knows whether payments.charge happened" in stuck.reason


def test_an_output_of_another_type_leaves_it_in_doubt() -> None:
    world = World(saga_of(undone)).when("payments.charge", yes("[1]"))
    world.when("probe", probe("happened", "[1]")).when("payments.refund", yes("null"))
    world.ends("compensated")
    assert world.all(ev.StepInDoubt)[0].failure.permanent
    assert world.all(ev.ProbeAnswered)[0].answer == "unknown"


def test_what_may_have_happened_elsewhere_too_names_no_command_of_its_own() -> None:
    far = charge.undo_with(other, _done, on_doubt=_tried)
    world = World(saga_of(hold >> far)).when("ledger.refund", yes("null")).ends("compensated")
    assert world.all(ev.RemoteRequested)[-1].undoes == ""


# ---------------------------------------------------------------------------- the way back


def failing_after(step_: Any) -> Saga[Any, Any]:
    return saga_of(hold >> step_ >> pure(_breaks))


def _breaks(given: object) -> str:
    raise ValueError(given)


def test_a_remote_undo_waits_for_its_own_reply() -> None:
    world = World(failing_after(undone)).when("payments.charge", yes())
    world.when("payments.refund", yes("null")).ends("compensated")
    undo = world.all(ev.RemoteRequested)[-1]
    assert (undo.intent, undo.command_id) == ("undo", f"{SAGA_ID}/far/1/undo")
    assert undo.undoes == ""
    assert [e.step for e in world.all(ev.StepCompensated)] == ["payments.charge", "hold"]


def test_an_undo_without_a_reply_is_sent_again_under_the_same_id() -> None:
    world = World(failing_after(undone)).when("payments.charge", yes())
    world.when("payments.refund", None, no("busy", permanent=False), yes("null"))
    world.ends("compensated")
    undos = [e for e in world.all(ev.RemoteRequested) if e.intent == "undo"]
    assert len({e.command_id for e in undos}) == 1
    assert [e.number for e in undos] == [2, 3, 4]
    assert len(world.all(ev.CompensationFailed)) == 2


def test_an_undo_that_is_refused_for_good_needs_a_person() -> None:
    world = World(failing_after(undone)).when("payments.charge", yes())
    world.when("payments.refund", no()).ends("stuck")
    world.when("payments.refund", yes("null"))
    world.run.repair("retry", step="payments.charge")
    world.ends("compensated")


def test_a_crash_while_an_undo_is_out_sends_no_second_one() -> None:
    world = World(failing_after(undone)).when("payments.charge", yes())
    world.when("payments.refund", yes("null"))
    world.run.run_until(lambda: len(world.all(ev.RemoteRequested)) == 2)
    world.run.crash()
    world.ends("compensated")
    assert len(world.all(ev.RemoteRequested)) == 2


# ---------------------------------------------------------------------------- turning round


def test_a_cancel_waits_for_the_reply_and_undoes_what_happened() -> None:
    world = World(saga_of(undone >> ship)).when("payments.charge", yes(after=30))
    world.when("payments.refund", yes("null")).until(ev.RemoteRequested)
    world.run.cancel()
    world.ends("compensated")
    assert [e.step for e in world.all(ev.StepCompensated)] == ["payments.charge"]
    assert world.all(ev.RemoteReplied)[0].answer == "succeeded"


def test_a_branch_that_is_cut_off_leaves_the_command_in_doubt() -> None:
    block = Parallel((undone, sleep(5) >> pure(_breaks)), on_failure="cancel")
    world = World(saga_of(block)).when("payments.refund", yes("null")).ends("compensated")
    assert world.all(ev.StepInDoubt)[0].failure.type == "CancelledError"
    assert [e.step for e in world.all(ev.StepCompensated)] == ["payments.charge"]


def test_an_instance_that_is_stuck_keeps_the_reply_for_later() -> None:
    world = World(saga_of(undone | hold)).until(ev.RemoteRequested)
    world.run.note(ev.SagaStuck("far/1", "hold", "for a test"))
    world.run.send("reply", command_id=f"{SAGA_ID}/far/0", intent="do", number=1,
                   answer="succeeded", output='"p-1"')  # fmt: skip
    world.run._read_letters()
    assert world.kinds()[-1] == "RemoteReplied"
    world.run.send("reply", command_id=f"{SAGA_ID}/far/0", intent="do", number=1,
                   answer="failed")  # fmt: skip
    world.run._read_letters()
    assert world.kinds().count("RemoteReplied") == 1, "the first one counts"
    world.run.repair("resume")
    world.ends("completed")


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: remote("a b", input=int, output=int, topic="t"), "step name 'a b'"),
        (lambda: remote("a", input=int, output=int, topic="t t"), "topic name 't t'"),
        (lambda: remote("a", input=3, output=int, topic="t"), "input is a type"),  # type: ignore[arg-type]  # the mistake
        (lambda: remote("a", input=int, output=int, topic="t", timeout=0), "timeout"),
        (lambda: remote("a", input=int, output=int, topic="t", retries=-1), "retries"),
        (lambda: saga_of(charge.circuit("bank")), "CircuitBreaker stands round the remote step"),
        (lambda: charge.undo_with(refund, lambda: 1), "bind"),  # type: ignore[misc,arg-type]  # the mistake
    ],
)
def test_what_can_never_be_right_is_refused_when_it_is_built(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_the_step_says_that_it_is_remote() -> None:
    assert undone.notes == ("remote, payments.commands", "undo", "undo on doubt", "probe")
    assert charge.named("second").name == "second"
    assert charge.remote is not None
    assert charge.remote.command == "payments.charge"


# ---------------------------------------------------------------------------- what is told of it


def waits(world: World) -> list[Awaited]:
    history = [(START, event) for event in world.run.history]
    return list(awaited(world.run.state, history, world.run.now))


def test_a_reply_is_waited_for_by_its_step_its_command_and_its_time() -> None:
    world = World(saga_of(probed)).until(ev.RemoteRequested)
    [one] = waits(world)
    assert (one.want, one.name) == (Want.REPLY, "payments.charge")
    assert one.by == "payments.charge through payments.commands"
    assert one.until == START + timedelta(seconds=45)


def test_the_reply_to_an_undo_and_to_a_probe_is_waited_for_too() -> None:
    world = World(saga_of(undone))
    world.run.run_until(lambda: len(world.all(ev.RemoteRequested)) == 2)
    [asking] = [one for one in waits(world) if one.want is Want.REPLY]
    assert asking.path == "far"
    world.run.run_until(lambda: world.all(ev.RemoteRequested)[-1].intent == "undo")
    [undoing] = waits(world)
    assert undoing.by == "payments.refund through payments.commands"


def test_a_drawing_shows_that_a_reply_is_waited_for() -> None:
    world = World(saga_of(probed)).until(ev.RemoteRequested)
    known = world.run.state.known("far")
    assert mark_of(known, Status.RUNNING) == RUNNING
    assert words_of(known, Status.RUNNING) == ["waits for a reply"]
