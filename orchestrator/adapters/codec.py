"""Values ⇄ JSON text by pydantic, events ⇄ rows with payloads carried byte for byte."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from orchestrator.domain.events import EVENT_TYPES, Event, Failure, Json
from orchestrator.errors import (
    HistoryError,
    InvalidInputError,
    PayloadTooLargeError,
    UnrecordableError,
)
from orchestrator.ports import EventRow

PAYLOAD_LIMIT = 1024 * 1024
_PAYLOADS = frozenset({"input", "output"})
_COLUMNS = frozenset({"node", "attempt"})


class JsonCodec:
    """JSON only: nothing is pickled, and no class is ever looked up by a name in the data."""

    def __init__(self, limit: int = PAYLOAD_LIMIT) -> None:
        self._limit = limit

    def encode(self, value: Any, annotation: Any) -> Json:
        """JSON text of *value*, after it was read back once and gave the same text.

        Raises UnrecordableError for what JSON cannot hold, PayloadTooLargeError over the limit.
        """
        adapter = _adapter(annotation)
        try:
            written = adapter.dump_json(value, warnings="error")
            again = adapter.dump_json(adapter.validate_json(written), warnings="error")
        except (PydanticSerializationError, ValidationError, ValueError, RecursionError) as error:
            raise UnrecordableError(
                f"a {type(value).__name__} cannot be recorded as {_spell(annotation)}: "
                f"{_first_line(error)}; return what its annotation says, made of JSON values"
            ) from error
        if again != written or (b"null" in written and _loses_a_number(value)):
            raise UnrecordableError(
                f"a {type(value).__name__} changes when it is recorded as {_spell(annotation)} and "
                "read back; use types that JSON can hold (no NaN, no infinity, no keys but text)"
            )
        if len(written) > self._limit:
            raise PayloadTooLargeError(
                f"a payload of {len(written):,} bytes is over the limit of {self._limit:,}; "
                "keep large data elsewhere and record where it is"
            )
        return Json(written.decode())

    def decode(self, text: Json, annotation: Any) -> Any:
        """The value in *text*, validated. InvalidInputError lists what is wrong, field by field."""
        try:
            return _adapter(annotation).validate_json(text)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc'])) or 'input'}: {e['msg']}"
                for e in error.errors(include_url=False, include_context=False)
            ]
            raise InvalidInputError(
                f"not a valid {_spell(annotation)}: {'; '.join(problems)}", problems
            ) from error

    def encode_event(self, event: Event) -> tuple[str, str, int, str]:
        """type, node, attempt, data: the columns of a row, payloads embedded as they are."""
        shape = _SHAPES[type(event)]
        parts: list[str] = []
        for name, default, write in shape.fields:
            value = getattr(event, name)
            if value is not None and value != default:
                parts.append(f'"{name}":{write(value)}')
        node = event.node if shape.has_node else ""  # type: ignore[union-attr]  # told by the shape
        attempt = event.attempt if shape.has_attempt else 0  # type: ignore[union-attr]  # as above
        return type(event).__name__, node, attempt, f"{{{','.join(parts)}}}"

    def decode_event(self, row: EventRow) -> Event:
        """The fact in *row*. HistoryError for a type or a form that this code does not know."""
        kind = EVENT_TYPES.get(row.type)
        if kind is None:
            raise HistoryError(
                f"saga {row.saga_id}: event {row.version} is a {row.type!r}, which this version "
                "does not know; run a version that does"
            )
        shape = _SHAPES[kind]
        try:
            raw = msgspec.json.decode(row.data, type=dict[str, msgspec.Raw])
            given: dict[str, Any] = {
                name: read(bytes(raw[name])) for name, read in shape.readers if name in raw
            }
            if shape.has_node:
                given["node"] = row.node
            if shape.has_attempt:
                given["attempt"] = row.attempt
            return kind(**given)
        except (msgspec.MsgspecError, TypeError, ValueError, KeyError) as error:
            raise HistoryError(
                f"saga {row.saga_id}: event {row.version} ({row.type}) cannot be read: {error}"
            ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of event is written and read, worked out once."""

    fields: tuple[tuple[str, Any, Callable[[Any], str]], ...]
    readers: tuple[tuple[str, Callable[[bytes], Any]], ...]
    has_node: bool
    has_attempt: bool


def _shape(kind: type[Any]) -> _Shape:
    names = {f.name: f for f in dataclasses.fields(kind)}
    own = [f for name, f in names.items() if name not in _COLUMNS]
    return _Shape(
        tuple((f.name, f.default, _writer(f)) for f in own),
        tuple((f.name, _reader(f)) for f in own),
        "node" in names,
        "attempt" in names,
    )


def _writer(field: dataclasses.Field[Any]) -> Callable[[Any], str]:
    return str if field.name in _PAYLOADS else _dump


def _reader(field: dataclasses.Field[Any]) -> Callable[[bytes], Any]:
    if field.name in _PAYLOADS:
        return lambda raw: Json(raw.decode())
    annotation = str(field.type)
    if "datetime" in annotation:
        return lambda raw: msgspec.json.decode(raw, type=datetime)
    if "Failure" in annotation:
        return lambda raw: msgspec.json.decode(raw, type=Failure)
    if annotation.startswith("tuple"):
        return lambda raw: msgspec.json.decode(raw, type=tuple[str, ...])
    return msgspec.json.decode


def _dump(value: Any) -> str:
    if isinstance(value, str):
        # Text of a user's error may hold what UTF-8 cannot: it is escaped, never refused.
        return json.dumps(value)
    if isinstance(value, datetime):
        return f'"{value.astimezone(UTC).isoformat()}"'
    if isinstance(value, Failure):
        return json.dumps(_plain(value), separators=(",", ":"))
    if isinstance(value, Mapping):
        return json.dumps(dict(value), separators=(",", ":"))
    return json.dumps(value, separators=(",", ":"))


def _plain(failure: Failure) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": failure.type, "message": failure.message}
    if failure.kinds:
        plain["kinds"] = failure.kinds
    if failure.permanent:
        plain["permanent"] = True
    if failure.retry_after is not None:
        plain["retry_after"] = failure.retry_after
    if failure.causes:
        plain["causes"] = [_plain(cause) for cause in failure.causes]
    return plain


_SHAPES = {kind: _shape(kind) for kind in EVENT_TYPES.values()}


@lru_cache(maxsize=4096)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _loses_a_number(value: Any, depth: int = 0) -> bool:
    """Whether *value* holds a NaN or an infinity, which pydantic writes as null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if depth > 200:
        return False
    if isinstance(value, Mapping):
        return any(_loses_a_number(item, depth + 1) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(_loses_a_number(item, depth + 1) for item in value)
    if hasattr(value, "__dict__"):
        return any(_loses_a_number(item, depth + 1) for item in vars(value).values())
    return False


def _spell(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
