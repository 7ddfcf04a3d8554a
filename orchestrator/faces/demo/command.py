"""`saga demo`: the whole promise on real input, in half a minute."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.faces.demo.report import Report, as_json, show_report
from orchestrator.faces.demo.run import Script, play
from orchestrator.faces.demo.stage import Stage


def demo(
    json_: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
    orders: Annotated[
        Path | None, typer.Option(help="JSON Lines of orders; 500 come with the package.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh/--keep",
            help="Begin a new run with empty books, or go on with the orders of the last run.",
        ),
    ] = True,
    seed: Annotated[
        int | None, typer.Option(help="Shuffles the orders and chooses who is killed.")
    ] = None,
) -> None:
    """500 orders, two worker processes, one `kill -9`: every order ends, and the books balance.

    Example: saga demo --seed 7
    """
    # The command line holds this command, so what it has for all of them is imported late.
    from orchestrator.faces.cli.common import run, tell

    script = Script(orders, fresh, secrets.randbelow(1_000_000) if seed is None else seed)
    console = Console(stderr=json_)
    try:
        with Stage(console) as stage:
            report = run(lambda: _until_told_to_end(script, stage), as_json=json_)
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    if json_:
        tell(as_json(report))
    else:
        show_report(report, console)
    raise typer.Exit(0 if report.ok else 1)


async def _until_told_to_end(script: Script, stage: Stage) -> Report:
    """Let SIGTERM end it as Ctrl-C does: workers and database are put away first."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await play(script, stage)
