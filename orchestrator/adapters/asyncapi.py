"""The topics and their messages as an AsyncAPI 3.0 document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.adapters.event_schemas import (
    DIALECT,
    STATE_ID,
    STATE_TYPE,
    all_schemas,
    schema_file,
)

Part = dict[str, Any]

_SCHEMA_FORMAT = "application/schema+json;version=draft-2020-12"
_TEXT: Part = {"type": "string"}
_NUMBER: Part = {"type": "string", "pattern": "^[0-9]+$"}
_OURS: Mapping[str, Part] = {
    "saga_id": _TEXT,
    "saga_name": _TEXT,
    "version": _NUMBER,
    "epoch": _NUMBER,
    "correlation_id": _TEXT,
    "position": _NUMBER,
}
_KEY: Part = {"type": "string", "format": "uuid", "description": "The id of the instance."}

_COMMAND, _REPLY = "command", "saga.reply"
_BOTH: Mapping[str, Part] = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": _TEXT,
    "ce_source": {"type": "string", "format": "uri-reference"},
    "ce_subject": {"type": "string", "description": "The id of the instance."},
    "content-type": {"const": "application/json"},
    "saga_id": _TEXT,
    "command_id": {"type": "string", "description": "The same id means the same effect."},
    "intent": {"enum": ["do", "undo", "probe"]},
    "number": _NUMBER,
    "correlation_id": _TEXT | {"default": ""},
    "traceparent": _TEXT | {"default": ""},
}
_TO_COMMAND: Mapping[str, Part] = {
    **_BOTH,
    "ce_type": {"type": "string", "description": "The command, as payments.charge."},
    "ce_time": {"type": "string", "format": "date-time"},
    "saga_name": _TEXT,
    "reply_to": {"type": "string", "description": "The topic of the reply."},
    "undoes": _TEXT | {"default": ""},
    "due_at": {"type": "string", "format": "date-time", "default": ""},
}
_ANSWERS = ("succeeded", "failed", "in_doubt", "happened", "not_happened", "unknown", "busy")
_TO_REPLY: Mapping[str, Part] = {
    **_BOTH,
    "ce_type": {"const": _REPLY},
    "answer": {"enum": [*_ANSWERS]},
    "participant": _TEXT | {"default": ""},
}


def document() -> Part:
    """The whole document; its payloads point to the schemas beside it."""
    events = {_type_of(id_): id_ for id_ in all_schemas() if id_ != STATE_ID}
    messages = {type_: _message(type_, id_) for type_, id_ in sorted(events.items())}
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/json",
        "channels": {
            "sagaEvents": _channel(
                "saga.events", sorted(events),
                "Every event of every saga, in order for each key. With SAGA_KAFKA_TOPIC="
                "saga.events.{saga} there is one such topic for each saga.",
                cleanup="delete",
            ),
            "sagaState": _channel(
                "saga.state", [STATE_TYPE],
                "The latest state of each saga instance; compacted.",
                cleanup="compact",
            ),
            **_commands_and_replies(),
        },
        "operations": {
            "publishEvents": _operation("sagaEvents", "Publish each event, in order for each key."),
            "publishStates": _operation("sagaState", "Publish each change of state."),
            "sendCommand": _operation("sagaCommands", "Ask a participant to carry a command out."),
            "receiveReply": {
                **_operation("sagaReplies", "Hear what became of a command."), "action": "receive"
            },
        },
        "components": {
            "messages": {
                **messages,
                STATE_TYPE: _message(STATE_TYPE, STATE_ID),
                _COMMAND: _exchanged(_COMMAND, "Commands", "A command, of any name.", _TO_COMMAND),
                _REPLY: _exchanged(_REPLY, "Replies", "What became of it.", _TO_REPLY),
            },
            "messageTraits": {"cloudEvent": _cloud_event()},
        },
    }  # fmt: skip


def _info() -> Part:
    return {
        "title": "Saga events",
        "version": "1.0.0",
        "description": (
            "What a saga orchestrator publishes to Kafka: CloudEvents 1.0 in binary mode. The rules "
            "for readers (order, repeats, versions) are in docs/kafka.md."
        ),
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def _type_of(id_: str) -> str:
    return f"saga.{id_.split(':')[-2]}"


def _channel(address: str, types: Iterable[str], told: str, *, cleanup: str) -> Part:
    return {
        "address": address,
        "description": told,
        "messages": {type_: {"$ref": f"#/components/messages/{type_}"} for type_ in types},
        "bindings": {
            "kafka": {
                "topic": address,
                "topicConfiguration": {"cleanup.policy": [cleanup]},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _commands_and_replies() -> Part:
    """What passes between remote steps and participants, beside the events."""
    commands = _channel(
        "{topic}", [_COMMAND],
        "Commands of remote steps, in the topic that each step names; all of an instance in order.",
        cleanup="delete",
    )  # fmt: skip
    del commands["bindings"]["kafka"]["topic"]
    told = "What a step names as its topic, like payments.commands."
    return {
        "sagaCommands": {**commands, "parameters": {"topic": {"description": told}}},
        "sagaReplies": _channel(
            "saga.replies", [_REPLY], "What participants reply (SAGA_KAFKA_REPLY_TOPIC).",
            cleanup="delete",
        ),
    }  # fmt: skip


def _exchanged(name: str, title: str, told: str, headers: Mapping[str, Part]) -> Part:
    """A message whose payload is what the step, or its participant, says."""
    return {
        "name": name,
        "title": title,
        "summary": told,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": dict(headers),
            "required": [header for header, known in headers.items() if "default" not in known],
        },
        "payload": {
            "description": "Input, output or failure as JSON; docs/remote-participants.md."
        },
        "bindings": {"kafka": {"key": _KEY, "bindingVersion": "0.5.0"}},
    }


def _operation(channel: str, told: str) -> Part:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": told}


def _message(type_: str, id_: str) -> Part:
    schema = all_schemas()[id_]
    return {
        "name": type_,
        "title": schema["title"],
        "summary": schema["description"],
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "headers": {
            "type": "object",
            "properties": {"ce_type": {"const": type_}, "ce_dataschema": {"const": id_}},
        },
        "payload": {
            "schemaFormat": _SCHEMA_FORMAT,
            "schema": {"$schema": DIALECT, "$ref": f"./{schema_file(id_)}"},
        },
    }


def _cloud_event() -> Part:
    """The headers that every record has."""
    attributes: Mapping[str, Part] = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "description": "<saga_id>/<version>"},
        "ce_source": {"type": "string", "format": "uri-reference"},
        "ce_type": _TEXT,
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string", "description": "The id of the instance."},
        "ce_dataschema": {"type": "string", "format": "uri"},
        "ce_partitionkey": {"type": "string", "description": "The id of the instance."},
        "content-type": {"const": "application/json"},
    }
    properties = {**attributes, **_OURS}
    return {
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {**properties, "traceparent": _TEXT},
            "required": sorted(properties),
        },
        "bindings": {"kafka": {"key": _KEY, "bindingVersion": "0.5.0"}},
    }
