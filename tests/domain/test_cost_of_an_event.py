"""What an event costs does not grow with the number of items: counted in instructions, not timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from orchestrator.domain.branching import each
from orchestrator.domain.commands import (
    ChildOver,
    Command,
    Compute,
    Failed,
    RunStep,
    StartChild,
    Succeeded,
)
from orchestrator.domain.definition import Primitive
from orchestrator.domain.events import Json, Status
from orchestrator.domain.evolve import fold
from orchestrator.domain.saga import Saga
from tests.drive import NOW, SAGA_ID, Answer, Drive, computed
from tests.parts import kept, plain, saga
from tests.spec import DECLINED

FEW, MANY = 100, 400
ALLOWED = 1.2


def one_at_a_time() -> Primitive[Any, Any]:
    return each(kept("item"), concurrency=1)


def five_at_once() -> Primitive[Any, Any]:
    return each(kept("item"), concurrency=5)


def items_of_two() -> Primitive[Any, Any]:
    return each(plain("a") >> kept("b"), concurrency=5)


def all_undone() -> Primitive[Any, Any]:
    return each(kept("item"), concurrency=5) >> plain("no")


def undone_where_only_some_have_an_undo() -> Primitive[Any, Any]:
    return each(plain("a") >> kept("b"), concurrency=5) >> plain("no")


def children() -> Primitive[Any, Any]:
    return each(Saga("child", 1, plain("a")).child(), concurrency=5)


BODIES = [
    one_at_a_time,
    children,
    five_at_once,
    items_of_two,
    all_undone,
    undone_where_only_some_have_an_undo,
]


@pytest.mark.parametrize("body", BODIES)
def test_an_item_costs_as_much_among_many_as_among_few(
    body: Callable[[], Primitive[Any, Any]],
) -> None:
    assert _per_event(body, MANY) <= _per_event(body, FEW) * ALLOWED


@pytest.mark.parametrize("body", BODIES)
def test_folding_an_event_costs_as_much_in_a_long_history_as_in_a_short_one(
    body: Callable[[], Primitive[Any, Any]],
) -> None:
    few, many = (_run(body, size).history for size in (FEW, MANY))
    cost_of_few = _instructions(lambda: fold(SAGA_ID, few)) / len(few)
    assert _instructions(lambda: fold(SAGA_ID, many)) / len(many) <= cost_of_few * ALLOWED


def _per_event(body: Callable[[], Primitive[Any, Any]], size: int) -> float:
    """What planning, deciding and folding take for each event of a whole run."""
    drive = _drive(body, size)
    return _instructions(drive.run) / len(drive.history)


def _run(body: Callable[[], Primitive[Any, Any]], size: int) -> Drive:
    return _drive(body, size).run()


def _drive(body: Callable[[], Primitive[Any, Any]], size: int) -> Drive:
    return Drive(saga(body()), _play, json.dumps(list(range(size))))


def _play(command: Command) -> Answer:
    match command:
        case Compute():
            return computed(command), NOW
        case RunStep(step=step) if step.name == "no":
            return Failed(DECLINED), NOW
        case StartChild():
            return ChildOver(Status.COMPLETED, Json("1")), NOW
        case _:
            return Succeeded(Json("1")), NOW


def _instructions(call: Callable[[], object]) -> int:
    """How many instructions of Python *call* takes: the same each time, on a busy machine too."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
