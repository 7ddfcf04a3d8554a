"""The command show: where an instance stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from orchestrator.bootstrap import App
from orchestrator.domain.drawing import outline
from orchestrator.domain.events import ENDED, Status, WaitStarted
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState
from orchestrator.faces.cli import render
from orchestrator.faces.cli.common import (
    Json,
    SagaId,
    Sagas,
    application,
    optional_catalogue,
    out,
    run,
    tell,
)
from orchestrator.ports import Filter, Instance
from orchestrator.runtime.service import HistoryEntry
from orchestrator.settings import Settings

MARKS = "✓ done  ↩ undone  ✗ failed  ? in doubt  … running  ⊘ broken off  · not begun"
COUNTED = 10_000
LISTED = 10
_TROUBLE_FIRST = (Status.STUCK, Status.TERMINATED, Status.COMPENSATING, Status.COMPENSATED)
_ORDER = [*_TROUBLE_FIRST, *(status for status in Status if status not in _TROUBLE_FIRST)]


@dataclass(frozen=True, slots=True)
class Seen:
    """All that there is to be shown of one instance."""

    instance: Instance
    state: SagaState
    saga: Saga[Any, Any] | None
    waits: str
    failure: str
    parent: Instance | None
    children: list[Instance]


def show(saga_id: SagaId, sagas: Sagas = None, json: Json = False) -> None:
    """Show where an instance stands: its row, its tree, what it waits for, what failed last.

    Example: saga show 0199c2e4
    """

    async def work() -> None:
        async with application(optional_catalogue(sagas, Settings())) as app:
            seen = await _see(app, saga_id)
        _show_json(seen) if json else _show(seen)

    run(work, as_json=json)


async def _see(app: App, saga_id: str) -> Seen:
    instance = await app.orchestrator.get(saga_id)
    state = await app.orchestrator.state(instance.saga_id)
    entries = [entry async for entry in app.orchestrator.history(instance.saga_id)]
    saga = app.orchestrator.sagas.get((instance.name, instance.version))
    parent = None if instance.parent is None else await app.store.reads.get(instance.parent)
    wanted = Filter(parent=instance.saga_id, limit=COUNTED)
    children = _in_trouble_first(await app.orchestrator.search(wanted))
    return Seen(
        instance,
        state,
        saga,
        _waits_for(instance, _awaited(entries, state), children, known=saga is not None),
        render.last_failure(entries),
        parent,
        children,
    )


def _in_trouble_first(children: list[Instance]) -> list[Instance]:
    return sorted(children, key=lambda child: (_ORDER.index(child.status), child.saga_id))


def _awaited(entries: Sequence[HistoryEntry], state: SagaState) -> list[str]:
    """The signals that an instance waits for now."""
    waits = {e.node: e.event.signal for e in entries if isinstance(e.event, WaitStarted)}
    return [signal for node, signal in waits.items() if state.at(node).waiting]


def _waits_for(
    instance: Instance, signals: Sequence[str], children: Sequence[Instance], *, known: bool
) -> str:
    if instance.status in ENDED:
        return "nothing: it has ended"
    if instance.status is Status.STUCK:
        return "a person"
    if instance.owner is not None:
        return f"its steps, at worker {instance.owner}"
    due = instance.due_at if instance.due_at and instance.due_at > datetime.now(UTC) else None
    if due is not None or instance.due_at is None:
        found = [f"the signal {' or '.join(signals)}"] if signals else []
        found += _live(children)
        found += [] if due is None else [f"the time: {render.when(due)} UTC"]
        if found:
            return ", or ".join(found)
    served = "" if known else " (this process has no such saga)"
    return f"a worker that has {instance.name} version {instance.version}{served}"


def _live(children: Sequence[Instance]) -> list[str]:
    """The child sagas that have not ended, in words."""
    live = [child for child in children if child.status not in ENDED]
    if len(live) > 1:
        return [f"{len(live):,} child sagas"]
    return [f"its child {child.saga_id}, which is {child.status}" for child in live]


def _show_json(seen: Seen) -> None:
    instance, state, saga = seen.instance, seen.state, seen.saga
    tell(
        {
            **render.instance_json(instance),
            "waits_for": seen.waits,
            "reason": state.stuck.reason if state.stuck else state.reason or None,
            "last_failure": seen.failure or None,
            "undone": list(state.undone),
            "children": [
                {"id": child.saga_id, "saga": child.name, "status": str(child.status)}
                for child in seen.children
            ],
            "definition_known": saga is not None,
            "tree": [
                {
                    "path": line.path,
                    "label": line.label,
                    "mark": line.mark,
                    "depth": line.depth,
                    "notes": list(line.notes),
                }
                for line in (outline(saga, state) if saga else [])
            ],
        }
    )


def _show(seen: Seen) -> None:
    instance, state = seen.instance, seen.state
    parent = seen.parent
    rows: Sequence[tuple[str, str | Text]] = (
        ("id", instance.saga_id),
        ("saga", f"{instance.name} version {instance.version}"),
        ("status", render.status(instance.status)),
        ("key", instance.key or ""),
        ("tags", "  ".join(f"{key}={value}" for key, value in instance.tags.items())),
        ("parent", "" if parent is None else f"{parent.saga_id}  {_standing(parent)}"),
        ("started", f"{render.when(instance.created_at)} UTC"),
        ("events", str(instance.head)),
        ("waits for", seen.waits),
        ("reason", state.stuck.reason if state.stuck else state.reason),
        ("failed", seen.failure),
        ("children", _counts(seen.children)),
    )
    for label, value in rows:
        if value:
            shown = value if isinstance(value, Text) else Text(render.visible(value))
            out.print(Text(f"{label:<11}", style="dim").append_text(shown))
    for child in seen.children[:LISTED]:
        out.print(Text(render.visible(f"{'':<11}{child.saga_id}  {_standing(child)}")))
    if len(seen.children) > LISTED:
        out.print(Text(f"{'':<11}all of them: saga list --parent {instance.saga_id}"))
    if seen.saga is None:
        out.print("\n(this process has no definition of it, so no tree: say --sagas MODULE)")
    else:
        out.print(Text("\n").append_text(render.tree(outline(seen.saga, state))))
        out.print(f"\n[dim]{MARKS}[/dim]")


def _standing(instance: Instance) -> str:
    return f"{instance.name} v{instance.version}  {instance.status}"


def _counts(children: Sequence[Instance]) -> str:
    """How many there are, by how they stand."""
    if not children:
        return ""
    counts = Counter(str(child.status) for child in children)
    more = " or more" if len(children) == COUNTED else ""
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return f"{len(children):,}{more}: {told}"
