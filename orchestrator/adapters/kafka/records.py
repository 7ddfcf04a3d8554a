"""An event as others read it: a CloudEvents 1.0 record in binary mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from urllib.parse import quote

from orchestrator.adapters.kafka.commands import command_of
from orchestrator.adapters.kafka.outgoing import Headers, Outgoing
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.ports import FeedEvent


def records_of(event: FeedEvent, settings: KafkaSettings) -> Iterator[Outgoing]:
    """The records that an event is published as, in order."""
    told = f"saga {event.row.saga_id} version {event.row.version}"
    key = event.row.saga_id.encode()
    yield Outgoing(settings.topic, key, value_of(event), headers_of(event), told)
    if (command := command_of(event, settings.reply_topic)) is not None:
        yield command


def value_of(event: FeedEvent) -> bytes:
    """The JSON value; `data` and `meta` stand in it exactly as they are stored."""
    row = event.row
    head = json.dumps(
        {
            "saga_id": row.saga_id,
            "saga": event.saga_name,
            "saga_version": event.saga_version,
            "version": row.version,
            "type": row.type,
            "node": row.node,
            "attempt": row.attempt,
            "epoch": row.epoch,
            "recorded_at": _rfc3339(event),
            "correlation_id": event.correlation_id,
            "position": row.position,
        },
        ensure_ascii=False,
    )
    return f'{head[:-1]}, "data": {row.data}, "meta": {row.meta}}}'.encode()


def headers_of(event: FeedEvent) -> Headers:
    """CloudEvents attributes, then our own; all values are text."""
    row = event.row
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{row.saga_id}/{row.version}",
        "ce_source": f"/sagas/{quote(event.saga_name, safe='')}",
        "ce_type": f"saga.{row.type}",
        "ce_time": _rfc3339(event),
        "ce_subject": row.saga_id,
        "content-type": "application/json",
        "saga_id": row.saga_id,
        "saga_name": event.saga_name,
        "version": str(row.version),
        "epoch": str(row.epoch),
        "correlation_id": event.correlation_id,
        "position": str(row.position),
    }
    if '"traceparent"' in row.meta and (traceparent := json.loads(row.meta).get("traceparent")):
        headers["traceparent"] = traceparent
    return [(name, text.encode()) for name, text in headers.items()]


def _rfc3339(event: FeedEvent) -> str:
    return event.row.recorded_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
