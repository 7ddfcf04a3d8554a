"""Commands for a person who is needed: signal, terminate, resume, retry, skip, resolve."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from orchestrator.bootstrap import App
from orchestrator.domain import events as ev
from orchestrator.domain.events import Json as JsonText
from orchestrator.errors import ConflictError, InvalidInputError
from orchestrator.faces.cli.acting import login
from orchestrator.faces.cli.common import (
    Json,
    SagaId,
    Sagas,
    application,
    catalogue,
    out,
    run,
    tell,
)
from orchestrator.faces.cli.inputs import text_in
from orchestrator.settings import Settings

ANSWER_WITHIN = 3.0
"""Seconds to wait for the owner's answer before saying that there is none yet."""

Actor = Annotated[str | None, typer.Option(help="Who asks; the account, if not given.")]
Reason = Annotated[str, typer.Option(help="Why; the history keeps it.")]
StepName = Annotated[str, typer.Argument(metavar="[STEP]", help="By name, or by its place.")]
Payload = Annotated[str | None, typer.Option(metavar="JSON|@FILE|-", help="Use this value.")]

_ANSWERS: dict[str, tuple[type[ev.Event], ...]] = {
    "signal": (ev.SignalReceived, ev.SignalRejected),
    "terminate": (ev.SagaTerminated,),
    "resume": (ev.SagaResumed, ev.ActionRefused),
    "retry": (ev.StepRetried, ev.SagaResumed, ev.ActionRefused),
    "skip": (ev.CompensationSkipped, ev.ActionRefused),
    "resolve": (ev.StepResolved, ev.ActionRefused),
}


def signal(
    saga_id: SagaId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal, by its name.")],
    payload: Annotated[str, typer.Argument(metavar="JSON|@FILE|-", help="What it carries.")],
    dedupe_key: Annotated[
        str | None, typer.Option(help="Sent again with the same key, it counts once.")
    ] = None,
    actor: Actor = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Send a signal to an instance; it may come before the instance waits for it.

    Example: saga signal 0199c2e4 verdict '{"approved": true, "by": "ann"}'
    """
    value = _value(payload)

    async def act(app: App, found: str) -> bool:
        return await app.orchestrator.signal(
            found, name, value, dedupe_key=dedupe_key, actor=actor or login()
        )

    _tell_owner("signal", saga_id, act, sagas, as_json=json)


def terminate(
    saga_id: SagaId, reason: Reason, actor: Actor = None, sagas: Sagas = None, json: Json = False
) -> None:
    """End an instance and its children where they stand; nothing is undone.

    Example: saga terminate 0199c2e4 --reason "settled by hand, ticket 4711"
    """

    async def act(app: App, found: str) -> None:
        await app.orchestrator.terminate(found, reason, actor=actor or login())

    _tell_owner("terminate", saga_id, act, sagas, as_json=json)


def resume(
    saga_id: SagaId,
    reason: Reason = "",
    actor: Actor = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Let a stuck instance go on where it stood, once what was in its way is mended.

    Example: saga resume 0199c2e4 --reason "old version is deployed again"
    """

    async def act(app: App, found: str) -> None:
        await app.orchestrator.resume(found, reason, actor=actor or login())

    _tell_owner("resume", saga_id, act, sagas, as_json=json)


def retry(
    saga_id: SagaId,
    step: StepName = "",
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="Use this input.")
    ] = None,
    output: Payload = None,
    reason: Reason = "",
    actor: Actor = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Try the stuck step, or its compensation, again; on other values if given.

    Example: saga retry 0199c2e4 give_back --output '{"payment_id": "p-2"}' --reason "moved"
    """
    given = _text(input_), _text(output)

    async def act(app: App, found: str) -> None:
        await app.orchestrator.retry_step(
            found, step, input=given[0], output=given[1], reason=reason, actor=actor or login()
        )

    _tell_owner("retry", saga_id, act, sagas, as_json=json)


def skip(
    saga_id: SagaId,
    reason: Reason,
    step: StepName = "",
    actor: Actor = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Take the undo of a step on yourself: its compensation is not called any more.

    Example: saga skip 0199c2e4 give_back --reason "refunded by hand, ticket 4711"
    """

    async def act(app: App, found: str) -> None:
        await app.orchestrator.skip_compensation(found, step, reason=reason, actor=actor or login())

    _tell_owner("skip", saga_id, act, sagas, as_json=json)


def resolve(
    saga_id: SagaId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="By name, or by its place.")],
    happened: Annotated[
        bool | None, typer.Option("--happened/--not-happened", help="What you found out.")
    ] = None,
    output: Payload = None,
    reason: Reason = "",
    actor: Actor = None,
    sagas: Sagas = None,
    json: Json = False,
) -> None:
    """Say whether a step in doubt happened; with its output, if the saga needs that to go on.

    Example: saga resolve 0199c2e4 take_payment --happened --output '{"payment_id": "p-1"}'
    """
    if happened is None:
        raise InvalidInputError("say --happened or --not-happened")
    text = _text(output)

    async def act(app: App, found: str) -> None:
        await app.orchestrator.resolve(
            found, step, happened=happened, output=text, reason=reason, actor=actor or login()
        )

    _tell_owner("resolve", saga_id, act, sagas, as_json=json)


# ---------------------------------------------------------------------------- parts


def _tell_owner(
    kind: str,
    saga_id: str,
    act: Callable[[App, str], Awaitable[bool | None]],
    sagas: list[str] | None,
    *,
    as_json: bool,
) -> None:
    """Send a message, and report what the owner of the instance made of it."""

    async def work() -> tuple[str, str]:
        async with application(catalogue(sagas, Settings())) as app:
            instance = await app.orchestrator.get(saga_id)
            if await act(app, instance.saga_id) is False:
                return instance.saga_id, "known already: it counts once"
            answer = await _answer(app, instance.saga_id, instance.head, kind)
        return instance.saga_id, answer

    found, answer = run(work, as_json=as_json)
    if as_json:
        tell({"id": found, kind: answer})
    else:
        out.print(f"{answer}; see: saga show {found}", highlight=False)


async def _answer(app: App, saga_id: str, head: int, kind: str) -> str:
    """What the owner recorded. ConflictError when it was refused."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ANSWER_WITHIN
    while loop.time() < deadline:
        for row in await app.store.events.read(saga_id, head):
            event: Any = app.orchestrator.entry(row).event
            if isinstance(event, _ANSWERS[kind]):
                if isinstance(event, ev.ActionRefused | ev.SignalRejected):
                    raise ConflictError(f"{kind} was refused: {event.problem}")
                return f"done, recorded as event {row.version}"
        await asyncio.sleep(0.05)
    return "accepted; no worker has taken it up yet"


def _value(given: str) -> Any:
    try:
        return jsonlib.loads(text_in(given))
    except ValueError as error:
        raise InvalidInputError(f"not valid JSON: {error}") from error


def _text(given: str | None) -> JsonText | None:
    """The value as canonical JSON text, or None when none was given."""
    if given is None:
        return None
    return JsonText(jsonlib.dumps(_value(given), ensure_ascii=False, separators=(",", ":")))
