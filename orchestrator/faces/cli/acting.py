"""Commands that change something: start, cancel."""

from __future__ import annotations

import asyncio
import getpass
import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from orchestrator.bootstrap import App
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import Json as JsonText
from orchestrator.domain.events import Status
from orchestrator.domain.saga import Saga
from orchestrator.errors import InvalidInputError
from orchestrator.faces.cli.common import Json, SagaId, Sagas, application, out, run, tell
from orchestrator.faces.cli.render import clean
from orchestrator.runtime.service import Handle, Order

BATCH = 500
FOR_EVER = -1.0


def start(
    name: Annotated[str, typer.Argument(help="The saga, by its name.")],
    input_: Annotated[str, typer.Option("--input", help="JSON, @file, or - for standard input.")],
    key: Annotated[
        str | None, typer.Option(help="Business key: the same key and input start once.")
    ] = None,
    key_field: Annotated[
        str | None, typer.Option(help="With JSON Lines: the field whose value is the key.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    within: Annotated[
        float | None, typer.Option(min=0, help="With --wait: at most so many seconds.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Not the newest version.")] = None,
    user: Annotated[str | None, typer.Option(help="Who asked for it.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="The trail it belongs to.")] = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Start a saga; JSON Lines start many, all checked before the first is stored.

    Example: saga start order-fulfilment --input @order.json --key order-17 --wait
    """
    context = WorkflowContext(user_id=user, correlation_id=correlation_id)

    async def work() -> bool:
        async with application(sagas, needed=True) as app:
            saga = app.orchestrator.find_saga(name, version)
            orders = _orders(app, saga, input_, key, key_field, context)
            if len(orders) == 1:
                return await _start_one(app, saga, orders[0], wait, within, json)
            return await _start_many(app, saga, orders, wait, within, json)

    if not run(work, as_json=json):
        raise typer.Exit(1)


def cancel(
    saga_id: SagaId,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    actor: Annotated[str | None, typer.Option(help="Who; your login name if left out.")] = None,
    json: Json = False,
) -> None:
    """Take an instance back: what runs settles, then everything done is undone.

    Example: saga cancel 0199c2e4 --reason "customer called"
    """

    async def work() -> str:
        async with application() as app:
            instance = await app.orchestrator.get(saga_id)
            await app.orchestrator.cancel(instance.saga_id, reason, actor=actor or _login())
            return instance.saga_id

    found = run(work, as_json=json)
    if json:
        tell({"id": found, "cancel": "accepted"})
    else:
        out.print(f"accepted; it will be compensated: saga watch {found}")


# ---------------------------------------------------------------------------- parts


def _orders(
    app: App,
    saga: Saga[Any, Any],
    given: str,
    key: str | None,
    key_field: str | None,
    context: WorkflowContext,
) -> list[Order[Any]]:
    texts = _texts(given)
    if key is not None and len(texts) > 1:
        raise InvalidInputError("--key names one instance; with several inputs say --key-field")
    orders = []
    for number, text in enumerate(texts, start=1):
        try:
            value = app.orchestrator.codec.decode(JsonText(text), saga.input_type)
            found = key if key_field is None else _key_in(text, key_field)
        except InvalidInputError as error:
            if len(texts) == 1:
                raise
            problems = error.problems or (str(error),)
            raise InvalidInputError(
                f"line {number} is not valid; nothing was stored", problems
            ) from error
        orders.append(Order(value, found, context))
    return orders


def _texts(given: str) -> list[str]:
    """The inputs: one JSON text, or one for each line of JSON Lines."""
    if given == "-":
        text = sys.stdin.read()
    elif given.startswith("@"):
        try:
            text = Path(given[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"--input {given}: {error}") from error
    else:
        return [given]
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InvalidInputError(f"--input {given}: there is nothing in it")
    if len(lines) > 1:
        try:
            jsonlib.loads(text)
        except ValueError:
            return lines
    return [text]


def _key_in(text: str, field: str) -> str:
    value = jsonlib.loads(text)
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, str | int):
        raise InvalidInputError(f"--key-field: there is no field {field!r} that can be a key")
    return str(found)


async def _start_one(
    app: App,
    saga: Saga[Any, Any],
    order: Order[Any],
    wait: bool,
    within: float | None,
    as_json: bool,
) -> bool:
    handle = await app.orchestrator.start(saga, order.input, key=order.key, context=order.context)
    if not wait:
        if as_json:
            tell({"id": handle.saga_id})
        else:
            out.print(handle.saga_id)
        return True
    status = await app.orchestrator.wait(handle.saga_id, within)
    result: Any = await app.orchestrator.result_of(handle.saga_id, status)
    if as_json:
        tell({"id": handle.saga_id, "status": str(status), "result": result})
    else:
        out.print(clean(jsonlib.dumps(result, ensure_ascii=False)))
    return True


async def _start_many(
    app: App,
    saga: Saga[Any, Any],
    orders: Sequence[Order[Any]],
    wait: bool,
    within: float | None,
    as_json: bool,
) -> bool:
    handles: list[Handle[Any]] = []
    with Progress(disable=as_json, transient=True) as progress:
        bar = progress.add_task("starting", total=len(orders))
        for first in range(0, len(orders), BATCH):
            handles += await app.orchestrator.start_many(saga, orders[first : first + BATCH])
            progress.update(bar, completed=len(handles))
        if not wait:
            ids = [handle.saga_id for handle in handles]
            tell({"started": len(ids), "ids": ids}) if as_json else out.print(f"{len(ids)} started")
            return True
        bar = progress.add_task("running", total=len(handles))
        counts: dict[str, int] = {}
        waits = [app.orchestrator.wait(handle.saga_id, within) for handle in handles]
        for ended in asyncio.as_completed(waits):
            try:
                status = str(await ended)
            except TimeoutError:
                status = "not ended"
            counts[status] = counts.get(status, 0) + 1
            progress.advance(bar)
    if as_json:
        tell({"started": len(handles), "ended": counts})
    else:
        out.print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    return set(counts) == {str(Status.COMPLETED)}


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
