"""Commands that stay: up, worker, relay, consume."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any

import typer

from orchestrator.bootstrap import App, kafka_settings
from orchestrator.catalogue import Catalogue
from orchestrator.errors import InvalidInputError, NotFoundError, OrchestratorError
from orchestrator.faces.cli.common import Json, Sagas, catalogue
from orchestrator.faces.cli.staying import log, stay
from orchestrator.runtime.relay_position import Trust
from orchestrator.settings import Settings

Slots = Annotated[int | None, typer.Option(min=1, help="Instances carried at once.")]
Metrics = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this port.")
]

Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Serve them on this address; 0.0.0.0 for all of them.",
        show_default="SAGA_METRICS_HOST, else 127.0.0.1",
    ),
]

GoOnFrom = Annotated[
    Trust,
    typer.Option(help="Whom to believe, once, when database and broker disagree."),
]


def worker(
    sagas: Sagas = None,
    slots: Slots = None,
    metrics_port: Metrics = None,
    metrics_host: Host = None,
    json: Json = False,
) -> None:
    """Claim instances and carry them on, until SIGTERM; waits when the database is away.

    Example: saga worker --sagas my_project.sagas
    """

    def prepare() -> tuple[Settings, Catalogue]:
        settings = _settings(slots)
        return settings, _with_sagas(catalogue(sagas, settings))

    stay(prepare, _work, metrics_port, metrics_host, as_json=json)


def relay(
    go_on_from: GoOnFrom = Trust.NEITHER,
    metrics_port: Metrics = None,
    metrics_host: Host = None,
    json: Json = False,
) -> None:
    """Publish every event to Kafka, in order, until SIGTERM; all relays share the work.

    What participants reply to remote steps is taken in too.

    Example: SAGA_KAFKA_BOOTSTRAP_SERVERS=localhost:9092 saga relay
    """

    def prepare() -> tuple[Settings, Catalogue]:
        settings = Settings()
        if kafka_settings(settings) is None:
            raise InvalidInputError(
                "no broker is configured: set SAGA_KAFKA_BOOTSTRAP_SERVERS=host:port"
            )
        return settings, Catalogue(())

    stay(prepare, partial(_publish, trust=go_on_from), metrics_port, metrics_host, as_json=json)


def consume(
    sagas: Sagas = None,
    group: Annotated[
        str | None,
        typer.Option(help="The consumer group.", show_default="SAGA_KAFKA_GROUP, else saga"),
    ] = None,
    metrics_port: Metrics = None,
    metrics_host: Host = None,
    json: Json = False,
) -> None:
    """Start and signal sagas from records of the topics that the modules declare, until SIGTERM.

    Example: SAGA_KAFKA_BOOTSTRAP_SERVERS=localhost:9092 saga consume --sagas my_project.sagas
    """

    def prepare() -> tuple[Settings, Catalogue]:
        settings = Settings()
        if kafka_settings(settings) is None:
            raise InvalidInputError(
                "no broker is configured: set SAGA_KAFKA_BOOTSTRAP_SERVERS=host:port"
            )
        found = catalogue(sagas, settings)
        if not found.inbound:
            raise NotFoundError(
                "these modules declare no topic; give one an on_event(...) or on_signal(...) of "
                "orchestrator.messaging at its top level, or an INBOUND tuple"
            )
        return settings, found

    async def serve(app: App, stop: asyncio.Event) -> None:
        await _consume(app, stop, group)

    stay(prepare, serve, metrics_port, metrics_host, as_json=json)


def up(
    sagas: Sagas = None,
    slots: Slots = None,
    metrics_port: Metrics = None,
    metrics_host: Host = None,
    json: Json = False,
) -> None:
    """Run all in this process: database (embedded, unless one is configured), worker, relay,
    and a consumer of the topics that the modules declare.

    Example: saga up
    """

    def prepare() -> tuple[Settings, Catalogue]:
        settings = _settings(slots)
        return settings, _with_sagas(catalogue(sagas, settings))

    async def serve(app: App, stop: asyncio.Event) -> None:
        flags = "".join(f" --sagas {shlex.quote(module)}" for module in sagas or [])
        name = app.catalogue.sagas[0].name
        log.info("from another terminal: saga start %s%s --input @input.json --wait", name, flags)
        parts = [_work(app, stop)]
        if app.relay() is None:
            log.info("no broker is configured: events stay in the database")
        else:
            parts.append(_publish(app, stop))
            if app.catalogue.inbound:
                parts.append(_consume(app, stop, None))
        await _together(*parts)

    stay(prepare, serve, metrics_port, metrics_host, as_json=json)


# ---------------------------------------------------------------------------- parts


def _settings(slots: int | None) -> Settings:
    settings = Settings()
    return settings if slots is None else settings.model_copy(update={"slots": slots})


def _with_sagas(found: Catalogue) -> Catalogue:
    if not found.sagas:
        raise NotFoundError("these modules only declare topics; name one that holds sagas, too")
    return found


async def _work(app: App, stop: asyncio.Event) -> None:
    names = ", ".join(f"{saga.name} v{saga.version}" for saga in app.catalogue.sagas)
    note = ", for trying and single machines" if app.database.embedded else ""
    log.info("works on %s%s: %s", app.database.shown, note, names)
    async with app.worker(watchdog=True) as running:
        await running.run(stop)
    if not stop.is_set():
        raise OrchestratorError("the worker gave up by itself; its log says why. Start it again")


async def _publish(app: App, stop: asyncio.Event, trust: Trust = Trust.NEITHER) -> None:
    running = app.relay(trust)
    if running is None:
        raise InvalidInputError("no broker is configured: set SAGA_KAFKA_BOOTSTRAP_SERVERS")
    log.info("publishes %s to %s", app.database.shown, app.settings.kafka_bootstrap_servers)
    await _together(running.run(stop), app.hear_replies(stop))


async def _consume(app: App, stop: asyncio.Event, group: str | None) -> None:
    async with app.consumer(group) as running:
        if running is None:
            raise InvalidInputError("no broker is configured: set SAGA_KAFKA_BOOTSTRAP_SERVERS")
        topics = ", ".join(dict.fromkeys(one.topic for one in app.catalogue.inbound))
        log.info("consumes %s into %s", topics, app.database.shown)
        await running.run(stop)


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """All of them; the first error ends the others and comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except ExceptionGroup as errors:
        first, *others = errors.exceptions
        if others:
            raise
        raise first from None
