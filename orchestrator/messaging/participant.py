"""The other side of a remote step: commands carried out once each, and answered until it is heard."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.kafka.commands import read_command, reply_record
from orchestrator.adapters.kafka.consumer import ConsumerSettings, KafkaConsumer
from orchestrator.adapters.kafka.dead_letters import KafkaDeadLetters
from orchestrator.adapters.kafka.sending import Sender, TooLargeError
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.adapters.postgres.command_book import CommandBook, Entry, Page, is_handle
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain.bounds import checked_count, checked_duration, checked_name
from orchestrator.domain.commands import InDoubt
from orchestrator.domain.events import Failure, Json
from orchestrator.domain.exchange import (
    RemoteCommand,
    RemoteReply,
    failure_from,
    without_output,
)
from orchestrator.domain.outcomes import outcome_of
from orchestrator.domain.signatures import annotation_of
from orchestrator.environment import KafkaEnvironment
from orchestrator.errors import (
    BusyError,
    DefinitionError,
    InvalidInputError,
    Permanent,
    RejectedRecordError,
    Retryable,
    UnavailableError,
)
from orchestrator.ports import Record

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

_VOID = Failure(
    "Void", "it was undone before it came, and is not carried out any more", permanent=True
)
_REFUSED = Failure("Refused", "a probe was told that it did not happen, so it does not any more")


_DROP_AFTER = 2.0
"""Seconds that a handler gets to end when it is called away; then it loses its connection."""

_Settle = Callable[[Page, RemoteCommand], Awaitable[Entry]]


class _GoneError(Exception):
    """The transaction of a handler is gone; what it did with it, and elsewhere, is not known."""


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
class _Known:
    """A command that is known here."""

    handler: Callable[..., Awaitable[Any]]
    input: Any
    output: Any
    wants: Any


class Participant:
    """Carries out commands, each once, and replies; any number of processes may be one participant.

    The effect, the id of the command and its reply are one transaction of the participant's own
    database. The offset is committed after the reply was sent: after a crash the command comes
    again, and is answered from the book. What is no command goes to the topic *dead_letters*.
    A handler that takes longer than *handler_timeout* seconds leaves its command in doubt.
    Without *kafka* the environment says where the broker is.
    """

    def __init__(
        self,
        name: str,
        *,
        topics: tuple[str, ...],
        database_url: str,
        kafka: KafkaSettings | str | None = None,
        concurrency: int = 10,
        dead_letters: str | None = None,
        handler_timeout: float = 30.0,
    ) -> None:
        self.name = checked_name(name, "participant")
        self.topics = _checked_topics(topics)
        place = f"participant {name!r}"
        checked_count(concurrency, f"{place}: concurrency")
        limit = checked_duration(handler_timeout, f"{place}: handler_timeout").total_seconds()
        self._kafka = _settings(kafka)
        self._group = f"participant.{self.name}"
        self._dead_letters = dead_letters or f"{self._group}.dead-letters"
        self._options = ConsumerSettings(concurrency=concurrency, create_topics=True)
        self._handler_timeout = limit
        self._book = CommandBook(database_url, size=concurrency, timeout=limit)
        self._codec = JsonCodec()
        self._known: dict[str, _Known] = {}

    def command(self, command: str, *, input: Any, output: Any) -> Callable[[Handler], Handler]:
        """Declare who carries a command out: an async `(input, ctx)`, or `(input, ctx, db)`.

        *db* is in the transaction that remembers the command: an SQLAlchemy `AsyncSession` or
        `AsyncConnection`, or an asyncpg `Connection`, as it is annotated. `Permanent` and
        `Retryable` say that nothing happened, as in a step; whatever is raised, what was written
        through *db* is taken back.
        """
        checked_name(command, "command")

        def declare(handler: Handler) -> Handler:
            if command in self._known:
                raise DefinitionError(f"command {command!r} has a handler already")
            wants = _wanted(handler, command)
            self._known[command] = _Known(handler, input, output, wants)
            return handler

        return declare

    async def run(self, stop: asyncio.Event) -> None:
        """Carry out what comes until *stop* is set; patient with a database and a broker away."""
        sender = Sender(self._kafka)
        dead = KafkaDeadLetters(self._kafka, self._dead_letters, self._group)
        intake = _Commands(self, sender)
        consumer = KafkaConsumer(
            self._kafka, self.topics, self._group, intake, dead, SilentTelemetry(), self._options
        )
        try:
            await consumer.run(stop)
        finally:
            await dead.close()
            await sender.close()
            await self._book.close()

    async def answer(self, sender: Sender, command: RemoteCommand, reply: RemoteReply) -> None:
        """Send the reply, before the command counts as dealt with."""
        try:
            await sender.send(reply_record(command, reply))
        except TooLargeError as error:
            # Its saga would wait for ever, and all behind it too.
            log.warning("%s; it is sent without its output", error)
            await sender.send(reply_record(command, without_output(reply, str(error))))

    async def open(self) -> None:
        """Make the book ready, for who calls `handle` without a broker."""
        await self._book.open()

    async def close(self) -> None:
        """Let go of the database."""
        await self._book.close()

    # ------------------------------------------------------------------ one command

    async def handle(self, command: RemoteCommand) -> RemoteReply:
        """Carry *command* out, unless it was before; what is to be replied."""
        if command.intent == "probe":
            return await self._probed(command)
        try:
            entry = await self._entered(command, self._settled)
        except _GoneError as gone:
            # Remembered in another transaction, so that it is not tried without end.
            entry = await self._entered(command, partial(_left_in_doubt, TimeoutError(str(gone))))
        return self._reply(command, entry)

    async def _entered(self, command: RemoteCommand, settle: _Settle) -> Entry:
        """What the book says; of what it does not know yet, what *settle* makes of it."""
        turns = (command.command_id, command.undoes) if command.undoes else (command.command_id,)
        async with self._book.page(*turns) as page:
            known = await page.read(command.command_id)
            if known is not None and _holds(known, command.number):
                return known
            entry = await settle(page, command)
            if entry.standing == "failed" and known is not None and known.standing == "in_doubt":
                # A refusal says nothing of the earlier attempt, which may have come through.
                entry = replace(entry, standing="in_doubt")
            await page.write(command.command_id, command.command, entry)
            return entry

    async def _settled(self, page: Page, command: RemoteCommand) -> Entry:
        if not command.undoes:
            return await self._carried_out(page, command)
        about = await page.read(command.undoes)
        if about is None or about.standing not in ("done", "in_doubt"):
            # Nothing to take back; and what is taken back must not happen late.
            await page.write(command.undoes, "", Entry("void", command.number))
            return Entry("done", command.number)
        entry = await self._carried_out(page, command)
        if about.standing == "in_doubt" and entry.standing == "done":
            await page.write(command.undoes, "", Entry("void", command.number))
        return entry

    async def _carried_out(self, page: Page, command: RemoteCommand) -> Entry:
        try:
            known = self._find(command.command)
            given = self._codec.decode(command.payload, known.input)
            async with page.effect(known.wants) as handle:
                made = await self._called(page, known.handler(given, _context(command), *handle))
                text = self._codec.encode(made, known.output)
        except (UnavailableError, _GoneError):
            raise
        except Exception as error:
            if page.was_ended:
                raise _GoneError("the handler ended the transaction; that is left to us") from error
            if page.is_busy(error):
                raise BusyError(f"command {command.command_id}: {error}") from error
            if not isinstance(error, Permanent | Retryable):
                told = (command.command, command.command_id)
                log.warning("command %s (%s) failed", *told, exc_info=error)
            return _failed(error, command.number)
        return Entry("done", command.number, text)

    async def _called(self, page: Page, call: Awaitable[Any]) -> Any:
        """What a handler gives, within its time. One that is called away commits nothing more."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task}, timeout=self._handler_timeout)
        finally:
            if late := not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_DROP_AFTER)
                await page.drop()
        if late:
            raise _GoneError(f"the handler took longer than {self._handler_timeout:g} s")
        if task.cancelled():
            # Let out as it is, it would end whoever called the handler, without a word.
            raise TimeoutError("what the handler awaited was cancelled")
        return task.result()

    def _find(self, command: str) -> _Known:
        if command in self._known:
            return self._known[command]
        there = ", ".join(self._known) or "none"
        raise LookupError(f"participant {self.name} has no command {command!r}; it has: {there}")

    async def _probed(self, command: RemoteCommand) -> RemoteReply:
        """Whether it happened. One that did not will not any more: what was sent before is refused."""
        async with self._book.page_if_free(command.command_id) as page:
            if page is None:
                return self._says(command, "busy")
            entry = await page.read(command.command_id)
            if entry is not None and entry.standing == "done":
                return self._says(command, "happened", Json(entry.answer or "null"))
            if entry is not None and entry.standing == "in_doubt":
                return self._says(command, "unknown")
            if entry is None or entry.standing != "void":
                # A probe may come again, behind what was sent after it.
                number = max(command.number, entry.number if entry else 0)
                refused = Entry("refused", number)
                await page.write(command.command_id, command.command, refused)
        return self._says(command, "not_happened")

    def _reply(self, command: RemoteCommand, entry: Entry) -> RemoteReply:
        match entry.standing:
            case "done":
                return self._says(command, "succeeded", Json(entry.answer or "null"))
            case "void":
                return self._says(command, "failed", failure=_VOID)
            case "refused":
                return self._says(command, "failed", failure=_REFUSED)
            case standing:
                failure = failure_from(json.loads(entry.answer or "{}"))
                return self._says(command, standing, failure=failure)

    def _says(
        self,
        command: RemoteCommand,
        answer: str,
        output: Json | None = None,
        failure: Failure | None = None,
    ) -> RemoteReply:
        return RemoteReply(
            command.command_id, command.intent, command.number, answer, output, failure, self.name
        )


