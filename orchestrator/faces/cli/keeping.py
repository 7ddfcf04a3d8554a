"""Commands that prepare and check: migrate, doctor."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from orchestrator.bootstrap import migrate_database, schema_of
from orchestrator.diagnosis import diagnose
from orchestrator.errors import SchemaError
from orchestrator.faces.cli.common import Json, Sagas, err, optional_catalogue, out, run, tell
from orchestrator.faces.cli.render import clean
from orchestrator.ports import Verdict
from orchestrator.settings import Settings

_MARKS = {
    Verdict.FINE: "[green]✓[/]",
    Verdict.WARNING: "[yellow]![/]",
    Verdict.FAILED: "[red]✗[/]",
}


def migrate(
    to: Annotated[str, typer.Option(help="A revision; the newest if left out.")] = "head",
    check: Annotated[bool, typer.Option("--check", help="Only look; change nothing.")] = False,
    json: Json = False,
) -> None:
    """Bring the database's schema up to date, and make the coming months' partitions.

    Example: saga migrate
    """

    async def work() -> tuple[str, str]:
        if check:
            return "the database", await _check()
        if not json:
            _tell_each_migration()
        where, revision = await migrate_database(Settings(), to)
        return where, revision or "none"

    where, revision = run(work, as_json=json)
    if json:
        tell({"revision": revision})
    else:
        out.print(clean(f"{where} is at schema {revision}"))


def doctor(sagas: Sagas = None, json: Json = False) -> None:
    """Check the database, its schema and settings, the workers and the broker.

    Exits 5 when something that is needed is missing.

    Example: saga doctor
    """

    async def work() -> bool:
        settings = Settings()
        findings = await diagnose(settings, optional_catalogue(sagas, settings))
        if json:
            shape = ("subject", "verdict", "text")
            tell([{name: str(getattr(f, name)) for name in shape} for f in findings])
        else:
            for f in findings:
                out.print(f"{_MARKS[f.verdict]} {clean(f.subject)}: {clean(f.text)}")
        return all(f.verdict is not Verdict.FAILED for f in findings)

    if not run(work, as_json=json):
        raise typer.Exit(5)


async def _check() -> str:
    at, wanted = await schema_of(Settings())
    if at == wanted:
        return wanted
    mend = "upgrade the package saga-orchestrator" if (at or "") > wanted else "run `saga migrate`"
    raise SchemaError(f"the database is at schema {at or 'none'}, this code wants {wanted}; {mend}")


class _EachMigration(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Running "):
            err.print(clean(text.removeprefix("Running ")))


def _tell_each_migration() -> None:
    steps = logging.getLogger("alembic.runtime.migration")
    steps.setLevel(logging.INFO)
    steps.propagate = False
    steps.handlers = [_EachMigration()]
