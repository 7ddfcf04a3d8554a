"""Records of topics become starts and signals, each once, however often the record comes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from orchestrator.domain.inbound import Inbound, OnEvent, OnSignal
from orchestrator.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    NotYetError,
    RejectedRecordError,
    TooLateError,
    UnavailableError,
)
from orchestrator.ports import Filter, Instance, Record
from orchestrator.runtime.arrival import Arrival, arrival_of, headers_of
from orchestrator.runtime.service import Orchestrator

T = TypeVar("T")


class InboundIntake:
    """orchestrator.ports.Intake over declarations.

    The record's id is stored with the start, or with the signal, in the same transaction: that is
    what makes a record that comes again change nothing.
    """

    def __init__(self, orchestrator: Orchestrator, declared: Sequence[Inbound]) -> None:
        self._orchestrator = orchestrator
        self._of: defaultdict[str, list[Inbound]] = defaultdict(list)
        for one in declared:
            self._of[one.topic].append(one)

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that are declared."""
        return tuple(self._of)

    async def take(self, record: Record, attempt: int) -> None:
        """As the port says. A record that several declarations mean goes to all of them."""
        del attempt
        headers = headers_of(record)
        meant = [one for one in self._of[record.topic] if _is_meant(one, headers)]
        if not meant:
            return
        arrival = arrival_of(record)
        refused: list[RejectedRecordError] = []
        waiting: list[NotYetError] = []
        for one in meant:
            try:
                await self._deliver(one, record, arrival)
            except RejectedRecordError as error:
                refused.append(error)
            except NotYetError as error:
                waiting.append(error)
        told = "; ".join(map(str, [*refused, *waiting]))
        if waiting:
            raise NotYetError(told, max(one.patience or 0.0 for one in waiting))
        if refused:
            raise RejectedRecordError(told)

    async def _deliver(self, one: Inbound, record: Record, arrival: Arrival) -> None:
        try:
            value = self._orchestrator.codec.decode(arrival.text, one.model)
            if isinstance(one, OnEvent):
                await self._start(one, arrival, value)
            else:
                await self._signal(one, record, arrival, value)
        except (InvalidInputError, ConflictError, NotFoundError) as error:
            raise RejectedRecordError(f"{one.told}: {error}") from error

    # ------------------------------------------------------------------ starts

    async def _start(self, one: OnEvent, arrival: Arrival, value: Any) -> None:
        given = value if one.input is None else _ask(one, "input", one.input, value)
        key = arrival.id if one.key is None else _ask(one, "key", one.key, value)
        _check_text(one, "key", key)
        await self._orchestrator.start(one.saga, given, key=key, context=arrival.context)

    # ------------------------------------------------------------------ signals

    async def _signal(self, one: OnSignal, record: Record, arrival: Arrival, value: Any) -> None:
        payload = value if one.payload is None else _ask(one, "payload", one.payload, value)
        instance = await self._instance(one, record, value)
        try:
            await self._orchestrator.signal(
                instance.saga_id,
                one.signal,
                payload,
                # A record may be several signals to one instance.
                dedupe_key=f"{arrival.id}:{one.signal.name}",
                actor=f"topic {record.place}",
            )
        except TooLateError:
            raise
        except ConflictError as error:  # its inbox is full
            raise NotYetError(f"{one.told}: {error}", one.patience) from error

    async def _instance(self, one: OnSignal, record: Record, value: Any) -> Instance:
        reads, found = self._orchestrator.store.reads, None
        if one.saga_id is not None:
            told = wanted = _ask(one, "saga_id", one.saga_id, value)
            _check_text(one, "saga_id", wanted)
            found = await reads.get(wanted)
        else:
            wanted = _own_key(record) if one.key is None else _ask(one, "key", one.key, value)
            _check_text(one, "key", wanted)
            told = f"with key {wanted!r}"
            among = await reads.search(Filter(name=one.saga.name, key=wanted, limit=1))
            found = among[0] if among else None
        if found is None:
            raise NotYetError(f"{one.told}: there is no instance {told}", one.patience)
        if found.name != one.saga.name:
            raise RejectedRecordError(f"{one.told}: {told} is an instance of {found.name!r}")
        return found


def _is_meant(one: Inbound, headers: dict[str, str]) -> bool:
    return one.when is None or bool(_ask(one, "when", one.when, headers))


def _ask(one: Inbound, name: str, function: Callable[[Any], T], value: Any) -> T:
    """What a function of the declaration says; its own errors reject the record."""
    try:
        return function(value)
    except UnavailableError:
        raise
    except Exception as error:
        raise RejectedRecordError(
            f"{one.told}: its {name} failed: {type(error).__name__}: {error}"
        ) from error


def _own_key(record: Record) -> str:
    return "" if record.key is None else record.key.decode("utf-8", "replace")


def _check_text(one: Inbound, name: str, found: object) -> None:
    if not isinstance(found, str) or not found:
        raise RejectedRecordError(f"{one.told}: its {name} is {found!r}, which is not a text")
