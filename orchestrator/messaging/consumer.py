"""`EventConsumer`: events of sagas to handlers of a downstream service, each in order and once."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.adapters.kafka import (
    ConsumerSettings,
    KafkaConsumer,
    KafkaDeadLetters,
    KafkaSettings,
)
from orchestrator.adapters.postgres.consumed import (
    ConsumedEvents,
    ConsumerDatabase,
    Effects,
    HandlerError,
    ParkedEvent,
    handle_kind,
)
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import (
    DefinitionError,
    InvalidInputError,
    NotYetError,
    RejectedRecordError,
)
from orchestrator.messaging.event import PREFIX, Event, event_of
from orchestrator.messaging.memory import Remembered
from orchestrator.ports import Record, Telemetry

Handler = Callable[..., Awaitable[None]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class _Handler:
    function: Handler
    types: frozenset[str]
    saga: str | None
    wants: Any
    """The type of its second parameter; None when it has none."""

    def means(self, event: Event) -> bool:
        return (not self.types or event.type in self.types) and self.saga in (None, event.saga)


class EventConsumer:
    """A member of the consumer group *group* that reads the events of sagas.

    *topic* is one or several. With *database* (a URL, or an SQLAlchemy AsyncEngine) the position
    of each saga is written in the transaction of the handlers: their effects there happen exactly
    once, and a gap is seen however often the service was started again; `create_tables` makes the
    two tables. Without it handlers run at least once, and only what this process has seen itself
    is checked.

    A handler that fails is tried *attempts* times; then its event and all that follow in its saga
    are parked (in the database, else in the topic *dead_letters*) and other sagas go on. A saga
    that is met for the first time in its middle is a gap, unless *from_middle*.
    """

    def __init__(
        self,
        servers: str,
        *,
        group: str,
        topic: str | Sequence[str] = "saga.events",
        database: ConsumerDatabase | None = None,
        from_middle: bool = False,
        attempts: int = 5,
        handler_timeout: float = 30.0,
        dead_letters: str | None = None,
        settings: ConsumerSettings | None = None,
        security: Mapping[str, Any] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        if attempts < 1:
            raise InvalidInputError(f"attempts is at least 1, not {attempts}")
        self._kafka = KafkaSettings(servers, security=security or {})
        self._topics = [topic] if isinstance(topic, str) else list(topic)
        self._settings = settings or ConsumerSettings(concurrency=16)
        self._group = group
        self._from_middle = from_middle
        self._attempts = attempts
        self._timeout = handler_timeout
        self._dead_letters = dead_letters or f"{group}.dead-letters"
        self._telemetry = telemetry or SilentTelemetry()
        self._handlers: list[_Handler] = []
        self._memory = Remembered()
        self._consumed = (
            None
            if database is None
            else ConsumedEvents(
                database, group, connections=self._settings.concurrency, timeout=handler_timeout
            )
        )
        self._running: KafkaConsumer | None = None

    def on(self, *types: str, saga: str | None = None) -> Callable[[H], H]:
        """Have a function called for events of these types (all, if none is named) of *saga*.

        It takes the event and, where the consumer has a database, an AsyncSession,
        AsyncConnection or asyncpg Connection, by the annotation of its second parameter.
        """

        def add(function: H) -> H:
            wants = _wanted(function)
            if wants is not None and self._consumed is None:
                raise DefinitionError(
                    f"handler {function.__name__} wants a database, and the consumer has none: "
                    "EventConsumer(..., database=url)"
                )
            names = frozenset(name.removeprefix(PREFIX) for name in types)
            self._handlers.append(_Handler(function, names, saga, wants))
            return function

        return add

    @property
    def stopped(self) -> Mapping[tuple[str, int], Exception]:
        """Partitions that do not go on, by topic and number, with what stopped them."""
        return {} if self._running is None else self._running.stopped

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Read until *stop* is set (or the task is cancelled); then finish what is in hand."""
        dead = KafkaDeadLetters(self._kafka, self._dead_letters, self._group)
        self._running = KafkaConsumer(
            self._kafka, self._topics, self._group, self, dead, self._telemetry,
            self._settings, assigned=self._memory.forget,
        )  # fmt: skip
        try:
            await self._running.run(stop or asyncio.Event())
        finally:
            await dead.close()
            await self.close()

    async def close(self) -> None:
        """Let go of the database. `run` does it by itself."""
        if self._consumed is not None:
            await self._consumed.close()

    # ------------------------------------------------------------------ one record

    async def take(self, record: Record, attempt: int) -> None:
        """One record of the topic; `orchestrator.ports.Intake`."""
        event = event_of(record)
        try:
            if self._consumed is None:
                await self._memory.take(event, record, self._call, self._timeout)
            else:
                await self._take_with(self._consumed, event, record)
        except HandlerError as failed:
            await self._failed(event, record, attempt, failed.error)

    async def _take_with(self, consumed: ConsumedEvents, event: Event, record: Record) -> None:
        arrived, from_middle = (event.saga_id, event.version, record), self._from_middle
        wanted = any(handler.means(event) for handler in self._handlers)
        if not wanted and await consumed.pass_over(*arrived, from_middle=from_middle):
            return
        await consumed.take(
            *arrived, lambda effects: self._call(event, effects), from_middle=from_middle
        )

    async def _call(self, event: Event, effects: Effects | None = None) -> None:
        for handler in self._handlers:
            if handler.means(event):
                if effects is None or handler.wants is None:
                    await handler.function(event)
                else:
                    await handler.function(event, effects.of(handler.wants))

    async def _failed(self, event: Event, record: Record, attempt: int, error: Exception) -> None:
        """Have it tried again; park it after the last attempt."""
        why = f"{type(error).__name__}: {error}"
        if attempt < self._attempts:
            raise NotYetError(f"event {event.id} ({event.type}) failed: {why}") from error
        self._telemetry.count("parked_events")
        if self._consumed is None:
            self._memory.park(event)
            raise RejectedRecordError(f"event {event.id} ({event.type}) failed: {why}") from error
        await self._consumed.park(
            event.saga_id, event.version, record, why, from_middle=self._from_middle
        )

    # ------------------------------------------------------------------ what was set aside

    async def parked(self) -> list[ParkedEvent]:
        """The events that are parked in the database, saga by saga in order."""
        return await self._with_database().parked()

    async def replay(self, saga_id: str) -> int:
        """Handle the parked events of a saga, in order, each in its own transaction; how many.

        What a handler raises comes out; that event and those behind it stay parked. New events of
        the saga queue up behind. May run beside `run`, in this process or another one.
        """
        consumed, count = self._with_database(), 0
        while await consumed.replay(saga_id, lambda rec, eff: self._call(event_of(rec), eff)):
            count += 1
        return count

    async def accept_gap(self, saga_id: str, version: int) -> bool:
        """Let a saga go on with *version*, though events are missing; False when it is past it."""
        return await self._with_database().accept_gap(saga_id, version)

    def _with_database(self) -> ConsumedEvents:
        if self._consumed is None:
            raise InvalidInputError(
                "this consumer has no database to keep anything in: EventConsumer(..., database=url)"
            )
        return self._consumed


def _wanted(function: Handler) -> Any:
    """The type of a handler's second parameter. DefinitionError when it is no handler."""
    name = getattr(function, "__name__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"handler {name} must be an `async def`")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) not in (1, 2):
        raise DefinitionError(
            f"handler {name} takes the event, and the database if it wants it; "
            f"this one has {len(parameters)} parameters"
        )
    if len(parameters) == 1:
        return None
    try:
        hints = typing.get_type_hints(function)
        return handle_kind(hints.get(parameters[1].name))
    except (NameError, InvalidInputError) as error:
        raise DefinitionError(f"handler {name}: {error}") from error
