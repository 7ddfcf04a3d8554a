"""What all commands share: options, opening the application, one table from errors to exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from orchestrator.bootstrap import App, Catalogue, Settings, load_catalogue, open_app
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    InvalidInputError,
    NotFoundError,
    OrchestratorError,
    SagaFailedError,
    UnavailableError,
)
from orchestrator.faces.cli.render import clean

T = TypeVar("T")

EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SagaFailedError, 1),
    (TimeoutError, 1),
    (InvalidInputError, 2),
    (DefinitionError, 2),
    (ValidationError, 2),
    (NotFoundError, 3),
    (ConflictError, 4),
    (UnavailableError, 5),
    (OrchestratorError, 1),
)

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
    """As `catalogue`, but commands that only read can do without."""
    if modules:
        return catalogue(modules, settings)
    try:
        return catalogue(None, settings)
    except NotFoundError:
        return Catalogue(())


def application(
    modules: list[str] | None = None, *, needed: bool = False
) -> AbstractAsyncContextManager[App]:
    """The wired application for one short command."""
    settings = Settings()
    found = catalogue(modules, settings) if needed else optional_catalogue(modules, settings)
    return open_app(settings, found)


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
    code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), None)
    if code is None:
        raise error
    nearest = list(getattr(error, "nearest", ()))
    problems = list(getattr(error, "problems", ()))
    if as_json:
        told = {"error": type(error).__name__, "message": str(error), "exit_code": code}
        told |= {"nearest": nearest} if nearest else {}
        told |= {"problems": problems} if problems else {}
        sys.stderr.write(json.dumps(told) + "\n")
    else:
        err.print(f"[red]error:[/red] {clean(str(error))}")
        for problem in problems:
            err.print(f"  {clean(problem)}")
        if nearest:
            err.print(f"  nearest: {clean(', '.join(nearest))}")
    raise typer.Exit(code)


def tell(value: Any) -> None:
    """One JSON value on a line of its own."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()
