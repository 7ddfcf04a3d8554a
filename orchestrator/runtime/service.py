"""The use cases that every face calls: start, look, wait, cancel, audit."""

from __future__ import annotations

import asyncio
import difflib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.events import ENDED, Event, Json, SagaCompleted, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.exchange import RemoteReply
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.messages import signals
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.state import SagaState
from orchestrator.domain.waiting import Signal
from orchestrator.errors import (
    InvalidInputError,
    KeyConflictError,
    NotFoundError,
    SagaFailedError,
    UnavailableError,
    UnrecordableError,
)
from orchestrator.ports import (
    DUE,
    Codec,
    Definition,
    EventRow,
    Filter,
    Instance,
    MessageKind,
    Reply,
    StartAnswer,
    StartRequest,
    Store,
    Telemetry,
)
from orchestrator.runtime import machine
from orchestrator.runtime.asking import (
    check_key,
    check_words,
    context_text,
    needed,
    refusal,
)
from orchestrator.runtime.chain import check_chain
from orchestrator.runtime.ends import Ends
from orchestrator.runtime.engine import definitions
from orchestrator.runtime.machine import new_id
from orchestrator.runtime.recorder import GroupCommit
from orchestrator.runtime.why import Why, look

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

_CONTEXT_FIELDS = (
    "correlation_id", "causation_id", "trace_id", "span_id", "user_id",
    "metadata", "tags", "baggage",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event of a history: the row as stored and the fact in it."""

    row: EventRow
    event: Event

    @property
    def seq(self) -> int:
        return self.row.version

    @property
    def type(self) -> str:
        return self.row.type

    @property
    def node(self) -> str:
        return self.row.node

    @property
    def at(self) -> datetime:
        return self.row.recorded_at


@dataclass(frozen=True, slots=True)
class Order(Generic[In]):
    """One saga to be started, as `start_many` takes it."""

    input: In
    key: str | None = None
    context: WorkflowContext | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """What folding a history again gave, beside what the row says; `agrees` when both match."""

    saga_id: str
    events: int
    folded: Status
    stored: Status
    agrees: bool


class Handle(Generic[Out]):
    """One instance, as its starter holds it."""

    def __init__(self, service: Orchestrator, saga_id: str, saga: Saga[Any, Out] | None) -> None:
        self._service = service
        self.saga_id = saga_id
        self.saga = saga

    async def result(self, within: float | None = None) -> Out:
        """Wait for the result, at most *within* seconds (TimeoutError then; the saga goes on).

        Raises SagaFailedError when the instance was compensated, terminated, or is stuck.
        """
        status = await self._service.wait(self.saga_id, within)
        return await self._service.result_of(self.saga_id, status, self.saga)

    async def status(self) -> Status:
        """Where the instance stands, by its row."""
        return (await self._service.get(self.saga_id)).status

    async def state(self) -> SagaState:
        """Where the instance stands, folded from its events."""
        return await self._service.state(self.saga_id)

    async def signal(
        self, signal: Signal[T], payload: T, *, dedupe_key: str | None = None, actor: str = ""
    ) -> bool:
        """Send a signal; False when one with the same dedupe key came before."""
        return await self._service.signal(
            self.saga_id, signal, payload, dedupe_key=dedupe_key, actor=actor
        )

    async def cancel(self, reason: str = "", *, actor: str = "") -> None:
        """Ask for the instance to be taken back. Raises TooLateError when it has ended."""
        await self._service.cancel(self.saga_id, reason, actor=actor)

    async def terminate(self, reason: str, *, actor: str = "") -> None:
        """End the instance where it stands; nothing is undone. TooLateError when it has ended."""
        await self._service.terminate(self.saga_id, reason, actor=actor)

    def history(self) -> AsyncIterator[HistoryEntry]:
        """The events so far, in order."""
        return self._service.history(self.saga_id)


class Orchestrator:
    """Starts sagas and answers for them. Any number of processes may hold one each."""

    def __init__(
        self,
        store: Store,
        codec: Codec,
        telemetry: Telemetry,
        sagas: Sequence[Saga[Any, Any]] = (),
    ) -> None:
        self.store = store
        self.codec = codec
        self.telemetry = telemetry
        self.sagas: dict[Definition, Saga[Any, Any]] = definitions(sagas)
        self._starts: GroupCommit[StartRequest, str] = GroupCommit(
            "start", self._commit_starts, _measured, telemetry, limit=500
        )
        self._ends = Ends(store)

    # ------------------------------------------------------------------ starting

    async def start(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        key: str | None = None,
        context: WorkflowContext | None = None,
        in_transaction: object | None = None,
    ) -> Handle[Out]:
        """Begin *saga* with *input*; durable when this returns.

        With *in_transaction* (an SQLAlchemy AsyncSession or AsyncConnection, or an asyncpg
        connection) it begins when, and only if, the caller commits.

        With *key* it is idempotent: the same key and input give the same instance,
        KeyConflictError for another input. Raises InvalidInputError for an input that is not
        the saga's.
        """
        request = self.request(saga, input, key=key, context=context)
        if in_transaction is None:
            return Handle(self, await self._starts.submit(request), saga)
        [answer] = await self.store.requests.start([request], within=in_transaction)
        return Handle(self, _started(request, answer), saga)

    async def start_many(
        self, saga: Saga[In, Out], orders: Sequence[Order[In]]
    ) -> list[Handle[Out]]:
        """Begin one instance for each order.

        Nothing is stored when an order is not valid. Otherwise each stands for itself: the first
        error is raised once all are answered, and does not take the others back.
        """
        requests = [self.request(saga, o.input, key=o.key, context=o.context) for o in orders]
        answers = await asyncio.gather(*map(self._starts.submit, requests), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [Handle(self, str(saga_id), saga) for saga_id in answers]

    def request(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        key: str | None = None,
        context: WorkflowContext | None = None,
    ) -> StartRequest:
        """The checked request that `start` stores."""
        if key is not None:
            check_key(key)
        text = self._checked_input(saga, input)
        saga_id = new_id()
        given = context or WorkflowContext()
        fields: dict[str, Any] = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name in _CONTEXT_FIELDS
            if (value := getattr(given, name))
        }
        fields.setdefault("correlation_id", saga_id)
        return StartRequest(
            saga_id,
            saga.name,
            saga.version,
            saga.fingerprint,
            key,
            text,
            context_text(fields),
            fields["correlation_id"],
            fields.get("tags", {}),
        )

    def _checked_input(self, saga: Saga[In, Any], input: In) -> Json:
        try:
            return self.codec.encode(input, saga.input_type)
        except UnrecordableError as error:
            raise InvalidInputError(f"input of saga {saga.name!r}: {error}") from error

    async def _commit_starts(self, batch: Sequence[StartRequest]) -> Sequence[str | Exception]:
        try:
            answers = await self.store.requests.start(batch)
        except InvalidInputError as error:
            # Nothing was stored; one bad value must not take its neighbours down with it.
            if len(batch) == 1:
                return [error]
            half = len(batch) // 2
            return [*await self._commit_part(batch[:half]), *await self._commit_part(batch[half:])]
        self.store.hints.poke(DUE)
        return [
            _started_or_error(request, answer)
            for request, answer in zip(batch, answers, strict=True)
        ]

    async def _commit_part(self, batch: Sequence[StartRequest]) -> Sequence[str | Exception]:
        try:
            return await self._commit_starts(batch)
        except UnavailableError as error:
            # Of this part; what became of the others stands.
            return [type(error)(str(error)) for _ in batch]

    # ------------------------------------------------------------------ looking

    def find_saga(self, name: str, version: int | None = None) -> Saga[Any, Any]:
        """The saga of that name, the newest version unless one is named."""
        versions = sorted(v for n, v in self.sagas if n == name)
        wanted = version if version is not None else (versions[-1] if versions else 0)
        if (name, wanted) in self.sagas:
            return self.sagas[name, wanted]
        if versions:
            raise NotFoundError(f"saga {name!r} has no version {wanted}; there are {versions}")
        names = sorted({n for n, _ in self.sagas})
        nearest = difflib.get_close_matches(name, names, cutoff=0.4) or names[:5]
        raise NotFoundError(f"there is no saga {name!r}", nearest)

    async def get(self, saga_id: str) -> Instance:
        """The row of an instance; *saga_id* may be the beginning of one, if only one begins so."""
        found = await self.store.reads.get(saga_id) if _is_id(saga_id) else None
        if found is None:
            found = await self._by_prefix(saga_id)
        return found

    async def _by_prefix(self, prefix: str) -> Instance:
        text = prefix.strip().lower()
        near = await self.store.reads.find(text) if text and set(text) <= _ID_CHARACTERS else []
        if len(near) == 1 and (found := await self.store.reads.get(near[0])):
            return found
        if near:
            raise NotFoundError(f"{prefix!r} is the beginning of several ids", near)
        newest = await self.store.reads.search(Filter(limit=3))
        nearest = difflib.get_close_matches(text, [i.saga_id for i in newest], cutoff=0.7)
        raise NotFoundError(f"there is no saga instance {prefix!r}", nearest)

    async def search(self, wanted: Filter | None = None) -> list[Instance]:
        """Instances, newest first."""
        return await self.store.reads.search(wanted or Filter())

    async def handle(self, saga_id: str) -> Handle[Any]:
        """A handle of an instance that was started elsewhere."""
        found = await self.get(saga_id)
        return Handle(self, found.saga_id, self.sagas.get((found.name, found.version)))

    async def history(self, saga_id: str) -> AsyncIterator[HistoryEntry]:
        """The events of an instance, in order."""
        for row in await self.store.events.read((await self.get(saga_id)).saga_id):
            yield self.entry(row)

    def entry(self, row: EventRow) -> HistoryEntry:
        """A stored row with the fact in it."""
        return HistoryEntry(row, self.codec.decode_event(row))

    async def state(self, saga_id: str, *, at: int | None = None) -> SagaState:
        """The instance folded from its events, as it stood after event *at*."""
        state = SagaState((await self.get(saga_id)).saga_id)
        async for entry in self.history(saga_id):
            if at is not None and entry.seq > at:
                break
            evolve(state, entry.event)
        return state

    async def why(self, saga_id: str) -> Why:
        """Why an instance does not move: whom or what it waits for, since when, until when."""
        return await look(self.store, self.codec, await self.get(saga_id))

    # ------------------------------------------------------------------ waiting

    async def wait(self, saga_id: str, within: float | None = None) -> Status:
        """Wait until the instance has ended or is stuck. TimeoutError after *within* seconds."""
        if not _is_id(saga_id):
            saga_id = (await self.get(saga_id)).saga_id
        return await self._ends.wait(saga_id, within)

    async def result_of(
        self, saga_id: str, status: Status, saga: Saga[Any, Out] | None = None
    ) -> Out:
        """The result of an instance that ended; SagaFailedError when it has none."""
        rows = await self.store.events.read(saga_id)
        last = self.codec.decode_event(rows[-1]) if rows else None
        if isinstance(last, SagaCompleted):
            annotation = Any if saga is None else saga.output_type
            result: Out = self.codec.decode(last.output, annotation)
            return result
        reason = getattr(last, "reason", "") or "no reason recorded"
        raise SagaFailedError(f"saga {saga_id} is {status}: {reason}", status)

    # ------------------------------------------------------------------ acting

    async def cancel(
        self, saga_id: str, reason: str = "", *, actor: str = "", dedupe_key: str | None = None
    ) -> None:
        """Ask for an instance to be taken back: what runs settles, then all is undone.

        An accepted cancel never ends as `completed`. Raises TooLateError when it has ended.
        """
        await self._send(saga_id, MessageKind.CANCEL, {"reason": reason}, actor, dedupe_key)

    async def signal(
        self,
        saga_id: str,
        signal: Signal[T] | str,
        payload: T,
        *,
        dedupe_key: str | None = None,
        actor: str = "",
    ) -> bool:
        """Send a signal to an instance; False when one with the same dedupe key came before.

        It may come before the instance waits for it. Named by text alone, its payload is given
        in JSON values. Raises InvalidInputError for a payload that
        is not the signal's, or a name that the saga does not wait for; TooLateError when the
        instance has ended.
        """
        instance = await self.get(saga_id)
        name = signal if isinstance(signal, str) else signal.name
        model = self._signal_model(instance, signal)
        if isinstance(signal, str):
            # Named only, it comes from outside: its payload is JSON values, not yet the model.
            payload = self.codec.decode(Json(json.dumps(payload)), model)
        try:
            text = self.codec.encode(payload, model)
        except UnrecordableError as error:
            raise InvalidInputError(f"payload of signal {name!r}: {error}") from error
        return await self._send(
            instance.saga_id, MessageKind.SIGNAL, {"name": name, "data": text}, actor, dedupe_key
        )

    def signals_of(self, instance: Instance) -> dict[str, Signal[Any]] | None:
        """The signals that an instance may wait for; None when its saga is not known here."""
        saga = self.sagas.get((instance.name, instance.version))
        return None if saga is None else signals(saga)

    def _signal_model(self, instance: Instance, signal: Signal[Any] | str) -> Any:
        saga = self.sagas.get((instance.name, instance.version))
        if isinstance(signal, Signal):
            return signal.model
        if saga is None:
            return Any
        known = signals(saga)
        has_code = any(isinstance(node, FlowNode) for node in walk(saga.tree))
        if signal not in known and not has_code:
            there = ", ".join(known) or "none at all"
            raise InvalidInputError(
                f"saga {instance.name!r} waits for no signal {signal!r}; it waits for: {there}"
            )
        return known[signal].model if signal in known else Any

    async def terminate(
        self, saga_id: str, reason: str, *, actor: str = "", dedupe_key: str | None = None
    ) -> None:
        """End an instance where it stands, and its live children with it; nothing is undone."""
        payload = {"reason": needed(reason, "terminate")}
        await self._send(saga_id, MessageKind.TERMINATE, payload, actor, dedupe_key)

    async def resume(self, saga_id: str, reason: str = "", *, actor: str = "") -> None:
        """Let a stuck instance go on where it stood, once what was in its way is mended."""
        await self._send(saga_id, MessageKind.RESUME, {"reason": reason}, actor, None)

    async def retry_step(
        self,
        saga_id: str,
        step: str = "",
        *,
        input: Json | None = None,
        output: Json | None = None,
        reason: str = "",
        actor: str = "",
    ) -> None:
        """Try the stuck step, or its compensation, again; on another input or output if given."""
        payload = {"step": step, "reason": reason, "input": input, "output": output}
        await self._send(saga_id, MessageKind.RETRY, payload, actor, None)

    async def skip_compensation(
        self, saga_id: str, step: str = "", *, reason: str, actor: str = ""
    ) -> None:
        """Do not undo a step whose compensation is stuck: somebody has taken it on himself."""
        payload = {"step": step, "reason": needed(reason, "skip")}
        await self._send(saga_id, MessageKind.SKIP, payload, actor, None)

    async def resolve(
        self,
        saga_id: str,
        step: str,
        *,
        happened: bool,
        output: Json | None = None,
        reason: str = "",
        actor: str = "",
    ) -> None:
        """Say whether a step in doubt happened; with its output, if the saga needs that."""
        payload = {"step": step, "happened": happened, "output": output, "reason": reason}
        await self._send(saga_id, MessageKind.RESOLVE, payload, actor, None)

    async def take_reply(self, reply: RemoteReply) -> Reply:
        """Put a participant's reply into the inbox of its instance; a repeat changes nothing.

        Too late, or for an instance that is not here, it is of no use to anybody.
        """
        try:
            saga_id = str(uuid.UUID(reply.saga_id))
        except ValueError:
            return Reply.NOT_FOUND
        answer = await self.store.inbox.send(
            saga_id,
            MessageKind.REPLY,
            reply.message(),
            actor=f"participant {reply.participant}".rstrip(),
            dedupe_key=reply.dedupe_key,
        )
        if answer is Reply.ACCEPTED:
            self.store.hints.poke(DUE)
        self.telemetry.count("replies_accepted" if answer is Reply.ACCEPTED else "replies_dropped")
        return answer

    async def _send(
        self,
        saga_id: str,
        kind: MessageKind,
        payload: Mapping[str, Any],
        actor: str,
        dedupe_key: str | None,
    ) -> bool:
        """Put a message into the inbox; False when it was there already."""
        check_words(payload, actor)
        instance = await self.get(saga_id)
        reply = await self.store.inbox.send(
            instance.saga_id,
            kind,
            payload,
            actor=actor or "unknown",
            dedupe_key=dedupe_key or f"{kind}-{machine.new_name()}",
        )
        self.store.hints.poke(DUE)
        if reply in (Reply.ACCEPTED, Reply.DUPLICATE):
            return reply is Reply.ACCEPTED
        raise refusal(instance, kind, reply)

    # ------------------------------------------------------------------ auditing

    async def verify(self, saga_id: str) -> int:
        """Check the hash chain of an instance; how many events it holds.

        Raises TamperedHistoryError naming the first event that was changed, lost or moved.
        """
        instance = await self.get(saga_id)
        rows = await self.store.events.read(instance.saga_id)
        head = instance.head
        if len(rows) > head:
            # What was appended after the row was read is in the row by now.
            head = min((await self.get(instance.saga_id)).head, len(rows))
        check_chain(instance.saga_id, rows, head)
        return len(rows)

    async def verify_all(self, progress: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Verify every instance; how many instances and events there were."""
        sagas = events = 0
        after: str | None = None
        while page := await self.store.reads.ids(after, 500):
            for saga_id in page:
                events += await self.verify(saga_id)
                sagas += 1
            after = page[-1]
            if progress is not None:
                progress(sagas)
        return sagas, events

    async def replay(self, saga_id: str) -> Replay:
        """Fold the history again, without any effect, and compare with the row."""
        instance = await self.get(saga_id)
        state = await self.state(instance.saga_id)
        stored = instance.status
        folded = state.status
        same = folded == (Status.RUNNING if stored is Status.WAITING else stored)
        agrees = same and state.version == instance.head
        return Replay(instance.saga_id, state.version, folded, stored, agrees)

    async def close(self) -> None:
        """Wait for starts under way; who still waits for an end gets an UnavailableError."""
        await self._starts.close()
        await self._ends.close()


def _measured(request: StartRequest) -> tuple[str, int]:
    return request.saga_id, len(request.input)


def _started(request: StartRequest, answer: StartAnswer) -> str:
    found = _started_or_error(request, answer)
    if isinstance(found, Exception):
        raise found
    return found


def _started_or_error(request: StartRequest, answer: StartAnswer) -> str | KeyConflictError:
    if answer.created or answer.same_input:
        return answer.saga_id
    return KeyConflictError(
        f"key {request.key!r} of saga {request.name!r} belongs to {answer.saga_id}, which "
        "was started with another input; use another key, or the same input"
    )


_ID_CHARACTERS = frozenset("0123456789abcdef-")


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


__all__ = ["ENDED", "Handle", "HistoryEntry", "Json", "Orchestrator", "Order", "Replay", "new_id"]
