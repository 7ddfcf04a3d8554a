"""What an action is told about the run it belongs to."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.steps import step


class Bank:
    pass


@step
async def pay(value: int, ctx: WorkflowContext) -> str:
    return "p"


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        WorkflowContext().attempt = 3  # type: ignore[misc]  # what the test is about


def test_unknown_fields_are_errors() -> None:
    unknown: dict[str, Any] = {"corelation_id": "x"}
    with pytest.raises(TypeError, match="corelation_id"):
        WorkflowContext(**unknown)


def test_the_workflow_is_the_saga_by_its_other_name() -> None:
    assert WorkflowContext(saga_id="s1").workflow_id == "s1"


def test_two_contexts_of_the_same_run_are_equal_whatever_surrounds_them() -> None:
    lent = Surroundings(resources={Bank: Bank()})
    assert WorkflowContext(saga_id="a", surroundings=lent) == WorkflowContext(saga_id="a")


def test_a_resource_is_found_by_its_type() -> None:
    bank = Bank()
    ctx = WorkflowContext(surroundings=Surroundings(resources={Bank: bank}))
    assert ctx.use(Bank) is bank


def test_a_missing_resource_is_named_together_with_what_there_is() -> None:
    ctx = WorkflowContext(surroundings=Surroundings(resources={Bank: Bank()}))
    with pytest.raises(LookupError, match=r"no resource of type int \(it has: Bank\)"):
        ctx.use(int)
    with pytest.raises(LookupError, match="it has: none"):
        WorkflowContext().use(Bank)


def test_input_output_time_and_heartbeat_come_from_the_surroundings() -> None:
    beats: list[int] = []
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    lent = Surroundings(
        now=lambda: noon,
        read_input=lambda: 7,
        read_output=lambda step: f"output of {step.name}",
        heartbeat=lambda: beats.append(1),
    )
    ctx = WorkflowContext(surroundings=lent)
    ctx.heartbeat()
    assert (ctx.now(), ctx.input, ctx.output(pay)) == (noon, 7, "output of pay")
    assert beats == [1]


def test_outside_a_run_it_stands_alone() -> None:
    ctx = WorkflowContext()
    ctx.heartbeat()
    assert ctx.input is None
    assert ctx.now().tzinfo is UTC
