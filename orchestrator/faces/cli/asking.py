"""Commands that look: list, show, history, watch, replay, verify, graph."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from orchestrator.bootstrap import App
from orchestrator.domain.drawing import mermaid, outline
from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.state import SagaState
from orchestrator.errors import InvalidInputError, NotFoundError
from orchestrator.faces.cli import render
from orchestrator.faces.cli.common import Json, SagaId, Sagas, application, out, run, tell
from orchestrator.ports import Filter, Instance


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
    else:
        out.print("no instances; start one: saga start NAME --input '{...}'")


def show(saga_id: SagaId, sagas: Sagas = None, json: Json = False) -> None:
    """Show where an instance stands: its row, its tree, what it waits for.

    Example: saga show 0199c2e4
    """

    async def work() -> None:
        async with application(sagas) as app:
            instance = await app.orchestrator.get(saga_id)
            state = await app.orchestrator.state(instance.saga_id)
            if json:
                tell(_shown_json(app, instance, state))
            else:
                _show(app, instance, state)

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
        else:
            out.print(render.history(entries))

    run(work, as_json=json)


def watch(
    saga_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An instance; all of them if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Watch one instance until it ends, or the counts of all until Ctrl-C.

    Example: saga watch 0199c2e4
    """
    run(lambda: _watch_all(json) if saga_id is None else _watch_one(saga_id, json), as_json=json)


def replay(saga_id: SagaId, json: Json = False) -> None:
    """Fold the history again, without any effect, and compare it with the row.

    Example: saga replay 0199c2e4
    """

    async def work() -> bool:
        async with application() as app:
            done = await app.orchestrator.replay(saga_id)
        if json:
            tell({"id": done.saga_id, "events": done.events, "folded": str(done.folded),
                  "stored": str(done.stored), "agrees": done.agrees})  # fmt: skip
        else:
            verdict = "agrees with" if done.agrees else "DIFFERS from"
            out.print(
                f"{done.events} events fold to {done.folded}, which {verdict} the row ({done.stored})"
            )
        return done.agrees

    if not run(work, as_json=json):
        raise typer.Exit(1)


def verify(
    saga_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An instance; all of them if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the hash chain of one instance, or of all.

    Example: saga verify
    """

    async def work() -> tuple[int, int]:
        async with application() as app:
            if saga_id is not None:
                return 1, await app.orchestrator.verify(saga_id)
            total = sum((await app.store.reads.counts()).values())
            with Progress(disable=json, transient=True) as progress:
                bar = progress.add_task("verifying", total=total)
                return await app.orchestrator.verify_all(
                    lambda done: progress.update(bar, completed=done)
                )

    sagas, events = run(work, as_json=json)
    if json:
        tell({"sagas": sagas, "events": events, "verified": True})
    else:
        out.print(f"{sagas} hash chains with {events} events verified")


def graph(
    name_or_id: Annotated[str, typer.Argument(metavar="NAME|ID", help="A saga or an instance.")],
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Draw a saga, or an instance with its marks, as a Mermaid graph.

    Example: saga graph order-fulfilment
    """

    async def work() -> str:
        async with application(sagas) as app:
            try:
                return mermaid(app.orchestrator.find_saga(name_or_id))
            except NotFoundError as unknown:
                if not re.fullmatch(r"[0-9a-fA-F-]{4,36}", name_or_id):
                    raise unknown from None
            instance = await app.orchestrator.get(name_or_id)
            saga = app.orchestrator.find_saga(instance.name, instance.version)
            return mermaid(saga, await app.orchestrator.state(instance.saga_id))

    drawn = run(work, as_json=json)
    if json:
        tell({"mermaid": drawn})
    else:
        typer.echo(drawn)


# ---------------------------------------------------------------------------- parts


def _waits_for(instance: Instance, *, known: bool) -> str:
    if instance.status in ENDED:
        return "nothing: it has ended"
    if instance.status is Status.STUCK:
        return "a person"
    if instance.owner is not None:
        return f"its steps, at worker {instance.owner}"
    if instance.due_at is not None and instance.due_at > datetime.now(UTC):
        return f"the time: {render.when(instance.due_at)} UTC"
    served = "" if known else " (this process has no such saga: --sagas MODULE)"
    return f"a worker that has {instance.name} version {instance.version}{served}"


def _shown_json(app: App, instance: Instance, state: SagaState) -> dict[str, Any]:
    saga = app.orchestrator.sagas.get((instance.name, instance.version))
    return {
        **render.instance_json(instance),
        "waits_for": _waits_for(instance, known=saga is not None),
        "reason": state.stuck.reason if state.stuck else state.reason or None,
        "undone": list(state.undone),
        "definition_known": saga is not None,
        "tree": [
            {"path": line.path, "label": line.label, "mark": line.mark, "depth": line.depth}
            for line in (outline(saga, state) if saga else [])
        ],
    }


def _show(app: App, instance: Instance, state: SagaState) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    saga = app.orchestrator.sagas.get((instance.name, instance.version))
    rows: list[tuple[str, Any]] = [
        ("id", instance.saga_id),
        ("saga", render.clean(f"{instance.name} version {instance.version}")),
        ("status", render.status(instance.status)),
        ("key", render.clean(instance.key or "")),
        ("started", render.when(instance.created_at)),
        ("events", str(instance.head)),
        ("waits for", render.clean(_waits_for(instance, known=saga is not None))),
        ("reason", render.clean(state.stuck.reason if state.stuck else state.reason)),
    ]
    for label, value in rows:
        if value:
            table.add_row(label, value)
    out.print(table)
    if saga is None:
        out.print("\n(the tree needs its definition: --sagas MODULE)")
    else:
        out.print("\n" + render.tree(outline(saga, state)))


async def _watch_one(saga_id: str, as_json: bool) -> None:
    async with application() as app:
        instance = await app.orchestrator.get(saga_id)
        seen = 0
        while True:
            for row in await app.store.events.read(instance.saga_id, seen):
                entry = app.orchestrator.entry(row)
                seen = entry.seq
                if as_json:
                    tell(render.entry_json(entry))
                else:
                    out.print(f"{render.when(entry.at)}  {entry.type:<24} {render.detail(entry)}")
            instance = await app.orchestrator.get(instance.saga_id)
            if instance.head == seen and (
                instance.status in ENDED or instance.status is Status.STUCK
            ):
                return
            await asyncio.sleep(0.2)


async def _watch_all(as_json: bool) -> None:
    async with application() as app:
        if as_json:
            while True:
                counts = await app.store.reads.counts()
                tell([{"saga": n, "status": str(s), "count": c} for (n, s), c in counts.items()])
                await asyncio.sleep(1)
        with Live(refresh_per_second=4) as live:
            while True:
                table = Table("saga", "status", "count", box=None)
                for (name, status), count in sorted((await app.store.reads.counts()).items()):
                    table.add_row(render.clean(name), render.status(status), str(count))
                live.update(table)
                await asyncio.sleep(0.5)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInputError(f"--tag {text!r}: write it as key=value")
    return key, value


def _since(text: str) -> datetime:
    if found := re.fullmatch(r"(\d+)([smhd])", text):
        units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
        return datetime.now(UTC) - timedelta(**{units[found[2]]: int(found[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"--since {text!r}: write 30m, 2h, 7d or an ISO time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
