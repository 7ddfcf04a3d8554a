"""Events ⇄ the columns of their rows; payloads pass through byte for byte."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any, cast, get_type_hints

import msgspec

from orchestrator.domain.events import EVENT_TYPES, Event, Failure, Json
from orchestrator.errors import HistoryError
from orchestrator.ports import EventRow

_PAYLOADS = (Json, Json | None)
_COLUMNS = frozenset({"node", "attempt"})
_HALF_PAIRS = re.compile("[\ud800-\udfff]")
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

Write = Callable[[Any], str]


def write_event(event: Event) -> tuple[str, str, int, str]:
    """type, node, attempt and data of the row; what is empty or missing is left out of data."""
    shape = _SHAPES[type(event)]
    parts = [
        f"{key}{write(value)}"
        for key, get, write, blank in shape.fields
        if (value := get(event)) is not None and value != blank
    ]
    data = f"{{{','.join(parts)}}}"
    if not data.isascii():
        # Text of a user's error may hold what UTF-8 cannot: it is spelled out, never refused.
        data = _HALF_PAIRS.sub(lambda half: f"\\\\u{ord(half[0]):04x}", data)
    return shape.name, shape.node(event), shape.attempt(event), data


def read_event(row: EventRow) -> Event:
    """The fact in *row*. HistoryError for a type or a form that this code does not know."""
    kind = EVENT_TYPES.get(row.type)
    if kind is None:
        raise HistoryError(
            f"saga {row.saga_id}: event {row.version} is a {row.type!r}, which this version of "
            "the orchestrator does not know; run a version that does"
        )
    shape = _SHAPES[kind]
    try:
        given: dict[str, Any] = msgspec.structs.asdict(shape.decoder.decode(row.data))
        for name in shape.payloads:
            text = str(given[name], "utf-8")
            # An optional payload that is not there was left out; null is a value like any other.
            given[name] = Json(text) if text else None
    except (msgspec.MsgspecError, ValueError) as error:
        raise HistoryError(
            f"saga {row.saga_id}: event {row.version} ({row.type}) cannot be read: {error}"
        ) from error
    if shape.has_node:
        given["node"] = row.node
    if shape.has_attempt:
        given["attempt"] = row.attempt
    return kind(**given)


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of event is written and read, worked out once."""

    name: str
    fields: tuple[tuple[str, Callable[[Any], Any], Write, object], ...]
    node: Callable[[Any], str]
    attempt: Callable[[Any], int]
    has_node: bool
    has_attempt: bool
    payloads: tuple[str, ...]
    decoder: msgspec.json.Decoder[msgspec.Struct]


def _shape(kind: type[Event]) -> _Shape:
    hints = get_type_hints(kind)
    own = [f for f in dataclasses.fields(kind) if f.name not in _COLUMNS]
    columns = hints.keys() & _COLUMNS
    # Raw hands out the very bytes that stand in the text.
    form = msgspec.defstruct(kind.__name__, [_column(f, hints[f.name]) for f in own])
    return _Shape(
        kind.__name__,
        tuple((f'"{f.name}":', attrgetter(f.name), _writer(hints[f.name]), _blank(f)) for f in own),
        attrgetter("node") if "node" in columns else _no_node,
        attrgetter("attempt") if "attempt" in columns else _no_attempt,
        "node" in columns,
        "attempt" in columns,
        tuple(f.name for f in own if hints[f.name] in _PAYLOADS),
        msgspec.json.Decoder(form),
    )


def _no_node(event: object) -> str:
    return ""


def _no_attempt(event: object) -> int:
    return 0


def _blank(field: dataclasses.Field[Any]) -> object:
    """The value that need not be written, because it is what its absence means."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _column(field: dataclasses.Field[Any], hint: Any) -> Any:
    if hint is Json:
        return field.name, msgspec.Raw
    if hint == Json | None:
        return field.name, msgspec.Raw, msgspec.Raw(b"")
    if hint == Mapping[str, object]:
        hint = dict[str, Any]
    if field.default_factory is not dataclasses.MISSING:
        return field.name, hint, msgspec.field(default_factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        return field.name, hint, field.default
    return field.name, hint


def _writer(hint: Any) -> Write:
    if hint in _PAYLOADS:
        return str
    if hint == datetime | None:
        hint = datetime
    if hint is str:
        return cast("Write", encode_basestring)
    if hint is datetime:
        return lambda when: f'"{when.astimezone(UTC).isoformat()}"'
    if hint in (Failure, Failure | None):
        return lambda failure: _dumps(_failure(failure))
    if hint == Mapping[str, object]:
        return lambda names: _dumps(dict(names))
    return _dumps


def _failure(failure: Failure) -> dict[str, Any]:
    """Only what is set: most failures are a type, a message and their kinds."""
    given: dict[str, Any] = {"type": failure.type, "message": failure.message}
    if failure.kinds:
        given["kinds"] = failure.kinds
    if failure.permanent:
        given["permanent"] = True
    if failure.retry_after is not None:
        given["retry_after"] = failure.retry_after
    if failure.causes:
        given["causes"] = [_failure(cause) for cause in failure.causes]
    return given


_SHAPES = {kind: _shape(kind) for kind in EVENT_TYPES.values()}
