"""What all commands share: options, opening the application, one table from errors to exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from orchestrator.bootstrap import App, open_app
from orchestrator.catalogue import Catalogue, load_catalogue
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    InvalidInputError,
    NotFoundError,
    OrchestratorError,
    SagaFailedError,
    UnavailableError,
    UnrecordableError,
)
from orchestrator.faces.cli.render import clean
from orchestrator.settings import Settings

T = TypeVar("T")

INTERRUPTED = 130
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SagaFailedError, 1),
    (TimeoutError, 1),
    (InvalidInputError, 2),
    (UnrecordableError, 2),
    (DefinitionError, 2),
    (ValidationError, 2),
    (NotFoundError, 3),
    (ConflictError, 4),
    (UnavailableError, 5),
    (OrchestratorError, 1),
)
"""0 done, 1 the saga did not complete, 2 usage, 3 not found, 4 conflict, 5 unavailable."""

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Sagas = Annotated[
    list[str] | None,
    typer.Option(
        "--sagas",
        metavar="MODULE",
        help="A module that holds sagas, as in an import statement; may be repeated.",
        show_default="SAGA_SAGAS, else the ready sagas",
    ),
]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="An id, or the beginning of one.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def catalogue(modules: list[str] | None, settings: Settings) -> Catalogue:
    """The sagas that were named, else those of `SAGA_SAGAS`."""
    names = modules or [name.strip() for name in settings.sagas.split(",") if name.strip()]
    return load_catalogue(names)


def optional_catalogue(modules: list[str] | None, settings: Settings) -> Catalogue:
    """As `catalogue`, for commands that can do without the default ones."""
    if modules:
        return catalogue(modules, settings)
    try:
        return catalogue(None, settings)
    except NotFoundError:
        return Catalogue(())


def application(found: Catalogue | None = None) -> AbstractAsyncContextManager[App]:
    """The wired application for one short command; without *found* it knows no saga."""
    return open_app(Settings(), found)


def run(work: Callable[[], Awaitable[T]], *, as_json: bool = False) -> T:
    """Run *work* to its end; an error becomes a message and an exit code."""

    async def main() -> T:
        return await work()

    try:
        return asyncio.run(main())
    except Exception as error:  # noqa: BLE001 - sorted by the table; unknown ones go on
        fail(error, as_json=as_json)


def fail(error: Exception, *, as_json: bool = False) -> NoReturn:
    """Say what went wrong and what to do, and exit by the table."""
    raise typer.Exit(report(error, as_json=as_json)) from error


def report(error: Exception, *, as_json: bool = False) -> int:
    """Say on stderr what went wrong and what to do; the exit code. Unknown errors are raised."""
    code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), None)
    if code is None:
        raise error
    message, problems = _told(error)
    nearest = list(getattr(error, "nearest", ()))
    if as_json:
        told = {"error": type(error).__name__, "message": message, "exit_code": code}
        told |= {"status": str(error.status)} if isinstance(error, SagaFailedError) else {}
        told |= {"nearest": nearest} if nearest else {}
        told |= {"problems": problems} if problems else {}
        sys.stderr.write(json.dumps(told) + "\n")
        return code
    err.print(f"[red]error:[/red] {clean(message)}")
    for problem in problems:
        err.print(f"  {clean(problem)}")
    if nearest:
        err.print(f"  did you mean: {clean(', '.join(nearest))}")
    return code


def _told(error: Exception) -> tuple[str, list[str]]:
    """The message, and a line for each thing that is wrong; nothing is said twice."""
    if isinstance(error, ValidationError):  # ours are wrapped: this is the environment
        return "the settings are not valid", [
            ": ".join([*(f"SAGA_{part}".upper() for part in one["loc"]), _plain(one["msg"])])
            for one in error.errors(include_url=False, include_input=False)
        ]
    problems: list[str] = list(getattr(error, "problems", ()))
    return str(error).removesuffix("; ".join(problems)).rstrip(": ") or str(error), problems


def _plain(message: str) -> str:
    """What a check of ours said, without what pydantic puts before it."""
    return message.removeprefix("Value error, ")


def tell(value: Any) -> None:
    """One JSON value on a line of its own."""
    sys.stdout.write(json.dumps(value, default=_spelled) + "\n")
    sys.stdout.flush()


def _spelled(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def progress(*, as_json: bool) -> Progress:
    """A bar that is gone when the work is done; on stderr, and only where somebody watches."""
    return Progress(console=err, transient=True, disable=as_json or not err.is_terminal)
