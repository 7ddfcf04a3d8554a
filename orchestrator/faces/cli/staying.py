"""What the commands that stay share: signals, logs, and patience with a database that is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from orchestrator.bootstrap import App, observe, open_app, spare_the_collector
from orchestrator.catalogue import Catalogue
from orchestrator.errors import SchemaError, UnavailableError
from orchestrator.faces.cli.common import INTERRUPTED, fail
from orchestrator.ports import Telemetry
from orchestrator.settings import Settings

log = logging.getLogger("saga")

Serve = Callable[[App, asyncio.Event], Awaitable[None]]
Prepare = Callable[[], tuple[Settings, Catalogue]]


def stay(
    prepare: Prepare,
    serve: Serve,
    metrics_port: int | None,
    metrics_host: str | None,
    *,
    as_json: bool,
) -> None:
    """Serve until a signal says stop; wait for a database that is away."""

    async def main(settings: Settings, found: Catalogue, telemetry: Telemetry) -> None:
        stop = asyncio.Event()
        _heed_signals(stop)
        await _keep_serving(settings, found, serve, telemetry, stop)

    try:
        settings, found = prepare()
        _log_to_stderr(as_json=as_json)
        spare_the_collector()
        with (
            observe(metrics_port, metrics_host or settings.metrics_host) as telemetry,
            asyncio.Runner(loop_factory=_loop_factory()) as runner,
        ):
            runner.run(main(settings, found, telemetry))
    except Exception as error:  # noqa: BLE001 - sorted by the table of exit codes
        fail(error, as_json=as_json)


async def _keep_serving(
    settings: Settings, found: Catalogue, serve: Serve, telemetry: Telemetry, stop: asyncio.Event
) -> None:
    wait, told = 0.5, ""
    while not stop.is_set():
        try:
            async with open_app(settings, found, telemetry=telemetry) as app:
                if told:
                    log.info("the database is back")
                    wait, told = 0.5, ""
                await serve(app, stop)
                return
        except SchemaError:
            raise
        except (UnavailableError, OSError) as error:
            if settings.database_url is None:
                raise
            if str(error) != told:
                told = str(error)
                log.warning("waits for the database: %s", told)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 5.0)


def _heed_signals(stop: asyncio.Event) -> None:
    """The first signal drains, the second ends at once."""
    loop = asyncio.get_running_loop()

    def heed() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
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
        return json.dumps(told)


def _log_to_stderr(*, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(_JsonLines() if as_json else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("aiokafka", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
