"""Commands that look at instances: list, show, history, graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.text import Text

from orchestrator.bootstrap import Catalogue, Settings
from orchestrator.domain.drawing import mermaid, outline
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState
from orchestrator.errors import InvalidInputError, NotFoundError
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

MARKS = "✓ done  ↩ undone  ✗ failed  ? in doubt  … running  · not begun"


def list_(
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    name: Annotated[str | None, typer.Option(help="Only instances of this saga.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag: key=value.")] = None,
    since: Annotated[str | None, typer.Option(help="30m, 2h, 7d, or an ISO time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    json: Json = False,
) -> None:
    """List instances, newest first.

    Example: saga list --status compensated --since 2h
    """

    async def work() -> list[Instance]:
        tags = dict(_pair(one) for one in tag or [])
        wanted = Filter(status, name, tags, None if since is None else _since(since), None, limit)
        async with application() as app:
            return await app.orchestrator.search(wanted)

    found = run(work, as_json=json)
    if json:
        tell([render.instance_json(instance) for instance in found])
    elif found:
        out.print(render.instances(found))
    elif status or name or tag or since:
        out.print("no instance is like that")
    else:
        out.print("no instances yet; start one: saga start NAME --input JSON")


def show(saga_id: SagaId, sagas: Sagas = None, json: Json = False) -> None:
    """Show where an instance stands: its row, its tree, what it waits for, what failed last.

    Example: saga show 0199c2e4
    """

    async def work() -> None:
        async with application(optional_catalogue(sagas, Settings())) as app:
            instance = await app.orchestrator.get(saga_id)
            state = await app.orchestrator.state(instance.saga_id)
            failures = [
                f"{render.step_of(entry)}: {why}"
                async for entry in app.orchestrator.history(instance.saga_id)
                if entry.node and (why := render.failure_of(entry))
            ]
            saga = app.orchestrator.sagas.get((instance.name, instance.version))
        show_ = _show_json if json else _show
        show_(instance, state, saga, failures[-1] if failures else "")

    run(work, as_json=json)


def history(
    saga_id: SagaId,
    at: Annotated[int | None, typer.Option(min=1, help="Only up to this event.")] = None,
    json: Json = False,
) -> None:
    """Read the events of an instance, in order.

    Example: saga history 0199c2e4 --json
    """

    async def work() -> None:
        async with application() as app:
            entries = [
                entry
                async for entry in app.orchestrator.history(saga_id)
                if at is None or entry.seq <= at
            ]
        if json:
            tell([render.entry_json(entry) for entry in entries])
        elif entries:
            out.print(render.history(entries))
        else:
            out.print("no events yet: no worker has taken it up")

    run(work, as_json=json)


def graph(
    name_or_id: Annotated[str, typer.Argument(metavar="NAME|ID", help="A saga or an instance.")],
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Draw a saga, or an instance with its marks, as a Mermaid graph.

    Example: saga graph order-fulfilment
    """

    async def work() -> str:
        found = optional_catalogue(sagas, Settings())
        versions = [saga for saga in found.sagas if saga.name == name_or_id]
        if versions:  # needs no database
            return mermaid(max(versions, key=lambda saga: saga.version))
        return await _graph_of_instance(name_or_id, found)

    drawn = run(work, as_json=json)
    if json:
        tell({"mermaid": drawn})
    else:
        typer.echo("\n".join(render.visible(line) for line in drawn.split("\n")))


# ---------------------------------------------------------------------------- parts


async def _graph_of_instance(saga_id: str, found: Catalogue) -> str:
    async with application(found) as app:
        if not re.fullmatch(r"[0-9a-fA-F-]{4,36}", saga_id):
            app.orchestrator.find_saga(saga_id)  # says which names come nearest
        instance = await app.orchestrator.get(saga_id)
        saga = app.orchestrator.sagas.get((instance.name, instance.version))
        if saga is None:
            raise NotFoundError(
                f"{instance.name} version {instance.version} is not known in this process; "
                "say --sagas MODULE"
            )
        return mermaid(saga, await app.orchestrator.state(instance.saga_id))


def _waits_for(instance: Instance, *, known: bool) -> str:
    if instance.status in ENDED:
        return "nothing: it has ended"
    if instance.status is Status.STUCK:
        return "a person"
    if instance.owner is not None:
        return f"its steps, at worker {instance.owner}"
    if instance.due_at is not None and instance.due_at > datetime.now(UTC):
        return f"the time: {render.when(instance.due_at)} UTC"
    served = "" if known else " (this process has no such saga)"
    return f"a worker that has {instance.name} version {instance.version}{served}"


def _show_json(
    instance: Instance, state: SagaState, saga: Saga[Any, Any] | None, failure: str
) -> None:
    tell(
        {
            **render.instance_json(instance),
            "waits_for": _waits_for(instance, known=saga is not None),
            "reason": state.stuck.reason if state.stuck else state.reason or None,
            "last_failure": failure or None,
            "undone": list(state.undone),
            "definition_known": saga is not None,
            "tree": [
                {"path": line.path, "label": line.label, "mark": line.mark, "depth": line.depth}
                for line in (outline(saga, state) if saga else [])
            ],
        }
    )


def _show(instance: Instance, state: SagaState, saga: Saga[Any, Any] | None, failure: str) -> None:
    rows: Sequence[tuple[str, str | Text]] = (
        ("id", instance.saga_id),
        ("saga", f"{instance.name} version {instance.version}"),
        ("status", render.status(instance.status)),
        ("key", instance.key or ""),
        ("tags", "  ".join(f"{key}={value}" for key, value in instance.tags.items())),
        ("started", f"{render.when(instance.created_at)} UTC"),
        ("events", str(instance.head)),
        ("waits for", _waits_for(instance, known=saga is not None)),
        ("reason", state.stuck.reason if state.stuck else state.reason),
        ("failed", failure),
    )
    for label, value in rows:
        if value:
            shown = value if isinstance(value, Text) else Text(render.visible(value))
            out.print(Text(f"{label:<11}", style="dim").append_text(shown))
    if saga is None:
        out.print("\n(this process has no definition of it, so no tree: say --sagas MODULE)")
    else:
        out.print(Text("\n").append_text(render.tree(outline(saga, state))))
        out.print(f"\n[dim]{MARKS}[/dim]")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInputError(f"--tag {text!r}: write it as key=value")
    return key, value


def _since(text: str) -> datetime:
    try:
        if found := re.fullmatch(r"([0-9]+)([smhd])", text):
            units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
            return datetime.now(UTC) - timedelta(**{units[found[2]]: int(found[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"--since {text!r}: write 30m, 2h, 7d or an ISO time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
