"""How things look: columns, trees and JSON shapes, with nothing in a name that moves the cursor."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.markup import escape
from rich.text import Text

from orchestrator.domain.drawing import Line
from orchestrator.domain.events import Failure, Status
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
_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)))


def visible(text: str) -> str:
    """*text* with control, format and bidi characters spelled out."""
    return "".join(
        c
        if unicodedata.category(c) not in _UNSEEN
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def clean(text: str) -> str:
    """*text* for a place that reads markup: visible, and none of it markup."""
    return escape(visible(text))


def when(moment: datetime | None) -> str:
    """A time in UTC, to the millisecond."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def age(moment: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    passed = max(datetime.now(UTC) - moment, timedelta(0))
    for letter, unit in _UNITS:
        if passed >= unit:
            return f"{passed // unit}{letter}"
    return f"{passed.seconds}s"


def status(value: Status) -> Text:
    return Text(value, style=STYLES.get(value, ""))


def columns(header: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Text:
    """Rows under a header, each as wide as it is: nothing is cut or folded, so it can be copied."""
    cells = [[Text(name, style="dim") for name in header]]
    cells += [[c if isinstance(c, Text) else Text(visible(c)) for c in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len + 2))
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)


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
        "parent": instance.parent,
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
        "step": step_of(entry) or None,
        "node": entry.node,
        "attempt": row.attempt,
        "epoch": row.epoch,
        "recorded_at": row.recorded_at,
        "data": json.loads(row.data),
        "meta": json.loads(row.meta),
        "hash": row.hash.hex(),
    }


def instances(found: Iterable[Instance]) -> Text:
    """A line for each instance; ids can be copied whole."""
    return columns(
        ("id", "saga", "status", "age", "key"),
        [
            (i.saga_id, f"{i.name} v{i.version}", status(i.status), age(i.created_at), i.key or "")
            for i in found
        ],
    )


def step_of(entry: HistoryEntry) -> str:
    """The name of the step, or of the pure function, that an event is about."""
    return str(getattr(entry.event, "step", "") or getattr(entry.event, "name", ""))


def failure_of(entry: HistoryEntry) -> str:
    """What failed in an event, in a line; empty when nothing did."""
    failure: Failure | None = getattr(entry.event, "failure", None)
    return "" if failure is None else f"{failure.type}: {failure.message}"


def last_failure(entries: Sequence[HistoryEntry]) -> str:
    """What failed last, other than what was not begun because the saga turned round."""
    for entry in reversed(entries):
        failure = getattr(entry.event, "failure", None)
        if entry.node and failure is not None and failure.type != "Halted":
            return f"{step_of(entry)}: {failure_of(entry)}"
    return ""


def tree(lines: Iterable[Line]) -> Text:
    """An outline with a mark before each place where something happens."""
    drawn = []
    for line in lines:
        text = Text(f"{'  ' * line.depth}{line.mark or '-'} {visible(line.label)}")
        if line.notes:
            text.append(f"  ({visible(', '.join(line.notes))})", style="dim")
        drawn.append(text)
    return Text("\n").join(drawn)
