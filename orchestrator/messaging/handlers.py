"""What carries out a command: a service's function, and what it is told."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.adapters.postgres.command_book import is_handle
from orchestrator.domain.exchange import RemoteCommand
from orchestrator.domain.signatures import annotation_of
from orchestrator.errors import DefinitionError, InvalidInputError


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What a handler knows of its command. `undoes` is the command that an undo in doubt is about."""

    command_id: str
    command: str
    saga_id: str
    saga_name: str
    correlation_id: str
    traceparent: str
    number: int
    undoes: str
    due_at: datetime | None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt: what others are called with."""
        return self.command_id


@dataclass(frozen=True, slots=True)
class Known:
    """A command that is known here."""

    handler: Callable[..., Awaitable[Any]]
    input: Any
    output: Any
    wants: Any


def context_of(command: RemoteCommand) -> CommandContext:
    return CommandContext(
        command.command_id, command.command, command.saga_id, command.saga_name,
        command.correlation_id, command.traceparent, command.number, command.undoes,
        command.due_at,
    )  # fmt: skip


def transaction_wanted(handler: Callable[..., Any], command: str) -> Any:
    """What the third parameter of a handler is annotated as; None when it has only two."""
    place = f"handler of command {command!r}"
    if not inspect.iscoroutinefunction(handler):
        raise DefinitionError(f"{place} must be an async function (input, ctx) or (input, ctx, db)")
    count = len(inspect.signature(handler).parameters)
    if count not in (2, 3):
        raise DefinitionError(f"{place} takes (input, ctx) or (input, ctx, db), not {count} things")
    if count == 2:
        return None
    wanted = annotation_of(handler, 2, place)
    with suppress(InvalidInputError):
        if is_handle(wanted):
            return wanted
    raise DefinitionError(
        f"{place}: annotate db as AsyncSession, AsyncConnection or asyncpg.Connection"
    )
