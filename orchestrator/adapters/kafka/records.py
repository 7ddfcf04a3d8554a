"""Events as others read them: CloudEvents 1.0 records in binary mode, on two kinds of topics.

Every event goes to its events topic. One that changes where its instance stands goes to the state
topic too, as the latest state: there the next one takes its place when the topic is compacted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from functools import lru_cache
from urllib.parse import quote

from orchestrator.adapters.codec_events import read_event
from orchestrator.adapters.event_schemas import STATE_ID, STATE_TYPE, schema_id
from orchestrator.adapters.kafka.commands import command_of
from orchestrator.adapters.kafka.outgoing import Headers, Outgoing
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.domain.events import EVENT_TYPES, SagaCompleted, SagaRemoved, Status
from orchestrator.domain.standing import REPAIRS, standing
from orchestrator.ports import FeedEvent


def records_of(event: FeedEvent, settings: KafkaSettings) -> Iterator[Outgoing]:
    """The records that an event is published as, in order."""
    told = f"saga {event.row.saga_id} version {event.row.version}"
    key = event.row.saga_id.encode()
    topic = settings.topic_of(event.saga_name)
    yield Outgoing(topic, key, value_of(event), headers_of(event), told)
    if (command := command_of(event, settings.reply_topic)) is not None:
        yield command
    if not settings.state_topic:
        return
    state, removed = state_of(event), event.row.type == SagaRemoved.__name__
    if removed or state is not None:
        # No value is a tombstone: compaction removes what is known of this key.
        yield Outgoing(settings.state_topic, key, state, state_headers_of(event), told)


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


def state_of(event: FeedEvent) -> bytes | None:
    """Where the instance stands after an event, as JSON; None when that is as it was.

    The output stands in it exactly as it was recorded.
    """
    kind = EVENT_TYPES.get(event.row.type)
    status = None if kind is None else standing(kind, EVENT_TYPES.get(event.turn))
    if kind is None or status is None:
        return None
    row = event.row
    state: dict[str, object] = {
        "saga_id": row.saga_id,
        "saga": event.saga_name,
        "saga_version": event.saga_version,
        "version": row.version,
        "key": event.key,
        "status": status,
        "since": _rfc3339(event),
        "correlation_id": event.correlation_id,
        "parent": event.parent,
        "tags": dict(event.tags),
        "position": row.position,
    }
    if status is Status.COMPLETED:
        completed = read_event(row)
        assert isinstance(completed, SagaCompleted)  # noqa: S101 - nothing else leads there
        head = json.dumps(state, ensure_ascii=False)
        return f'{head[:-1]}, "output": {completed.output}}}'.encode()
    return json.dumps(state | _why(event, kind), ensure_ascii=False).encode()


def _why(event: FeedEvent, kind: type) -> dict[str, object]:
    """Why it stands there: what the event says, but for who mended it."""
    if kind in REPAIRS:
        return {}
    facts = json.loads(event.row.data)
    return {name: facts[name] for name in ("reason", "step", "failure") if facts.get(name)}


def headers_of(event: FeedEvent) -> Headers:
    """CloudEvents attributes, then our own; all values are text."""
    return _headers(
        event, source_of(event.saga_name), f"saga.{event.row.type}", schema_id(event.row.type)
    )


def state_headers_of(event: FeedEvent) -> Headers:
    """As `headers_of`. The source is another, because source and id name one record only."""
    return _headers(event, f"{source_of(event.saga_name)}/state", STATE_TYPE, STATE_ID)


@lru_cache(maxsize=1024)
def source_of(saga_name: str) -> str:
    """What a saga is called as the source of its events."""
    return f"/sagas/{quote(saga_name, safe='')}"


def _headers(event: FeedEvent, source: str, type_: str, schema: str) -> Headers:
    row = event.row
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{row.saga_id}/{row.version}",
        "ce_source": source,
        "ce_type": type_,
        "ce_time": _rfc3339(event),
        "ce_subject": row.saga_id,
        "ce_dataschema": schema,
        "ce_partitionkey": row.saga_id,
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
