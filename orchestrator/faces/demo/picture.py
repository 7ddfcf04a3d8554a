"""One saga as lines of text: its tree with a mark for each step, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.bootstrap import App
from orchestrator.domain.definition import Parallel
from orchestrator.domain.drawing import outline
from orchestrator.domain.events import CompensationStarted, Event, StepFailed
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.state import SagaState


async def draw(app: App, saga: Saga[Any, Any], saga_id: str) -> tuple[str, ...]:
    """The tree, a blank line, and the history."""
    state = await app.orchestrator.state(saga_id)
    entries = [entry async for entry in app.orchestrator.history(saga_id)]
    history = (
        f"{entry.seq:>3}  {(entry.at - entries[0].at).total_seconds() * 1000:>6.1f} ms  "
        f"{entry.type:<20} {getattr(entry.event, 'step', '')}{_because(entry.event)}".rstrip()
        for entry in entries
    )
    return (*_tree(saga, state), "", *history)


def _tree(saga: Saga[Any, Any], state: SagaState) -> Iterable[str]:
    """A line for each step, and one above each group of branches; the rest is left out."""
    groups: list[str] = []
    for line, node in zip(outline(saga, state), walk(saga.tree), strict=True):
        indent = "  " * sum(line.path.startswith(f"{group}/") for group in groups)
        if line.mark:
            yield f"{indent}{line.mark} {line.label}"
        elif isinstance(node, Parallel):
            groups.append(line.path)
            yield f"{indent}‖ {line.label}"


def _because(event: Event) -> str:
    match event:
        case StepFailed(failure=failure):
            return f": {failure.type}, {failure.message}"
        case CompensationStarted(reason=reason):
            return reason
        case _:
            return ""
