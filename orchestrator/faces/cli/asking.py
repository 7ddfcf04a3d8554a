"""Commands that look at instances: list, history, graph."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestrator.catalogue import Catalogue
from orchestrator.domain.events import Status
from orchestrator.domain.graph import mermaid
from orchestrator.errors import InvalidInputError, NotFoundError
from orchestrator.faces.cli import render, words
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
from orchestrator.settings import Settings


def list_(
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    name: Annotated[str | None, typer.Option(help="Only instances of this saga.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag: key=value.")] = None,
    since: Annotated[str | None, typer.Option(help="30m, 2h, 7d, or an ISO time.")] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the children of this instance.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    json: Json = False,
) -> None:
    """List instances, newest first.

    Example: saga list --status compensated --since 2h
    """

    async def work() -> list[Instance]:
        tags = dict(_pair(one) for one in tag or [])
        after = None if since is None else _since(since)
        async with application() as app:
            above = None if parent is None else (await app.orchestrator.get(parent)).saga_id
            wanted = Filter(status, name, tags, after, None, limit, above)
            return await app.orchestrator.search(wanted)

    found = run(work, as_json=json)
    if json:
        tell([render.instance_json(instance) for instance in found])
    elif found:
        out.print(render.instances(found))
    elif status or name or tag or since or parent:
        out.print("no instance is like that")
    else:
        out.print("no instances yet; start one: saga start NAME --input JSON")


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
            out.print(words.history(entries))
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
