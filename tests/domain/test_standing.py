"""One event at a time tells the same status as the fold of the whole history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.adapters.codec import JsonCodec
from orchestrator.domain import events as ev
from orchestrator.domain.events import EVENT_TYPES, Event, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.standing import MOVES, REPAIRS, TURNS, standing
from orchestrator.domain.state import SagaState
from orchestrator.domain.transitions import TRANSITIONS
from orchestrator.ports import EventRow
from tests.feed_events import NOON

RECORDED = sorted((Path(__file__).parents[1] / "histories").glob("*.json"))
FAILURE = ev.Failure("Boom", "it broke")


def history(path: Path) -> list[Event]:
    codec = JsonCodec()
    return [
        codec.decode_event(
            EventRow("x", n, row["type"], row["node"], row["attempt"], 1, row["data"], "{}", NOON, b"")
        )
        for n, row in enumerate(json.loads(path.read_text())["events"], start=1)
    ]  # fmt: skip


def check(events: list[Event]) -> SagaState:
    state, turn, seen = SagaState("x"), None, Status.PENDING
    for event in events:
        evolve(state, event)
        told = standing(type(event), turn)
        seen = told or seen
        assert seen is state.status, f"after {type(event).__name__}"
        if isinstance(event, TURNS):
            turn = type(event)
    return state


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_history_stands_where_its_fold_says(path: Path) -> None:
    check(history(path))


START = ev.SagaStarted("s", 1, "f", NOON, ev.Json("1"))
STUCK = ev.SagaStuck("s/0", "a", "why")
RESUMED = ev.SagaResumed("ann", "mended", 1)


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([STUCK], Status.STUCK),
        ([STUCK, RESUMED], Status.PENDING),
        ([STUCK, RESUMED, START], Status.RUNNING),
        ([START, STUCK, STUCK, RESUMED], Status.RUNNING),
        ([START, ev.CompensationStarted("no", FAILURE), STUCK, RESUMED], Status.COMPENSATING),
        (
            [START, STUCK, RESUMED, ev.CompensationStarted("no"), STUCK, RESUMED],
            Status.COMPENSATING,
        ),
        (
            [START, ev.SagaCompleted(ev.Json("1")), ev.UndoRequested("p", "no", 1), STUCK, RESUMED],
            Status.COMPENSATING,
        ),
        ([START, STUCK, ev.SagaTerminated("ann", "no", 1)], Status.TERMINATED),
    ],
)
def test_a_repair_leads_back_to_where_the_last_turn_had_led(
    events: list[Event], status: Status
) -> None:
    assert check(events).status is status


def test_an_event_that_moves_leads_to_one_status_unless_it_is_a_repair() -> None:
    for kind in MOVES - set(REPAIRS):
        assert len({moves[kind] for moves in TRANSITIONS.values() if kind in moves}) == 1, kind
    for kind in set(EVENT_TYPES.values()) - MOVES:
        assert all(moves.get(kind, status) is status for status, moves in TRANSITIONS.items()), kind
