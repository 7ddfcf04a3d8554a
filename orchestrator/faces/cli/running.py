"""Commands that stay: up, worker, relay; and migrate and doctor, which prepare and check."""

from __future__ import annotations

import asyncio
import contextlib
import json as jsonlib
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from orchestrator.bootstrap import (
    App,
    Catalogue,
    Settings,
    diagnose,
    kafka_settings,
    migrate_database,
    observe,
    open_app,
    schema_of,
)
from orchestrator.errors import InvalidInputError, SchemaError, UnavailableError
from orchestrator.faces.cli.common import (
    Json,
    Sagas,
    catalogue,
    fail,
    optional_catalogue,
    out,
    run,
    tell,
)
from orchestrator.faces.cli.render import clean
from orchestrator.ports import Telemetry, Verdict

log = logging.getLogger("saga")

Slots = Annotated[int | None, typer.Option(min=1, help="Instances carried at once.")]
Metrics = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this port.")
]
Serve = Callable[[App, asyncio.Event], Awaitable[None]]

_SECOND_SIGNAL = 130


def worker(
    sagas: Sagas = None, slots: Slots = None, metrics_port: Metrics = None, json: Json = False
) -> None:
    """Claim instances and carry them on, until SIGTERM; waits when the database is away.

    Example: saga worker --sagas my_project.sagas
    """
    settings = _settings(slots)

    async def serve(app: App, stop: asyncio.Event) -> None:
        names = ", ".join(f"{s.name} v{s.version}" for s in app.catalogue.sagas)
        log.info("works on %s: %s", app.database.shown, names)
        async with app.worker(watchdog=True) as running:
            await running.run(stop)

    _stay(settings, _found(sagas, settings, as_json=json), serve, metrics_port, as_json=json)


def relay(metrics_port: Metrics = None, json: Json = False) -> None:
    """Publish every event to Kafka, in order, until SIGTERM; one works, others stand by.

    Example: SAGA_KAFKA_BOOTSTRAP_SERVERS=localhost:9092 saga relay
    """
    settings = Settings()
    if kafka_settings(settings) is None:
        fail(InvalidInputError("no broker: set SAGA_KAFKA_BOOTSTRAP_SERVERS"), as_json=json)

    async def serve(app: App, stop: asyncio.Event) -> None:
        log.info("publishes %s to %s", app.database.shown, settings.kafka_bootstrap_servers)
        running = app.relay()
        if running is not None:
            await running.run(stop)

    _stay(settings, Catalogue(()), serve, metrics_port, as_json=json)


def up(
    sagas: Sagas = None, slots: Slots = None, metrics_port: Metrics = None, json: Json = False
) -> None:
    """Run everything in this process: database (embedded, unless one is configured), worker, relay.

    Example: saga up
    """
    settings = _settings(slots)

    async def serve(app: App, stop: asyncio.Event) -> None:
        names = ", ".join(f"{s.name} v{s.version}" for s in app.catalogue.sagas)
        log.info("works on %s: %s", app.database.shown, names)
        log.info("from another terminal: saga start NAME --input '{...}' --wait")
        async with app.worker(watchdog=True) as running, asyncio.TaskGroup() as group:
            publishing = app.relay()
            if publishing is None:
                log.info("no broker is configured: events stay in the database")
            else:
                group.create_task(publishing.run(stop))
            group.create_task(_until_done(running.run(stop), stop))

    _stay(settings, _found(sagas, settings, as_json=json), serve, metrics_port, as_json=json)


def migrate(
    to: Annotated[str, typer.Option(help="A revision; the newest if left out.")] = "head",
    check: Annotated[bool, typer.Option("--check", help="Only look; change nothing.")] = False,
    json: Json = False,
) -> None:
    """Bring the database's schema up to date, and make the coming months' partitions.

    Example: saga migrate
    """

    async def work() -> None:
        if check:
            at, wanted = await schema_of(Settings())
            if at != wanted:
                raise SchemaError(
                    f"the database is at schema {at or 'none'}, this code wants {wanted}; "
                    + ("upgrade the package" if (at or "") > wanted else "run `saga migrate`")
                )
            where, now = "", at or ""
        else:
            where, revision = await migrate_database(Settings(), to)
            now = revision or ""
        tell({"revision": now}) if json else out.print(clean(f"{where} is at schema {now}".strip()))

    run(work, as_json=json)


def doctor(sagas: Sagas = None, json: Json = False) -> None:
    """Check the database, its schema and settings, the workers and the broker.

    Example: saga doctor
    """
    settings = Settings()

    async def work() -> bool:
        findings = await diagnose(settings, optional_catalogue(sagas, settings))
        if json:
            tell(
                [
                    {"subject": f.subject, "verdict": str(f.verdict), "text": f.text}
                    for f in findings
                ]
            )
        marks = {
            Verdict.FINE: "[green]✓[/]",
            Verdict.WARNING: "[yellow]![/]",
            Verdict.FAILED: "[red]✗[/]",
        }
        for f in () if json else findings:
            out.print(f"{marks[f.verdict]} {clean(f.subject)}: {clean(f.text)}")
        return all(f.verdict is not Verdict.FAILED for f in findings)

    if not run(work, as_json=json):
        raise typer.Exit(5)


# ---------------------------------------------------------------------------- parts


def _settings(slots: int | None) -> Settings:
    settings = Settings()
    return settings if slots is None else settings.model_copy(update={"slots": slots})


def _found(sagas: list[str] | None, settings: Settings, *, as_json: bool) -> Catalogue:
    try:
        return catalogue(sagas, settings)
    except Exception as error:  # noqa: BLE001 - sorted by the table of exit codes
        fail(error, as_json=as_json)


async def _until_done(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """When the worker ends by itself, the rest of the process ends too."""
    try:
        await work
    finally:
        stop.set()


def _stay(
    settings: Settings,
    found: Catalogue,
    serve: Serve,
    metrics_port: int | None,
    *,
    as_json: bool,
) -> None:
    """Serve until a signal says stop; wait for a database that is away."""
    _log_to_stderr(as_json=as_json)
    telemetry = observe(metrics_port)

    async def main() -> None:
        stop = asyncio.Event()
        _heed_signals(stop)
        await _keep_serving(settings, found, serve, telemetry, stop)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main())
    except Exception as error:  # noqa: BLE001 - sorted by the table of exit codes
        fail(error, as_json=as_json)


async def _keep_serving(
    settings: Settings, found: Catalogue, serve: Serve, telemetry: Telemetry, stop: asyncio.Event
) -> None:
    wait = 0.5
    while not stop.is_set():
        try:
            async with open_app(settings, found, telemetry=telemetry) as app:
                await serve(app, stop)
                return
        except SchemaError:
            raise
        except (UnavailableError, OSError) as error:
            if settings.database_url is None:
                raise
            log.warning("waits for the database: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 5.0)


def _heed_signals(stop: asyncio.Event) -> None:
    """The first signal drains, the second ends at once."""
    loop = asyncio.get_running_loop()

    def heed() -> None:
        if stop.is_set():
            os._exit(_SECOND_SIGNAL)
        log.info("hands over and ends; a second signal ends at once")
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, heed)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed; steps do not notice, throughput does."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return jsonlib.dumps(told)


def _log_to_stderr(*, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(_JsonLines() if as_json else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("aiokafka", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
