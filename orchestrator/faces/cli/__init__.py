"""The command `saga`: verbs become calls of the service, errors become exit codes."""

from __future__ import annotations

import difflib
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.errors import InvalidInputError, NotFoundError
from orchestrator.faces.cli import (
    acting,
    asking,
    auditing,
    keeping,
    mending,
    pruning,
    running,
    showing,
    watching,
    why,
)
from orchestrator.faces.cli.common import INTERRUPTED, report
from orchestrator.faces.demo import demo


class _Verbs(TyperGroup):
    """Answers an unknown verb with the nearest ones."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            nearest = difflib.get_close_matches(cmd_name, self.list_commands(ctx), cutoff=0.4)
            raise NotFoundError(f"there is no command {cmd_name!r}; see saga --help", nearest)
        return found


app = typer.Typer(
    name="saga",
    cls=_Verbs,
    help="Start sagas, run them, watch them, and audit what happened.\n\n"
    "New here? Run `saga demo`, then `saga up` and, from another terminal, `saga start --help`.\n\n"
    "SAGA_DATABASE_URL names the database (an embedded Postgres without it), SAGA_SAGAS the modules "
    "with your sagas, SAGA_KAFKA_BOOTSTRAP_SERVERS the broker.",
    epilog="Exit codes: 0 done, 1 the saga did not complete, 2 usage, 3 not found, 4 conflict, "
    "5 database or broker unavailable.",
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
_MEND = "When a person is needed"
for panel, verb, command in (
    (_RUN, "demo", demo),
    (_RUN, "up", running.up),
    (_RUN, "worker", running.worker),
    (_RUN, "relay", running.relay),
    (_ACT, "start", acting.start),
    (_ACT, "signal", mending.signal),
    (_ACT, "cancel", acting.cancel),
    (_MEND, "retry", mending.retry),
    (_MEND, "skip", mending.skip),
    (_MEND, "resolve", mending.resolve),
    (_MEND, "resume", mending.resume),
    (_MEND, "terminate", mending.terminate),
    (_LOOK, "list", asking.list_),
    (_LOOK, "show", showing.show),
    (_LOOK, "why", why.why),
    (_LOOK, "history", asking.history),
    (_LOOK, "watch", watching.watch),
    (_LOOK, "graph", asking.graph),
    (_LOOK, "replay", auditing.replay),
    (_LOOK, "verify", auditing.verify),
    (_KEEP, "migrate", keeping.migrate),
    (_KEEP, "doctor", keeping.doctor),
    (_KEEP, "prune", pruning.prune),
):
    app.command(verb, rich_help_panel=panel)(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; Ctrl-C ends it with 130, a closed pipe quietly."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # By itself Typer ends the process, and draws a frame round what was typed wrong.
        code = app(given, prog_name="saga", standalone_mode=not as_json)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # What is left in the buffer has no reader: flushing it at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - sorted by the table; unknown ones go on
        typed_wrong = getattr(error, "format_message", None)
        found = InvalidInputError(str(typed_wrong())) if callable(typed_wrong) else error
        sys.exit(report(found, as_json=as_json))
    sys.exit(code)
