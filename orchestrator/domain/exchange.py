"""What passes between a saga and a participant: a command one way, a reply the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from orchestrator.domain.events import Failure, Json, RemoteReplied

_NAME, _KINDS, _LONGEST = 200, 50, 1e9


@dataclass(frozen=True, slots=True)
class RemoteCommand:
    """One command, as a participant gets it; the same `command_id` means the same effect.

    `intent` is `do`, `undo` or `probe`; a probe asks for the command of that id. `number` grows with
    whatever is sent from that place of the instance. `undoes` is the id of the command that an
    undo takes back while nobody knows whether it happened.
    """

    command_id: str
    intent: str
    command: str
    number: int
    payload: Json
    reply_to: str
    saga_name: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    undoes: str = ""
    due_at: datetime | None = None

    @property
    def saga_id(self) -> str:
        """The instance that sent it."""
        return self.command_id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """What a participant says to the command of that number."""

    command_id: str
    intent: str
    number: int
    answer: str
    output: Json | None = None
    failure: Failure | None = None
    participant: str = ""

    @property
    def saga_id(self) -> str:
        """The instance that it is for."""
        return self.command_id.partition("/")[0]

    @property
    def dedupe_key(self) -> str:
        """What the same reply always has, however often it arrives."""
        return f"reply/{self.intent}/{self.command_id}/{self.number}/{self.answer}"

    def message(self) -> dict[str, Any]:
        """It as a message to the instance's inbox."""
        return {
            "command_id": self.command_id,
            "intent": self.intent,
            "number": self.number,
            "answer": self.answer,
            "output": self.output,
            "failure": None if self.failure is None else asdict(self.failure),
        }


def failure_from(found: Mapping[str, Any]) -> Failure:
    """The failure that a reply tells of, whoever wrote it."""
    after = found.get("retry_after")
    numeric = isinstance(after, int | float) and not isinstance(after, bool)
    kinds = found.get("kinds")
    return Failure(
        str(found.get("type") or "RemoteFailure")[:_NAME],
        str(found.get("message") or "")[:2_000],
        tuple(str(kind)[:_NAME] for kind in kinds[:_KINDS])
        if isinstance(kinds, list | tuple)
        else (),
        found.get("permanent") is True,
        float(min(max(after, 0), _LONGEST)) if numeric and after is not None else None,
    )


R = TypeVar("R", "RemoteReply", RemoteReplied)


def without_output(reply: R, problem: str) -> R:
    """*reply* without its output, which cannot be kept; of what it says, only the rest is known."""
    if reply.intent == "undo" and reply.answer == "succeeded":
        return replace(reply, output=None)
    answer = {"succeeded": "in_doubt", "happened": "unknown"}.get(reply.answer, reply.answer)
    failure = Failure("UnrecordableError", problem[:2_000], permanent=True)
    return replace(reply, answer=answer, output=None, failure=failure)
