"""Pictures of a flow: which mark a place carries, which attempt is shown, which arrows are drawn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator import Completed, Saga, WorkflowContext, pure, step
from orchestrator.domain import events as ev
from orchestrator.domain.drawing import (
    DONE,
    DOUBT,
    FAILED,
    RUNNING,
    UNDONE,
    WAITING,
    mermaid,
    outline,
)
from orchestrator.domain.events import Event, Json, Status
from orchestrator.domain.state import fold
from tests.spec import BROKEN, SAGA_ID, UNKNOWN, begin

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.errors.DefinitionWarning")

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@step
async def hold(order: int, ctx: WorkflowContext) -> int:
    return order


@hold.compensation
async def release(done: Completed[int, int], ctx: WorkflowContext) -> None:
    """Nothing was held."""


@step
async def ship(order: int, ctx: WorkflowContext) -> int:
    return order


line = Saga("line", version=1, body=hold >> ship)
HOLD = "line/0"


def marks(*history: Event) -> dict[str, str]:
    state = fold(SAGA_ID, [begin(line), *history])
    return {each.label: each.mark for each in outline(line, state) if each.mark}


def test_an_outline_without_a_state_is_the_tree_with_nothing_begun() -> None:
    assert [(each.depth, each.label, each.path, each.mark) for each in outline(line)] == [
        (0, "one after the other", "line", ""),
        (1, "hold", "line/0", WAITING),
        (1, "ship", "line/1", WAITING),
    ]


@pytest.mark.parametrize(
    ("history", "mark"),
    [
        ([], WAITING),
        ([ev.StepStarted(HOLD, "hold", 1)], RUNNING),
        ([ev.StepSucceeded(HOLD, "hold", 1, Json("1"))], DONE),
        ([ev.StepFailed(HOLD, "hold", 1, BROKEN)], FAILED),
        ([ev.StepInDoubt(HOLD, "hold", 1, UNKNOWN)], DOUBT),
        (
            [
                ev.StepSucceeded(HOLD, "hold", 1, Json("1")),
                ev.CompensationStarted("broken", BROKEN),
                ev.StepCompensated(HOLD, "hold", 1),
            ],
            UNDONE,
        ),
    ],
    ids=["not begun", "running", "done", "failed", "in doubt", "undone"],
)
def test_a_leaf_carries_the_mark_of_how_far_it_has_come(history: list[Event], mark: str) -> None:
    assert marks(*history) == {"hold": mark, "ship": WAITING}


def test_a_step_that_is_to_run_again_is_running_going_forward_and_failed_going_back() -> None:
    again = Saga("again", version=1, body=hold.retry(3))
    leaf = "again/0"
    state = fold(
        SAGA_ID,
        [
            begin(again),
            ev.StepFailed(leaf, "hold", 1, BROKEN),
            ev.RetryScheduled("again", leaf, 2, NOW),
        ],
    )
    assert outline(again, state)[-1].mark == RUNNING
    state.status = Status.COMPENSATED
    assert outline(again, state)[-1].mark == FAILED


def test_of_a_scope_that_runs_again_the_attempt_that_began_last_is_shown() -> None:
    scope = Saga("scope", version=1, body=(hold >> ship).retry(3))
    history: list[Event] = [
        begin(scope),
        ev.StepSucceeded("scope/0/0", "hold", 1, Json("1")),
        ev.StepFailed("scope/0/1", "ship", 1, BROKEN),
        ev.RetryScheduled("scope", "scope/0@2", 2, NOW),
    ]
    assert [each.mark for each in outline(scope, fold(SAGA_ID, history))][2:] == [DONE, FAILED]
    history.append(ev.StepSucceeded("scope/0@2/0", "hold", 1, Json("1")))
    shown = outline(scope, fold(SAGA_ID, history))[2:]
    assert [(each.path, each.mark) for each in shown] == [
        ("scope/0@2/0", DONE),
        ("scope/0@2/1", WAITING),
    ]


def test_a_graph_goes_from_the_start_through_every_branch_to_the_end() -> None:
    def total(parts: tuple[int, int]) -> int:
        return sum(parts)

    saga = Saga("fork", version=1, body=hold >> (ship.named("by_air") | ship) >> pure(total))
    assert mermaid(saga).splitlines() == [
        "flowchart LR",
        '    n1["hold"]',
        '    n2{"all"}',
        '    n3["by_air"]',
        "    n2 --> n3",
        '    n4["ship"]',
        "    n2 --> n4",
        "    n1 --> n2",
        '    n5["pure total"]',
        "    n3 --> n5",
        "    n4 --> n5",
        '    start(("fork")) --> n1',
        "    done((end))",
        "    n5 --> done",
    ]


def test_a_graph_with_a_state_carries_marks_and_one_without_carries_none() -> None:
    history = [begin(line), ev.StepSucceeded(HOLD, "hold", 1, Json("1"))]
    drawn = mermaid(line, fold(SAGA_ID, history))
    assert f'["{DONE} hold"]' in drawn
    assert f'["{WAITING} ship"]' in drawn
    assert '["hold"]' in mermaid(line)


def test_a_scope_is_an_arrow_to_where_it_begins() -> None:
    saga = Saga("scope", version=1, body=(hold >> ship).retry(2))
    assert '    n1 -. "retry up to 2 times" .-> n1' in mermaid(saga).splitlines()
