"""A record as it is meant: who it is, what it says, and what it belongs to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import Json
from orchestrator.errors import RejectedRecordError
from orchestrator.ports import Record

ID_LIMIT = 400
"""Characters of a record's id; longer ones are replaced by their hash."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """`id` is the same whenever this record comes, and no other record's. `text` is its JSON."""

    id: str
    headers: Mapping[str, str]
    text: Json
    context: WorkflowContext


def headers_of(record: Record) -> dict[str, str]:
    """The headers as text, the last of each name; with the attributes of a structured CloudEvent."""
    headers = _plain(record)
    return headers | _structured(_text(record))[0] if _is_structured(headers) else headers


def arrival_of(record: Record) -> Arrival:
    """What *record* says. Raises RejectedRecordError when it cannot be read."""
    headers, text = _plain(record), _text(record)
    if _is_structured(headers):
        attributes, text = _structured(text)
        headers |= attributes
    record_id = _id(record, headers)
    return Arrival(record_id, headers, text, _context(headers, record_id))


def _plain(record: Record) -> dict[str, str]:
    # Bytes that are no text stay apart from each other: ids are made of them.
    return {name: value.decode("utf-8", "backslashreplace") for name, value in record.headers}


def _is_structured(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith("application/cloudevents")


def _text(record: Record) -> Json:
    if record.value is None:
        raise RejectedRecordError("the record has no value")
    try:
        return Json(record.value.decode())
    except UnicodeDecodeError as error:
        raise RejectedRecordError(f"the value is not UTF-8 text: {error}") from error


def _structured(text: Json) -> tuple[dict[str, str], Json]:
    """The attributes and the data of a CloudEvent in structured mode."""
    try:
        envelope = json.loads(text)
        attributes = {f"ce_{n}": str(v) for n, v in envelope.items() if n != "data"}
        return attributes, Json(json.dumps(envelope["data"]))
    except (ValueError, AttributeError, KeyError, RecursionError) as error:
        raise RejectedRecordError(
            f"the value is not a CloudEvent with JSON data: {type(error).__name__}: {error}"
        ) from error


def _id(record: Record, headers: Mapping[str, str]) -> str:
    """CloudEvents' own id, which its source gave once; else where and when it was written.

    With the time, records of a topic that was deleted and made anew are others.
    """
    source, name = headers.get("ce_source"), headers.get("ce_id")
    if not source or not name:
        return f"{record.place}@{record.timestamp}"
    found = f"{source}#{name}"
    if "#" not in source and len(found) <= ID_LIMIT and found.isprintable():
        return found
    # With a # in the source, "a#b" and "c" would be the same as "a" and "b#c".
    whole = f"{len(source)} {found}"
    return f"sha256:{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _context(headers: Mapping[str, str], record_id: str) -> WorkflowContext:
    correlation = headers.get("correlation_id") or headers.get("ce_correlationid")
    trace = headers.get("traceparent") or headers.get("ce_traceparent") or ""
    found = _TRACEPARENT.fullmatch(trace)
    trace_id, span_id = found.groups() if found else (None, None)
    return WorkflowContext(
        correlation_id=correlation or None,
        causation_id=record_id,
        trace_id=trace_id,
        span_id=span_id,
    )
