"""The other side of a remote step: commands carried out once each, and answered until it is heard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from orchestrator.adapters.kafka.commands import read_command, reply_record
from orchestrator.adapters.kafka.consumer import ConsumerSettings, KafkaConsumer
from orchestrator.adapters.kafka.dead_letters import KafkaDeadLetters
from orchestrator.adapters.kafka.sending import Sender, TooLargeError
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.adapters.postgres.command_book import CommandBook
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain.bounds import checked_count, checked_duration, checked_name
from orchestrator.domain.exchange import (
    RemoteCommand,
    RemoteReply,
    without_output,
)
from orchestrator.environment import KafkaEnvironment
from orchestrator.errors import (
    DefinitionError,
    InvalidInputError,
    RejectedRecordError,
)
from orchestrator.messaging.carrying import Carrier
from orchestrator.messaging.handlers import Known, transaction_wanted
from orchestrator.ports import Record

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])


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
        self._book = CommandBook(database_url, size=concurrency, timeout=limit)
        self._known: dict[str, Known] = {}
        self._carrier = Carrier(self.name, self._book, self._known, limit)

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
            wants = transaction_wanted(handler, command)
            self._known[command] = Known(handler, input, output, wants)
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

    async def handle(self, command: RemoteCommand) -> RemoteReply:
        """Carry *command* out, unless it was before; what is to be replied."""
        return await self._carrier.handle(command)

    async def open(self) -> None:
        """Make the book ready, for who calls `handle` without a broker."""
        await self._book.open()

    async def close(self) -> None:
        """Let go of the database."""
        await self._book.close()


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


def _checked_topics(topics: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(topics, str) or not topics:
        raise DefinitionError(
            f"topics is a tuple of names, as ('payments.commands',), not {topics!r}"
        )
    return tuple(checked_name(topic, "topic") for topic in topics)
