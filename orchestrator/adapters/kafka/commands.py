"""Commands and replies as Kafka records: CloudEvents 1.0 in binary mode, the payload as the value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.kafka.outgoing import Headers, Outgoing
from orchestrator.adapters.kafka.settings import checked_topic
from orchestrator.domain.bounds import NAME_LIMIT
from orchestrator.domain.events import Json, RemoteRequested
from orchestrator.domain.exchange import RemoteCommand, RemoteReply, failure_from
from orchestrator.errors import InvalidInputError
from orchestrator.ports import FeedEvent

REPLY_TYPE = "saga.reply"

_CODEC = JsonCodec()
_WITH_OUTPUT = frozenset({"succeeded", "happened"})
_ANSWERS = _WITH_OUTPUT | {"failed", "in_doubt", "not_happened", "unknown", "busy"}
_WRONG = (ValueError, KeyError, RecursionError, InvalidInputError)
_ID_LIMIT = 2_000
_DEEPEST = 500
_MOST = 2**31 - 1
"""What a column for a number holds."""


def command_of(event: FeedEvent, reply_to: str) -> Outgoing | None:
    """The command that an event is; None for an event that is none."""
    if event.row.type != RemoteRequested.__name__:
        return None
    asked = _CODEC.decode_event(event.row)
    assert isinstance(asked, RemoteRequested)  # noqa: S101 - its type says so
    row = event.row
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{row.saga_id}/{row.version}/command",
        "ce_source": f"/sagas/{quote(event.saga_name, safe='')}",
        "ce_type": asked.command,
        "ce_time": row.recorded_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "ce_subject": row.saga_id,
        "content-type": "application/json",
        "saga_id": row.saga_id,
        "saga_name": event.saga_name,
        "correlation_id": event.correlation_id,
        "command_id": asked.command_id,
        "intent": asked.intent,
        "number": str(asked.number),
        "reply_to": reply_to,
        "undoes": asked.undoes,
        "due_at": asked.due_at.astimezone(UTC).isoformat() if asked.due_at else "",
        "traceparent": _traceparent(row.meta),
    }
    told = f"command {asked.command} of saga {row.saga_id} version {row.version}"
    return Outgoing(
        asked.topic, row.saga_id.encode(), asked.payload.encode(), _headers(headers), told
    )


def read_command(value: bytes | None, headers: Headers) -> RemoteCommand:
    """The command in a record. InvalidInputError when it is none."""
    found = _texts(headers)
    try:
        due = found.get("due_at")
        return RemoteCommand(
            _id(_needed(found, "command_id")),
            _intent(found),
            _needed(found, "ce_type"),
            _number(found),
            _json(value),
            checked_topic("reply_to", _needed(found, "reply_to")),
            found.get("saga_name", ""),
            found.get("correlation_id", ""),
            found.get("traceparent", ""),
            _id(found.get("undoes", "")),
            datetime.fromisoformat(due) if due else None,
        )
    except _WRONG as error:
        raise InvalidInputError(f"this record is no command: {_told(error)}") from error


def reply_record(command: RemoteCommand, reply: RemoteReply) -> Outgoing:
    """The record that answers *command*."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": reply.dedupe_key,
        "ce_source": f"/participants/{quote(reply.participant, safe='')}",
        "ce_type": REPLY_TYPE,
        "ce_subject": reply.saga_id,
        "content-type": "application/json",
        "saga_id": reply.saga_id,
        "correlation_id": command.correlation_id,
        "command_id": reply.command_id,
        "intent": reply.intent,
        "number": str(reply.number),
        "answer": reply.answer,
        "participant": reply.participant,
        "traceparent": command.traceparent,
    }
    value = reply.output if reply.answer in _WITH_OUTPUT else _failure_text(reply)
    told = f"reply to {reply.command_id}"
    return Outgoing(
        command.reply_to,
        reply.saga_id.encode(),
        (value or "null").encode(),
        _headers(headers),
        told,
    )


def read_reply(value: bytes | None, headers: Headers) -> RemoteReply:
    """The reply in a record. InvalidInputError when it is none."""
    found = _texts(headers)
    try:
        answer = _needed(found, "answer")
        _check_answer(answer)
        text, failure = _json(value), None
        if answer not in _WITH_OUTPUT and isinstance(given := json.loads(text), Mapping):
            failure = failure_from(given)
        return RemoteReply(
            _id(_needed(found, "command_id")),
            found.get("intent") or "do",
            _number(found),
            answer,
            text if answer in _WITH_OUTPUT else None,
            failure,
            found.get("participant", "")[:NAME_LIMIT],
        )
    except _WRONG as error:
        raise InvalidInputError(f"this record is no reply: {_told(error)}") from error


def _failure_text(reply: RemoteReply) -> str | None:
    failure = reply.failure
    if failure is None:
        return None
    told: dict[str, Any] = {"type": failure.type, "message": failure.message}
    told |= {"kinds": failure.kinds, "permanent": failure.permanent}
    if failure.retry_after is not None:
        told["retry_after"] = failure.retry_after
    return json.dumps(told)


def _check_answer(answer: str) -> None:
    if answer not in _ANSWERS:
        known = ", ".join(sorted(_ANSWERS))
        raise ValueError(f"there is no answer {answer!r}; there are {known}")


def _json(value: bytes | None) -> Json:
    text = Json((value or b"null").decode())
    parts = [json.loads(text, parse_constant=_no_number)]
    # What is nested as deep as can be read here could not be read where more is under way.
    for _ in range(_DEEPEST):
        if not (parts := [below for part in parts for below in _below(part)]):
            return text
    raise ValueError(f"the value is nested deeper than {_DEEPEST} levels")


def _below(part: object) -> Iterable[object]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _intent(found: Mapping[str, str]) -> str:
    intent = _needed(found, "intent")
    if intent not in ("do", "undo", "probe"):
        raise ValueError(f"there is no intent {intent!r}; there are do, undo and probe")
    return intent


def _id(command_id: str) -> str:
    if len(command_id) > _ID_LIMIT or "\0" in command_id:
        raise ValueError(f"a command_id has at most {_ID_LIMIT} characters, and no NUL")
    return command_id


def _number(found: Mapping[str, str]) -> int:
    number = int(found.get("number") or 1)
    if not 0 <= number <= _MOST:
        raise ValueError(f"there is no number {number}; they count from 1")
    return number


def _headers(texts: Mapping[str, str]) -> Headers:
    return [(name, text.encode()) for name, text in texts.items() if text]


def _texts(headers: Headers) -> dict[str, str]:
    return {name: text.decode(errors="replace") for name, text in headers}


def _needed(found: Mapping[str, str], name: str) -> str:
    if not found.get(name):
        raise KeyError(name)
    return found[name]


def _told(error: Exception) -> str:
    return f"it has no header {error}" if isinstance(error, KeyError) else str(error)


def _traceparent(meta: str) -> str:
    return str(json.loads(meta).get("traceparent") or "") if '"traceparent"' in meta else ""
