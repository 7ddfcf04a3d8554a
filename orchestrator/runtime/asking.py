"""What people may ask for, and why an instance does not do it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.domain.events import ENDED
from orchestrator.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PayloadTooLargeError,
    TooLateError,
)
from orchestrator.ports import EVENT_DATA_LIMIT, Instance, MessageKind, Reply

KEY_LIMIT = 500
CONTEXT_LIMIT = 16 * 1024


def context_text(fields: Mapping[str, Any]) -> str:
    """The context as JSON. InvalidInputError when it holds anything but text, or too much."""
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the context must hold text only: {error}") from error
    if size > CONTEXT_LIMIT:
        raise InvalidInputError(
            f"a context of {size:,} bytes is over the limit of {CONTEXT_LIMIT:,}: it goes along "
            "with every step; put data into the input"
        )
    return text


def check_words(payload: Mapping[str, Any], actor: str) -> None:
    """A message becomes an event, which has to be small enough to be published."""
    for name, text, limit in (
        ("reason", payload.get("reason") or "", 10_000),
        ("actor", actor, 500),
    ):
        if len(text) > limit:
            raise InvalidInputError(
                f"the {name} has {len(text):,} characters, at most {limit:,} can be recorded; "
                "write where the rest is to be found"
            )
    size = sum(len(str(text).encode("utf-8", "replace")) for text in payload.values())
    if size > EVENT_DATA_LIMIT - 64 * 1024:
        raise PayloadTooLargeError(
            f"what is sent has {size:,} bytes, which is more than an event can hold "
            f"({EVENT_DATA_LIMIT - 64 * 1024:,}); keep large data elsewhere and send where it is"
        )


def check_key(key: str) -> None:
    """Raise InvalidInputError for what cannot be a business key."""
    if not key or len(key) > KEY_LIMIT or not key.isprintable():
        raise InvalidInputError(
            f"a key has 1 to {KEY_LIMIT} printable characters; this one is {key[:50]!r}"
        )
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the key is not valid Unicode: {error}") from error


def needed(reason: str, action: str) -> str:
    """*reason*. InvalidInputError when there is none."""
    if not reason.strip():
        raise InvalidInputError(f"to {action} needs a reason, which the history will keep")
    return reason


def refusal(instance: Instance, kind: MessageKind, reply: Reply) -> ConflictError | NotFoundError:
    """Why an instance does not take a message, and what to do about it."""
    name = f"saga {instance.saga_id}"
    match reply:
        case Reply.TOO_LATE if instance.pivoted and instance.status not in ENDED:
            return TooLateError(f"{name} has passed its pivot; it can no longer be taken back")
        case Reply.TOO_LATE:
            return TooLateError(
                f"{name} has ended ({instance.status}); it takes no {kind} any more"
            )
        case Reply.STUCK:
            return ConflictError(
                f"{name} is stuck; retry, skip, resolve, resume or terminate it, see: "
                f"saga show {instance.saga_id}"
            )
        case Reply.NOT_STUCK:
            return ConflictError(
                f"{name} is {instance.status}, not stuck; {kind} is for instances that need a person"
            )
        case Reply.FULL:
            return ConflictError(f"{name} has not read its last messages yet; try again later")
        case _:
            return NotFoundError(f"there is no saga instance {instance.saga_id!r}")
