"""One run of the demo, from an empty shop to a report."""

from __future__ import annotations

import asyncio
import importlib
import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from pydantic import ValidationError

from orchestrator.bootstrap import App, migrate_database, open_app
from orchestrator.catalogue import Catalogue
from orchestrator.domain.saga import Saga
from orchestrator.errors import InvalidInputError
from orchestrator.faces.demo.audit import audit
from orchestrator.faces.demo.picture import draw
from orchestrator.faces.demo.relayed import Published, relaying
from orchestrator.faces.demo.report import Relayed, Report
from orchestrator.faces.demo.shop import OPEN, Shop, Watcher
from orchestrator.faces.demo.workers import Workers
from orchestrator.ports import Filter
from orchestrator.settings import Settings

MODULE = "sagas"
TAG = "demo"


@dataclass(frozen=True, slots=True)
class Script:
    """What was asked for on the command line. `orders` None: those that come with the package."""

    orders: Path | None
    fresh: bool
    seed: int


async def play(script: Script, watcher: Watcher) -> Report:
    """Run the demo."""
    # Only here is a saga's code needed: every other command works without it.
    ready = importlib.import_module(MODULE)
    saga = ready.order_fulfilment.saga
    dice = Random(script.seed)
    orders, expected = _read_orders(script.orders, saga.input_type)
    dice.shuffle(orders)
    published, settings = Published(), Settings()
    if settings.database_url is not None:
        await migrate_database(settings)
    async with (
        open_app(settings, Catalogue(ready.SAGAS), telemetry=published) as app,
        importlib.import_module("sagas.resources").open_pool(app.database.dsn) as pool,
        relaying(app, published) as finish,
    ):
        watcher.say(f"Database: {app.database.shown}")
        with Workers(app, MODULE) as workers:
            run = await _open_shop(app, saga.name, pool, script, workers, watcher)
            shop = Shop(app, saga, orders, run, workers, dice, watcher)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await shop.trade()
            took = loop.time() - began
        findings = await audit(app, shop, pool, expected)
        return Report(
            run=run,
            seed=script.seed,
            database=app.database.shown,
            seconds=took,
            statuses=Counter(shop.statuses.values()),
            reasons=findings.reasons,
            takeover=shop.takeover,
            events=findings.events,
            example=findings.example,
            picture=await _drawn(app, saga, findings.example),
            relayed=(relayed := await finish()),
            problems=findings.problems + _late(relayed),
        )


async def _open_shop(
    app: App, name: str, pool: Any, script: Script, workers: Workers, watcher: Watcher
) -> str:
    """Two workers, full shelves, and the name of the run, which begins all its keys."""
    await importlib.import_module("sagas.participants.install").install(pool)
    pids = ", ".join(
        f"{worker.name} is pid {worker.pid}" for worker in (workers.hire(), workers.hire())
    )
    watcher.say(f"Two workers, each a process of its own: {pids}")
    seed = importlib.import_module("sagas.participants.seed").seed
    if not script.fresh and (last := await _last_run(app, name)) is not None:
        watcher.say(f"Going on with run {last}: the same keys, so nothing happens twice.")
        await seed(pool)
        return last
    await _end_open_orders(app, name, watcher)
    await seed(pool, reset=script.fresh)
    return f"demo-{secrets.token_hex(3)}"


async def _last_run(app: App, name: str) -> str | None:
    found = await app.orchestrator.search(Filter(name=name, limit=1000))
    return next((i.tags[TAG] for i in found if TAG in i.tags), None)


async def _end_open_orders(app: App, name: str, watcher: Watcher) -> None:
    """See orders of an interrupted run to their end: they would draw on the new run's shelves."""
    found = [
        instance.saga_id
        for status in OPEN
        for instance in await app.orchestrator.search(
            Filter(status=status, name=name, limit=10_000)
        )
    ]
    if not found:
        return
    watcher.say(
        f"{len(found)} orders of an earlier run are still open: the workers end them first."
    )
    await asyncio.gather(*(app.orchestrator.wait(saga_id, within=60) for saga_id in found))


def _read_orders(path: Path | None, type_: Any) -> tuple[list[Any], Mapping[str, str] | None]:
    """The orders, and for those of the package why each refused one is refused."""
    if path is None:
        data = files("sagas.data")
        expected = json.loads(data.joinpath("expected.json").read_text("utf-8"))
        lines = data.joinpath("orders.jsonl").read_text("utf-8").splitlines()
        return _checked("the packaged orders", lines, type_), expected["refused"]
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"the orders cannot be read: {error}") from error
    return _checked(str(path), lines, type_), None


def _checked(source: str, lines: Sequence[str], type_: Any) -> list[Any]:
    orders: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            order = type_.model_validate_json(line)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()
            ]
            raise InvalidInputError(
                f"line {number} of {source} is not an order", problems
            ) from error
        if orders.setdefault(order.order_id, order) is not order:
            raise InvalidInputError(f"line {number} of {source} repeats order {order.order_id}")
    if not orders:
        raise InvalidInputError(f"there is no order in {source}")
    return list(orders.values())


async def _drawn(app: App, saga: Saga[Any, Any], saga_id: str | None) -> tuple[str, ...]:
    return () if saga_id is None else await draw(app, saga, saga_id)


def _late(relayed: Relayed | None) -> tuple[str, ...]:
    if relayed is None or not relayed.lag:
        return ()
    return (f"{relayed.lag} events have not reached {relayed.broker} yet",)
