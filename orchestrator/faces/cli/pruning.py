"""The command that removes what ended long ago: prune."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestrator.bootstrap import prune as remove
from orchestrator.bootstrap import removable
from orchestrator.errors import InvalidInputError
from orchestrator.faces.cli.common import Json, out, progress, run, tell
from orchestrator.faces.cli.render import clean
from orchestrator.ports import RelayStanding, Removable, Removed
from orchestrator.settings import Settings


def prune(
    before: Annotated[
        str, typer.Option(help="Those that ended before: 2026-01-31, an ISO time, or an age, 90d.")
    ],
    name: Annotated[str | None, typer.Option(help="Of this saga only.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove them; without it they are only counted.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove instances that ended before a day, with their events. Only counts without --yes.

    What is not published yet stays, and so does a child whose parent stays. Readers of Kafka hear of
    each removal.

    Example: saga prune --before 90d
    """

    async def work() -> None:
        settings, until = Settings(), _moment(before)
        found = await removable(settings, until, name)
        if not yes:
            _tell_found(found, until, as_json=json)
            return
        with progress(as_json=json) as bars:
            bar = bars.add_task("removing", total=found.sagas)
            done = await remove(settings, until, name, lambda n: bars.update(bar, completed=n))
        _tell_removed(done, found, as_json=json)

    run(work, as_json=json)


def _tell_found(found: Removable, until: datetime, *, as_json: bool) -> None:
    if as_json:
        tell(_numbers(found) | {"removed": False})
        return
    out.print(f"{found.sagas} instances with {found.events} events ended before {until:%F %R} UTC")
    _tell_kept(found)
    out.print("nothing was removed; to remove them add --yes")


def _tell_removed(done: Removed, found: Removable, *, as_json: bool) -> None:
    if as_json:
        there = {"sagas": done.sagas, "events": done.events, "months": list(done.months)}
        tell(there | {"removed": True, "stayed": found.sagas - done.sagas})
        return
    out.print(f"removed {done.sagas} instances with {done.events} events")
    if done.months:
        out.print(clean(f"dropped {', '.join(done.months)}"))
    if found.sagas > done.sagas:
        _tell_kept(found)


def _tell_kept(found: Removable) -> None:
    if found.unpublished:
        out.print(f"{found.unpublished} of them stay: a relay has not published them yet")
        if found.behind is not None:
            out.print(clean(_advice(found.behind)), highlight=False, soft_wrap=True)
    if found.held:
        out.print(f"{found.held} of them stay: they are children of instances that stay")


def _advice(behind: RelayStanding) -> str:
    """Which checkpoint keeps them, and what to do about it."""
    at = f"the checkpoint {behind.relay!r} is the last one, at position {behind.position}"
    if behind.owner is not None:
        return (
            f"{at}; a relay moves it now: try again later, and see `saga doctor` if it stays there"
        )
    since = f", since {behind.lease_until:%F %R} UTC" if behind.lease_until is not None else ""
    name, slash, _ = behind.relay.rpartition("/")
    rows = f"starts_with(relay, '{name}/')" if slash else f"relay = '{behind.relay}'"
    cure = f"DELETE FROM relay_cursor WHERE {rows}"  # noqa: S608 - to be read, not to be run here
    return (
        f"{at}, and no relay runs that moves it{since}: start `saga relay`; where none of that name "
        f"will ever run again, take it out with {cure}"
    )


def _numbers(found: Removable) -> dict[str, object]:
    behind = found.behind
    return {
        "sagas": found.sagas,
        "events": found.events,
        "unpublished": found.unpublished,
        "held": found.held,
        "behind": None if behind is None else {"relay": behind.relay, "position": behind.position},
    }


def _moment(text: str) -> datetime:
    """A moment that has passed."""
    now = datetime.now(UTC)
    try:
        if found := re.fullmatch(r"([0-9]+)([hd])", text):
            units = {"h": "hours", "d": "days"}
            return now - timedelta(**{units[found[2]]: int(found[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"--before {text!r}: write a day (2026-01-31), an ISO time, or an age (90d, 12h)"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now:
        raise InvalidInputError(f"--before {text!r} is in the future; nothing has ended there yet")
    return moment
