"""The command why: why an instance does not move, and what would help."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from orchestrator.faces.cli import render
from orchestrator.faces.cli.common import Json, SagaId, application, out, run, tell
from orchestrator.runtime.seen import Reason
from orchestrator.runtime.why import Why


def why(saga_id: SagaId, json: Json = False) -> None:
    """Say why an instance does not move: what it waits for, until when, and what would help.

    Example: saga why 0199c2e4
    """

    async def work() -> Why:
        async with application() as app:
            return await app.orchestrator.why(saga_id)

    found = run(work, as_json=json)
    if json:
        tell(_json(found))
    else:
        _show(found)


def _json(found: Why) -> dict[str, Any]:
    instance = found.instance
    return {
        "id": instance.saga_id,
        "saga": instance.name,
        "version": instance.version,
        "status": str(instance.status),
        "owner": instance.owner,
        "at": found.at,
        "reason": found.main.text,
        "reasons": [
            {
                "cause": str(reason.cause),
                "text": reason.text,
                "since": reason.since,
                "until": reason.until,
                "do": list(reason.do),
            }
            for reason in found.reasons
        ],
    }


def _show(found: Why) -> None:
    instance = found.instance
    main, *others = found.reasons
    out.print(Text(render.visible(main.text), style="bold"))
    for label, value in (
        ("since", _moment(main.since, found.at)),
        ("until", _moment(main.until, found.at)),
        ("saga", f"{instance.name} version {instance.version}, {instance.status}"),
        ("id", instance.saga_id),
        *(("also", f"{reason.text}{_times(reason, found.at)}") for reason in others),
    ):
        if value:
            out.print(Text(f"  {label:<7}", style="dim").append(render.visible(value), ""))
    commands = dict.fromkeys(command for reason in found.reasons for command in reason.do)
    if commands:
        out.print("\nwhat would help:")
        for command in commands:
            out.print(Text(f"  {render.visible(command)}"))


def _times(reason: Reason, now: datetime) -> str:
    told = [
        f"{word} {_moment(moment, now)}"
        for word, moment in (("since", reason.since), ("until", reason.until))
        if moment is not None
    ]
    return f" ({', '.join(told)})" if told else ""


def _moment(moment: datetime | None, now: datetime) -> str:
    """A time, and how far it is from now."""
    if moment is None:
        return ""
    seconds = int((moment - now).total_seconds())
    far = _span(abs(seconds))
    return (
        f"{render.when(moment.astimezone(UTC))} UTC, {f'in {far}' if seconds > 0 else f'{far} ago'}"
    )


def _span(seconds: int) -> str:
    for letter, unit in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
