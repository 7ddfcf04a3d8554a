"""What is published, as JSON Schemas: worked out from the events themselves.

A schema has a version of its own for each type of event. It is raised only when a reader that goes
by the older schema could be misled: see "Versions" in docs/kafka.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_type_hints

from orchestrator.domain.events import EVENT_TYPES, Event, Failure, Json, SagaRemoved, Status

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_VERSIONS: Mapping[str, int] = {}
"""Types of events whose schema is not at version 1 any more."""

STATE_TYPE = "saga.StateChanged"
STATE_ID = "urn:saga-orchestrator:state:StateChanged:1"

PUBLISHED: Mapping[str, type[Event | SagaRemoved]] = {**EVENT_TYPES, "SagaRemoved": SagaRemoved}
"""Every type of event that readers may see."""

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TIME: Schema = {"type": "string", "format": "date-time"}
_LINES: Schema = {"type": "array", "items": _TEXT}
_ANY_JSON: Schema = {"description": "JSON as the saga's author defined it."}
_FAILURE: Schema = {"$ref": "#/$defs/failure"}

_FORMS: tuple[tuple[Any, Schema], ...] = (
    (Json, _ANY_JSON),
    (Json | None, _ANY_JSON),
    (str, _TEXT),
    (bool, {"type": "boolean"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (float | None, {"type": "number"}),
    (datetime, _TIME),
    (datetime | None, _TIME),
    (tuple[str, ...], _LINES),
    (Mapping[str, object], {"type": "object"}),
    (Failure, _FAILURE),
    (Failure | None, _FAILURE),
    (tuple[Failure, ...], {"type": "array", "items": _FAILURE}),
)

_HEAD: Schema = {
    "saga_id": {**_TEXT, "description": "The instance; also the key of the record."},
    "saga": {**_TEXT, "description": "The name of its saga."},
    "saga_version": _COUNT,
    "version": {
        "type": "integer",
        "minimum": 1,
        "description": "Number of the event within its instance, without gaps.",
    },
}
_TAIL: Schema = {
    "correlation_id": _TEXT,
    "position": {**_COUNT, "description": "Place in the whole log; for diagnosis only."},
}
_META: Schema = {
    "type": "object",
    "properties": dict.fromkeys(
        ("correlation_id", "causation_id", "user_id", "traceparent"), _TEXT
    ),
}


def schema_id(type_: str) -> str:
    """The id of the schema of an event of this type, as `ce_dataschema` carries it."""
    return f"urn:saga-orchestrator:event:{type_}:{SCHEMA_VERSIONS.get(type_, 1)}"


def schema_file(id_: str) -> str:
    """The name of the file that holds the schema with this id."""
    *_, kind, version = id_.split(":")
    return f"{kind}.v{version}.json"


def all_schemas() -> dict[str, Schema]:
    """Every schema of this version of the package, by its id."""
    found = {schema_id(name): event_schema(kind) for name, kind in PUBLISHED.items()}
    return found | {STATE_ID: state_schema()}


def event_schema(kind: type[Event | SagaRemoved]) -> Schema:
    """The whole value of a record on the events topic; more properties may come."""
    hints, own = get_type_hints(kind), dataclasses.fields(kind)
    data = [field for field in own if field.name not in ("node", "attempt")]
    place = {"node": _TEXT, "attempt": _COUNT, "epoch": {"type": "integer", "minimum": 1}}
    properties = {
        **_HEAD, "type": {"const": kind.__name__}, **place, "recorded_at": _TIME, **_TAIL,
        "data": _object(hints, data), "meta": _META,
    }  # fmt: skip
    told = (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")
    return _closed(schema_id(kind.__name__), kind.__name__, told, properties, list(properties))


def state_schema() -> Schema:
    """The whole value of a record on the state topic; more properties may come."""
    shown = [status.value for status in Status if status is not Status.WAITING]
    optional_text = {"type": ["string", "null"]}
    always: Schema = {
        **_HEAD, "key": optional_text, "status": {"enum": shown}, "since": _TIME, **_TAIL,
        "parent": optional_text, "tags": {"type": "object", "additionalProperties": _TEXT},
    }  # fmt: skip
    why = {"output": _ANY_JSON, "reason": _TEXT, "step": _TEXT, "failure": _FAILURE}
    told = "Where an instance stands; `waiting` is `running` here."
    return _closed(STATE_ID, "StateChanged", told, always | why, list(always))


def _closed(id_: str, title: str, told: str, properties: Schema, required: list[str]) -> Schema:
    schema: Schema = {
        "$schema": DIALECT,
        "$id": id_,
        "title": title,
        "description": told,
        "type": "object",
        "properties": properties,
        "required": sorted(required),
    }
    if "#/$defs/failure" in str(properties):
        schema["$defs"] = {"failure": _failure()}
    return schema


def _failure() -> Schema:
    told = "Why an attempt did not succeed."
    return _object(get_type_hints(Failure), list(dataclasses.fields(Failure))) | {
        "description": told
    }


def _object(hints: Mapping[str, Any], fields: list[dataclasses.Field[Any]]) -> Schema:
    return {
        "type": "object",
        "properties": {field.name: _form(hints[field.name]) for field in fields},
        "required": sorted(field.name for field in fields if _is_always_there(field)),
    }


def _is_always_there(field: dataclasses.Field[Any]) -> bool:
    # What is empty is not written, where its absence means the same.
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _form(hint: Any) -> Schema:
    for known, schema in _FORMS:
        if hint == known:
            return schema
    raise TypeError(
        f"there is no JSON Schema for {hint!r}; add one to orchestrator/adapters/event_schemas.py"
    )
