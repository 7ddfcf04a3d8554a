"""The command `saga`: verbs become calls of the service, errors become exit codes."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import sys
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from orchestrator.errors import NotFoundError
from orchestrator.faces.cli import acting, asking, running
from orchestrator.faces.cli.common import fail
from orchestrator.faces.demo import demo


class _Verbs(TyperGroup):
    """Answers an unknown verb with the nearest ones, and exit code 3."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            nearest = difflib.get_close_matches(cmd_name, self.list_commands(ctx), cutoff=0.4)
            unknown = NotFoundError(f"there is no command {cmd_name!r}; see saga --help", nearest)
            fail(unknown, as_json="--json" in sys.argv)
        return found


app = typer.Typer(
    name="saga",
    cls=_Verbs,
    help="Start sagas, run them, watch them, and audit what happened.\n\n"
    "New here? Run `saga demo`, then `saga up` and, from another terminal, `saga start --help`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"saga-orchestrator {importlib.metadata.version('saga-orchestrator')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Options of `saga` itself."""


_RUN, _LOOK, _ACT, _KEEP = "Run", "Look", "Act", "Set up and check"
for panel, verb, command in (
    (_RUN, "demo", demo),
    (_RUN, "up", running.up),
    (_RUN, "worker", running.worker),
    (_RUN, "relay", running.relay),
    (_ACT, "start", acting.start),
    (_ACT, "cancel", acting.cancel),
    (_LOOK, "list", asking.list_),
    (_LOOK, "show", asking.show),
    (_LOOK, "history", asking.history),
    (_LOOK, "watch", asking.watch),
    (_LOOK, "graph", asking.graph),
    (_LOOK, "replay", asking.replay),
    (_LOOK, "verify", asking.verify),
    (_KEEP, "migrate", running.migrate),
    (_KEEP, "doctor", running.doctor),
):
    app.command(verb, rich_help_panel=panel)(command)


def main() -> None:
    """Run the command line; Ctrl-C ends it with 130, a closed pipe quietly."""
    try:
        app(prog_name="saga", standalone_mode=True)
    except (KeyboardInterrupt, click.exceptions.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # What is left in the buffer has no reader: flushing it at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
