"""One saga as lines of text: its tree with a mark for each step, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.bootstrap import App
from orchestrator.domain.definition import Parallel, Primitive, Step
from orchestrator.domain.events import CompensationStarted, Event, StepFailed
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import NodeState, Settled


async def draw(app: App, saga: Saga[Any, Any], saga_id: str) -> tuple[str, ...]:
    """The tree, a blank line, and the history."""
    state = await app.orchestrator.state(saga_id)
    entries = [entry async for entry in app.orchestrator.history(saga_id)]
    history = (
        f"{entry.seq:>3}  {(entry.at - entries[0].at).total_seconds() * 1000:>6.1f} ms  "
        f"{entry.type:<20} {getattr(entry.event, 'step', '')}{_because(entry.event)}".rstrip()
        for entry in entries
    )
    return (*_tree(saga.tree, state.root, 0), "", *history)


def _tree(node: Primitive[Any, Any], known: NodeState, depth: int) -> Iterable[str]:
    """A line for each step, and one above each group of branches; wrappers are left out."""
    if isinstance(node, Step):
        yield f"{'  ' * depth}{_mark(known)} {node.name}"
        return
    if isinstance(node, Parallel):
        yield f"{'  ' * depth}‖ side by side"
        depth += 1
    for index, child in enumerate(node.children):
        yield from _tree(child, known.child(str(index)), depth)


def _mark(known: NodeState) -> str:
    if known.undone:
        return "↩"
    match known.settled:
        case Settled.SUCCEEDED:
            return "✓"
        case Settled.FAILED:
            return "✗"
        case Settled.IN_DOUBT:
            return "?"
        case None:
            return "·"


def _because(event: Event) -> str:
    match event:
        case StepFailed(failure=failure):
            return f": {failure.type}, {failure.message}"
        case CompensationStarted(reason=reason):
            return reason
        case _:
            return ""
