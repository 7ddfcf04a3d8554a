"""Commands that change something: start, cancel."""

from __future__ import annotations

import asyncio
import getpass
import json as jsonlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from orchestrator.bootstrap import App
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import Json as JsonText
from orchestrator.domain.events import Status
from orchestrator.domain.saga import Saga
from orchestrator.errors import InvalidInputError, SagaFailedError
from orchestrator.faces.cli.common import (
    Json,
    SagaId,
    Sagas,
    application,
    catalogue,
    err,
    out,
    progress,
    run,
    tell,
)
from orchestrator.faces.cli.inputs import key_in, orders
from orchestrator.faces.cli.render import clean
from orchestrator.runtime.service import Order
from orchestrator.settings import Settings

BATCH = 500
PATIENCE = 3.0


def start(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga, by its name.")],
    input_: Annotated[
        str,
        typer.Option(
            "--input", metavar="JSON|@FILE|-", help="JSON, a file, or - for standard input."
        ),
    ],
    key: Annotated[
        str | None, typer.Option(help="Business key: the same key and input start once.")
    ] = None,
    key_field: Annotated[
        str | None, typer.Option(help="The field of the input whose value is the key.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    within: Annotated[
        float | None, typer.Option(min=0, help="Wait for at most so many seconds.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="This version, not the newest.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who asked for it.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="The trail it belongs to.")] = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Start a saga; JSON Lines start many, all checked before the first is stored.

    Prints the id; with --wait the result, and exits 1 when the saga did not complete.

    Example: saga start order-fulfilment --input @order.json --key order-17 --wait
    """
    context = WorkflowContext(user_id=user, correlation_id=correlation_id)
    waits = wait or within is not None

    async def work() -> bool:
        async with application(catalogue(sagas, Settings())) as app:
            saga = app.orchestrator.find_saga(name, version)

            def read(text: str) -> Order[Any]:
                value = app.orchestrator.codec.decode(JsonText(text), saga.input_type)
                found = key if key_field is None else key_in(text, key_field)
                return Order(value, found, context)

            found, many = orders(input_, read)
            if key is not None and many:
                raise InvalidInputError("--key names one instance; with JSON Lines: --key-field")
            if many:
                return await _start_many(app, saga, found, waits, within, json)
            await _start_one(app, saga, found[0], waits, within, json)
            return True

    if not run(work, as_json=json):
        raise typer.Exit(1)


def cancel(
    saga_id: SagaId,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    actor: Annotated[
        str | None, typer.Option(help="Who; it is recorded.", show_default="your login name")
    ] = None,
    json: Json = False,
) -> None:
    """Take an instance back: what runs settles, then everything done is undone.

    Example: saga cancel 0199c2e4 --reason "customer called"
    """

    async def work() -> str:
        async with application() as app:
            instance = await app.orchestrator.get(saga_id)
            await app.orchestrator.cancel(instance.saga_id, reason, actor=actor or login())
            return instance.saga_id

    found = run(work, as_json=json)
    if json:
        tell({"id": found, "cancel": "accepted"})
    else:
        out.print(f"accepted; watch it being undone: saga watch {found}")


# ---------------------------------------------------------------------------- parts


async def _start_one(
    app: App,
    saga: Saga[Any, Any],
    order: Order[Any],
    waits: bool,
    within: float | None,
    as_json: bool,
) -> None:
    handle = await app.orchestrator.start(saga, order.input, key=order.key, context=order.context)
    if not waits:
        tell({"id": handle.saga_id}) if as_json else out.print(handle.saga_id)
        return
    if not as_json:
        err.print(f"[dim]started {handle.saga_id}[/dim]")
    result: Any = None
    status = None
    try:
        status = await _end(app, handle.saga_id, within, as_json=as_json)
        result = await app.orchestrator.result_of(handle.saga_id, status)
    except (SagaFailedError, TimeoutError):
        if as_json:
            status = status or (await handle.status())
            tell({"id": handle.saga_id, "status": str(status), "result": None})
        raise
    if as_json:
        tell({"id": handle.saga_id, "status": str(status), "result": result})
    else:
        out.print(clean(jsonlib.dumps(result, ensure_ascii=False)))


async def _end(app: App, saga_id: str, within: float | None, *, as_json: bool) -> Status:
    """How it ended; says so when nobody seems to work on it."""
    waiting = asyncio.ensure_future(app.orchestrator.wait(saga_id, within))
    try:
        await asyncio.wait({waiting}, timeout=PATIENCE)
        if not (as_json or waiting.done()):
            status = (await app.orchestrator.get(saga_id)).status
            if status is Status.PENDING:
                err.print("no worker has taken it up yet; is one running that has it? saga worker")
        return await waiting
    finally:
        waiting.cancel()


async def _start_many(
    app: App,
    saga: Saga[Any, Any],
    found: Sequence[Order[Any]],
    waits: bool,
    within: float | None,
    as_json: bool,
) -> bool:
    ids: list[str] = []
    with progress(as_json=as_json) as bars:
        bar = bars.add_task("starting", total=len(found))
        for first in range(0, len(found), BATCH):
            handles = await app.orchestrator.start_many(saga, found[first : first + BATCH])
            ids += [handle.saga_id for handle in handles]
            bars.update(bar, completed=len(ids))
    if not waits:
        tell({"started": len(ids), "ids": ids}) if as_json else out.print("\n".join(ids))
        return True
    counts = await _ends(app, ids, within, as_json=as_json)
    if as_json:
        tell({"started": len(ids), "ids": ids, "ended": counts})
    else:
        out.print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    return set(counts) == {str(Status.COMPLETED)}


async def _ends(
    app: App, ids: Sequence[str], within: float | None, *, as_json: bool
) -> dict[str, int]:
    """How many ended how."""
    counts: dict[str, int] = {}
    with progress(as_json=as_json) as bars:
        bar = bars.add_task("running", total=len(ids))
        for ended in asyncio.as_completed([app.orchestrator.wait(one, within) for one in ids]):
            try:
                status = str(await ended)
            except TimeoutError:
                status = "not ended"
            counts[status] = counts.get(status, 0) + 1
            bars.advance(bar)
    return counts


def login() -> str:
    """The account that types this."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
