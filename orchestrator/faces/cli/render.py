"""How things look: tables, trees and JSON shapes, with nothing in a name that moves the cursor."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.domain.drawing import Line
from orchestrator.domain.events import Status
from orchestrator.ports import Instance
from orchestrator.runtime.service import HistoryEntry

STYLES = {
    Status.COMPLETED: "green",
    Status.COMPENSATED: "yellow",
    Status.STUCK: "bold red",
    Status.TERMINATED: "red",
    Status.COMPENSATING: "yellow",
}
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def clean(text: str) -> str:
    """*text* with control, format and bidi characters spelled out and no markup in it."""
    shown = "".join(
        c
        if unicodedata.category(c) not in _UNSEEN
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
    return escape(shown)


def when(moment: datetime | None) -> str:
    """A time in UTC, to the millisecond."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def status(value: Status) -> Text:
    return Text(value, style=STYLES.get(value, ""))


def instance_json(instance: Instance) -> dict[str, Any]:
    """The shape that `--json` prints for one instance."""
    return {
        "id": instance.saga_id,
        "saga": instance.name,
        "version": instance.version,
        "status": str(instance.status),
        "key": instance.key,
        "events": instance.head,
        "epoch": instance.epoch,
        "owner": instance.owner,
        "due_at": instance.due_at,
        "correlation_id": instance.correlation_id,
        "tags": dict(instance.tags),
        "created_at": instance.created_at,
        "updated_at": instance.updated_at,
    }


def entry_json(entry: HistoryEntry) -> dict[str, Any]:
    """The shape that `--json` prints for one event."""
    row = entry.row
    return {
        "seq": entry.seq,
        "type": entry.type,
        "node": entry.node,
        "attempt": row.attempt,
        "epoch": row.epoch,
        "recorded_at": row.recorded_at,
        "data": json.loads(row.data),
        "meta": json.loads(row.meta),
        "hash": row.hash.hex(),
    }


def instances(found: Iterable[Instance]) -> Table:
    """A table of instances, newest first; ids can be copied whole."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for name in ("saga", "status", "key", "events", "created (UTC)"):
        table.add_column(name, overflow="fold")
    for i in found:
        name = f"{clean(i.name)} v{i.version}"
        table.add_row(
            i.saga_id, name, status(i.status), clean(i.key or ""), str(i.head), when(i.created_at)
        )
    return table


def history(entries: Iterable[HistoryEntry]) -> Table:
    """A table of events in order."""
    table = Table(box=None, pad_edge=False)
    for name in ("seq", "recorded (UTC)", "event", "node", "attempt", "epoch"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail", overflow="fold", max_width=80)
    for e in entries:
        attempt = str(e.row.attempt) if e.row.attempt else ""
        table.add_row(
            str(e.seq), when(e.at), e.type, clean(e.node), attempt, str(e.row.epoch), detail(e)
        )
    return table


def detail(entry: HistoryEntry) -> str:
    """What is worth reading of an event at one glance."""
    event = entry.event
    failure = getattr(event, "failure", None)
    due_at = getattr(event, "due_at", None)
    parts = [
        str(getattr(event, "step", "") or getattr(event, "name", "")),
        str(getattr(event, "reason", "")),
        f"{failure.type}: {failure.message}" if failure is not None else "",
        str(getattr(event, "output", "")),
        str(getattr(event, "input", "")),
        f"due {when(due_at)}" if due_at is not None else "",
    ]
    text = "  ".join(part for part in parts if part)
    return clean(text if len(text) <= 200 else f"{text[:199]}…")


def tree(lines: Iterable[Line]) -> str:
    """An outline with a mark before each leaf."""
    return "\n".join(f"{'  ' * ln.depth}{ln.mark or '-'} {clean(ln.label)}" for ln in lines)
