"""The commands for a person who is needed: what the owner answers is told, done or refused."""

from __future__ import annotations

import json

from orchestrator import Saga, Signal
from orchestrator.domain.events import WaitEnded
from orchestrator.faces.cli import render
from orchestrator.testing import Simulator
from tests.faces.cli.prompt import Prompt, Running, order, status_of


def started(saga: Prompt, name: str, text: str) -> str:
    found: str = saga("start", name, "--input", text, "--json").json["id"]
    return found


def test_a_signal_is_validated_taken_up_and_counts_once(saga: Prompt, working: Running) -> None:
    one = started(saga, "asking", "5")
    wrong = saga("signal", one, "verdict", '{"approved": "perhaps"}', "--json")
    assert wrong.code == 2
    assert "approved" in json.dumps(wrong.error)
    unknown = saga("signal", one, "verdikt", "{}", "--json")
    assert unknown.code == 2
    assert "verdict" in unknown.error["message"]
    yes = '{"approved": true}'
    said = saga("signal", one, "verdict", yes, "--dedupe-key", "k", "--actor", "ann", "--json").json
    assert said["signal"].startswith("done, recorded as event")
    assert status_of(saga, one, "completed")
    assert saga("signal", one, "verdict", yes, "--json").code == 4


def test_an_instance_that_waits_names_the_signal_and_its_history_what_came(
    saga: Prompt, working: Running
) -> None:
    one = started(saga, "asking", "5")
    assert status_of(saga, one, "waiting")["waits_for"].startswith("the signal verdict")
    saga("signal", one, "verdict", '{"approved": true}', "--actor", "ann")
    status_of(saga, one, "completed")
    [told] = [line for line in saga("history", one).out.splitlines() if "SignalReceived" in line]
    assert told.endswith('the signal verdict came from ann: {"approved":true}')


async def test_what_was_not_begun_because_of_a_cancel_is_no_failure(sim: Simulator) -> None:
    patient = sim.start(Saga("patient", 1, Signal("verdict", str).wait()), None)
    patient.cancel()
    out = patient.finish()
    assert [e.event.failure.type for e in out.events if isinstance(e.event, WaitEnded)] == [
        "Halted"
    ]
    assert render.last_failure(out.events) == ""


def test_a_step_in_doubt_is_resolved(saga: Prompt, working: Running) -> None:
    one = started(saga, "unlucky", "5")
    status_of(saga, one, "stuck")
    assert saga("resolve", one, "lose", "--json").code == 2
    refused = saga("resolve", one, "lose", "--happened", "--json")
    assert refused.code == 4
    assert "--output" in refused.error["message"]
    said = saga("resolve", one, "lose", "--happened", "--output", "7", "--reason", "rang them up")
    assert said.code == 0, said.err
    assert "recorded as event" in said.out
    assert status_of(saga, one, "compensated")
    [resolved] = [e for e in saga("history", one, "--json").json if e["type"] == "StepResolved"]
    assert resolved["data"]["reason"] == "rang them up"


def test_a_stuck_compensation_is_skipped_with_a_reason(saga: Prompt, working: Running) -> None:
    one = started(saga, "broken-undo", "5")
    status_of(saga, one, "stuck")
    assert saga("skip", one, "--json").code == 2
    assert saga("skip", one, "--reason", " ", "--json").code == 2
    assert saga("skip", one, "nothing", "--reason", "x", "--json").code == 4
    assert saga("skip", one, "--reason", "done by hand", "--json").code == 0
    assert status_of(saga, one, "compensated")


def test_a_stuck_compensation_is_tried_again_on_another_value(
    saga: Prompt, working: Running
) -> None:
    one = started(saga, "broken-undo", "5")
    status_of(saga, one, "stuck")
    assert saga("retry", one, "--output", '"x"', "--json").code == 4
    assert saga("retry", one, "--output", "0", "--reason", "it was free", "--json").code == 0
    assert status_of(saga, one, "compensated")


def test_resuming_leads_back_to_where_it_stood(saga: Prompt, working: Running) -> None:
    one = started(saga, "broken-undo", "5")
    before = status_of(saga, one, "stuck")["events"]
    assert saga("resume", one, "--reason", "try it", "--json").code == 0
    assert status_of(saga, one, "stuck")["events"] > before


def test_terminating_undoes_nothing(saga: Prompt, working: Running) -> None:
    one = started(saga, "patient", order())
    assert saga("terminate", one, "--reason", "settled by hand", "--json").code == 0
    assert status_of(saga, one, "terminated")
    assert saga("terminate", one, "--reason", "again", "--json").code == 4


def test_what_is_not_stuck_needs_no_repair(saga: Prompt, working: Running) -> None:
    one = started(saga, "patient", order())
    for command in (
        ("retry", one), ("skip", one, "--reason", "x"), ("resume", one),
        ("resolve", one, "hold_it", "--not-happened"),
    ):  # fmt: skip
        said = saga(*command, "--json")
        assert said.code == 4, command
        assert "not stuck" in said.error["message"]
    assert saga("resume", "0199", "--json").code == 3


def test_without_a_worker_the_message_waits(saga: Prompt) -> None:
    one = started(saga, "asking", "5")
    said = saga("signal", one, "verdict", '{"approved": true}', "--json").json
    assert "no worker" in said["signal"]
    assert json.loads(saga("show", one, "--json").out)["status"] == "pending"