class _Commands:
    """orchestrator.ports.Intake over a participant's topics."""

    def __init__(self, participant: Participant, sender: Sender) -> None:
        self._participant = participant
        self._sender = sender
        self._opening = asyncio.Lock()
        self._opened = False

    async def take(self, record: Record, attempt: int) -> None:
        """As the port says: the reply is sent before the command counts as taken."""
        del attempt
        async with self._opening:
            if not self._opened:
                await self._participant.open()
                self._opened = True
        try:
            command = read_command(record.value, list(record.headers))
            reply = await self._participant.handle(command)
        except InvalidInputError as error:
            raise RejectedRecordError(str(error)) from error
        await self._participant.answer(self._sender, command, reply)


def _settings(kafka: KafkaSettings | str | None) -> KafkaSettings:
    found = KafkaEnvironment().kafka() if kafka is None else kafka
    if found is None:
        raise InvalidInputError(
            "no broker is named: set SAGA_KAFKA_BOOTSTRAP_SERVERS=host:port, or hand kafka= in"
        )
    return KafkaSettings(found) if isinstance(found, str) else found


def _holds(entry: Entry, number: int) -> bool:
    """Whether what became of a command is also the answer to what was sent as *number*."""
    return entry.standing in ("done", "void") or number <= entry.number


async def _left_in_doubt(error: Exception, page: Page, command: RemoteCommand) -> Entry:
    del page
    return _failed(error, command.number)


def _checked_topics(topics: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(topics, str) or not topics:
        raise DefinitionError(
            f"topics is a tuple of names, as ('payments.commands',), not {topics!r}"
        )
    return tuple(checked_name(topic, "topic") for topic in topics)


def _failed(error: Exception, number: int) -> Entry:
    outcome = outcome_of(error)
    standing = "in_doubt" if isinstance(outcome, InDoubt) else "failed"
    failure = getattr(outcome, "failure", None)
    return Entry(standing, number, json.dumps(asdict(failure)) if failure else None)


def _context(command: RemoteCommand) -> CommandContext:
    return CommandContext(
        command.command_id, command.command, command.saga_id, command.saga_name,
        command.correlation_id, command.traceparent, command.number, command.undoes,
        command.due_at,
    )  # fmt: skip


def _wanted(handler: Callable[..., Any], command: str) -> Any:
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
