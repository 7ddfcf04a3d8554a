"""The command watch: one instance until it ends, or the counts of all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from orchestrator.domain.events import ENDED, Status
from orchestrator.faces.cli import render, words
from orchestrator.faces.cli.common import Json, application, out, run, tell
from orchestrator.runtime.service import HistoryEntry

LOOK_EVERY = 0.2
COUNT_EVERY = 1.0


def watch(
    saga_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An instance; all of them if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Watch one instance until it ends (exit 1 if not completed), or the counts of all until Ctrl-C.

    Example: saga watch 0199c2e4
    """
    if saga_id is None:
        run(lambda: _watch_all(as_json=json), as_json=json)
    elif run(lambda: _watch_one(saga_id, as_json=json), as_json=json) is not Status.COMPLETED:
        raise typer.Exit(1)


async def _watch_one(saga_id: str, *, as_json: bool) -> Status:
    async with application() as app:
        instance = await app.orchestrator.get(saga_id)
        seen = 0
        while True:
            for row in await app.store.events.read(instance.saga_id, seen):
                entry = app.orchestrator.entry(row)
                seen = entry.seq
                tell(render.entry_json(entry)) if as_json else out.print(_line(entry))
            instance = await app.orchestrator.get(instance.saga_id)
            at_rest = instance.status in ENDED or instance.status is Status.STUCK
            if at_rest and instance.head == seen:
                return instance.status
            await asyncio.sleep(LOOK_EVERY)


def _line(entry: HistoryEntry) -> Text:
    told = f"{render.when(entry.at)}  {entry.type:<20}  {words.sentence(entry.event)}"
    return Text(render.visible(told))


async def _watch_all(*, as_json: bool) -> None:
    async with application() as app:
        if as_json or not out.is_terminal:
            while True:
                counts = await app.store.reads.counts()
                tell([{"saga": n, "status": str(s), "count": c} for (n, s), c in counts.items()])
                await asyncio.sleep(COUNT_EVERY)
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(_table(await app.store.reads.counts()), refresh=True)
                await asyncio.sleep(COUNT_EVERY)


def _table(counts: Mapping[tuple[str, Status], int]) -> Text:
    rows = [(name, render.status(s), f"{count:,}") for (name, s), count in sorted(counts.items())]
    return render.columns(("saga", "status", "count"), rows)
