"""A saga that makes every kind of write, a participant that counts, and workers behind a wire."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from orchestrator import (
    Attempted,
    Completed,
    Handle,
    Orchestrator,
    Permanent,
    Primitive,
    Saga,
    Signal,
    Step,
    UnavailableError,
    Worker,
    WorkerSettings,
    WorkflowContext,
    pure,
    sleep,
    step,
    transactional,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import Store

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]
else:
    Driver = asyncpg.Connection  # generic in the stubs only

T = TypeVar("T")

PATIENCE = 0.25
"""Seconds that a statement may take; twice that until its connection is given up."""

QUICK = WorkerSettings(
    ttl=2.0, renew_every=0.1, command_timeout=PATIENCE, margin=0.3, poll_every=0.05,
    watch_every=0.15, park_after=0.05, announce_after=0.05, grace=2.0,
)  # fmt: skip

BOOK = "CREATE TABLE IF NOT EXISTS book (saga text NOT NULL, what text NOT NULL)"
_ENTER = "INSERT INTO book (saga, what) VALUES ($1, $2)"


def settings(
    namespace: str = "default", *, patience: float = PATIENCE, **more: Any
) -> PostgresSettings:
    """Connections with short bounds."""
    return PostgresSettings(
        namespace=namespace, command_timeout=patience, lock_timeout=patience, pool_size=4, **more
    )


@dataclass
class Participant:
    """Applies each key once, counts each call, and knows the order in which it was asked."""

    calls: Counter[str] = field(default_factory=Counter)
    applied: dict[str, str] = field(default_factory=dict)
    undone: dict[str, str] = field(default_factory=dict)

    def do(self, what: str, ctx: WorkflowContext) -> None:
        """Apply it, the first time it is asked."""
        self.calls[ctx.idempotency_key] += 1
        self.applied.setdefault(ctx.idempotency_key, what)

    def undo(self, what: str, key: str) -> None:
        """Take it back, the first time it is asked."""
        self.calls[f"{key}/undo"] += 1
        self.undone.setdefault(key, what)

    def forget(self) -> None:
        """Begin a clean page."""
        self.calls.clear()
        self.applied.clear()
        self.undone.clear()

    @property
    def repeats(self) -> int:
        """Calls over what they brought about."""
        return sum(self.calls.values()) - len(self.calls)


def act(name: str) -> Step[int, int]:
    """A step that adds one at the participant's."""

    async def action(n: int, ctx: WorkflowContext) -> int:
        ctx.use(Participant).do(name, ctx)
        await asyncio.sleep(0)
        return n + 1

    made = step(name=name)(action)

    @made.compensation_on_doubt
    async def back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        ctx.use(Participant).undo(name, tried.key)

    return made


@transactional
async def enter(n: int, ctx: WorkflowContext, db: Driver) -> int:
    """Writes to the user's own table, in the transaction of its event."""
    await db.execute(_ENTER, ctx.saga_id, "enter")
    return n + 1


@enter.compensation
async def strike_out(done: Completed[int, int], ctx: WorkflowContext, db: Driver) -> None:
    await db.execute(_ENTER, ctx.saga_id, "-enter")


async def _refuse(n: int, ctx: WorkflowContext) -> int:
    raise Permanent("no")


def _add(pair: tuple[int, int]) -> int:
    return sum(pair)


async def _asked(n: int, ctx: WorkflowContext) -> int:
    ctx.use(Participant).do("ask", ctx)
    return n + 1


go = Signal("go", int)
ask = (
    step(name="ask")(_asked)
    .without_undo("it changes nothing")
    .circuit("bank")
    .rate_limit("calls", 1000)
    .cache(60)
)

DONE = ("ask", "carry", "fetch", "hold", "last", "left", "right")
UNDONE = ("carry", "fetch", "hold", "last", "left", "right")


def tour(*, refused: bool = False) -> Saga[int, Any]:
    """One of each kind of write; with *refused* all of it is taken back."""
    errand = Saga("errand", 1, act("fetch") >> act("carry")).child()
    body: Primitive[int, Any] = (
        act("hold")
        >> (act("left") | act("right"))
        >> pure(_add)
        >> go.wait()
        >> enter
        >> sleep(0.1)
        >> errand
        >> ask
        >> act("last")
    )
    if refused:
        return Saga("refused", 1, body >> step(name="refuse")(_refuse))
    return Saga("tour", 1, body)


@dataclass
class Plant:
    """One process: a store, an orchestrator, and a participant that outlives its workers."""

    store: Store
    orchestrator: Orchestrator
    sagas: tuple[Saga[Any, Any], ...]
    participant: Participant

    @asynccontextmanager
    async def working(self, how: WorkerSettings = QUICK) -> AsyncIterator[None]:
        """A worker, for as long as the block lasts."""
        stop = asyncio.Event()
        worker = Worker(
            self.store, JsonCodec(), SilentTelemetry(), self.sagas, {Participant: self.participant},
            how,
        )  # fmt: skip
        running = asyncio.create_task(worker.run(stop), name="worker")
        try:
            yield
        finally:
            stop.set()
            await running


@asynccontextmanager
async def plant(
    dsn: str, *sagas: Saga[Any, Any], namespace: str = "default",
    participant: Participant | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[Plant]:  # fmt: skip
    """A process on the database at *dsn*."""
    async with open_store(dsn, settings=settings(namespace, patience=patience)) as store:
        service = Orchestrator(store, JsonCodec(), SilentTelemetry(), sagas)
        try:
            yield Plant(store, service, sagas, participant or Participant())
        finally:
            await service.close()


async def insist(ask_: Callable[[], Awaitable[T]], within: float = 15.0) -> T:
    """Ask again, with the same key, until the database has heard it: as every client should."""
    async with asyncio.timeout(within):
        while True:
            try:
                return await ask_()
            except UnavailableError:
                await asyncio.sleep(0.02)


async def check_log(service: Orchestrator, handle: Handle[Any]) -> list[str]:
    """I1 to I3 of one instance; the types of its events."""
    entries = [entry async for entry in service.history(handle.saga_id)]
    assert await service.verify(handle.saga_id) == len(entries)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    epochs = [entry.row.epoch for entry in entries]
    assert epochs == sorted(epochs), "an event of an old owner follows one of a new owner"
    assert (await service.replay(handle.saga_id)).agrees
    return [entry.type for entry in entries]


def check_effects(participant: Participant, *, refused: bool = False) -> None:
    """Every effect was applied under one key, and undone if the saga went back."""
    assert sorted(participant.applied.values()) == sorted(DONE)
    assert sorted(participant.undone.values()) == (sorted(UNDONE) if refused else [])
    order = [what for what in participant.undone.values() if what not in ("left", "right")]
    assert order == (["last", "carry", "fetch", "hold"] if refused else [])
