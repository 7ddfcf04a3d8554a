"""Histories that were recorded once are read, folded and gone on with by every later version."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.codec import JsonCodec
from orchestrator.domain import events as ev
from orchestrator.domain.commands import (
    CancelChild,
    Compute,
    ResumeFlow,
    RunCompensation,
    RunProbe,
    RunStep,
    StartChild,
    UndoChild,
    WatchChild,
)
from orchestrator.domain.decider import decide, frontier
from orchestrator.domain.events import Event, Status
from orchestrator.domain.evolve import evolve, fold
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState
from orchestrator.ports import EventRow
from orchestrator.runtime.flows import LiveFlow
from sagas import SAGAS as READY
from tests.histories.far import FAR
from tests.histories.flows import sagas
from tests.histories.ready import RUNS, SIMULATED

HERE = Path(__file__).parent
RECORDED = sorted(HERE.glob("*.json"))
SAGAS = sagas() | {name: saga for name, (saga, _) in RUNS.items()} | SIMULATED
SAGAS |= {name: saga for name, (saga, _, _) in FAR.items()}
CODEC = JsonCodec()

OUTCOMES: dict[type[Any], tuple[type[Event], ...]] = {
    RunStep: (
        ev.StepSucceeded, ev.StepFailed, ev.StepInDoubt, ev.StepHeld, ev.CacheHit, ev.StepStarted,
        ev.RemoteRequested,
    ),
    RunCompensation: (ev.StepCompensated, ev.CompensationFailed, ev.RemoteRequested),
    RunProbe: (ev.ProbeAnswered, ev.RemoteRequested),
    Compute: (
        ev.ValueComputed, ev.ComputationFailed, ev.RouteChosen, ev.ConditionEvaluated,
        ev.InputBound, ev.ChildRequested,
    ),
    ResumeFlow: (ev.FlowRequested, ev.FlowReturned, ev.FlowFailed),
    StartChild: (ev.ChildStarted, ev.ChildEnded),
    CancelChild: (ev.ChildCancelRequested,),
    UndoChild: (ev.ChildUndoRequested,),
    WatchChild: (ev.ChildEnded, ev.StepCompensated, ev.CompensationFailed),
}  # fmt: skip

FROM_OUTSIDE = (ev.SagaStarted, ev.SignalReceived, ev.RemoteReplied)


def history(path: Path) -> tuple[dict[str, Any], list[tuple[Event, datetime]]]:
    found = json.loads(path.read_text())
    events: list[tuple[Event, datetime]] = []
    for version, row in enumerate(found["events"], start=1):
        at = datetime.fromisoformat(row["recorded_at"])
        stored = EventRow(
            row["saga_id"], version, row["type"], row["node"], row["attempt"], 1, row["data"],
            "{}", at, b"",
        )  # fmt: skip
        events.append((CODEC.decode_event(stored), at))
    return found, events


def test_every_primitive_and_every_ready_saga_has_a_recorded_history() -> None:
    assert {path.stem for path in RECORDED} == set(SAGAS)
    assert {saga.name for saga in READY} <= {saga.name for saga in SAGAS.values()}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_it_is_written_again_as_it_was(path: Path) -> None:
    found, events = history(path)
    for row, (event, _) in zip(found["events"], events, strict=True):
        type_, node, attempt, data = CODEC.encode_event(event)
        assert (type_, node, attempt, data) == (
            row["type"], row["node"], row["attempt"], row["data"],
        )  # fmt: skip


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_it_folds_to_where_it_ended(path: Path) -> None:
    found, events = history(path)
    state = fold("x", [event for event, _ in events])
    assert state.status == Status(found["status"])


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_present_rules_would_go_the_same_way(path: Path) -> None:
    found, events = history(path)
    saga = SAGAS[path.stem]
    state = SagaState(found["events"][0]["saga_id"])
    flows: dict[str, LiveFlow] = {}
    for event, at in events:
        if not isinstance(event, FROM_OUTSIDE):
            assert _kind(event) in _possible(saga, state, at, flows), event
        evolve(state, event)
    assert state.fingerprint == saga.fingerprint


def _kind(event: Event) -> tuple[type[Event], str]:
    return type(event), getattr(event, "node", "")


def _possible(
    saga: Saga[Any, Any], state: SagaState, at: datetime, flows: dict[str, LiveFlow]
) -> set[tuple[type[Event], str]]:
    """What may follow: the decisions of the plan, and the outcomes of its commands."""
    while True:
        nodes = {path: flow.nodes for path, flow in flows.items()}
        next_ = frontier(saga, state, at, nodes)
        replayed = [
            command
            for command in next_.commands
            if isinstance(command, ResumeFlow)
            and flows.setdefault(command.path, LiveFlow(CODEC)).resume(command) is None
        ]
        if not replayed:
            break
    possible = {_kind(event) for event in next_.decisions}
    for command in next_.commands:
        possible |= {(kind, command.path) for kind in OUTCOMES[type(command)]}
    return possible


def test_what_decides_is_what_is_recorded_here() -> None:
    # A command whose outcome is not listed above would never be compared with the record.
    assert set(OUTCOMES) == set(decide.__globals__["_DECIDE"])
