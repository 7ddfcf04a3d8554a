"""What a worker asks of the simulated server: the log, the queue, the fleet; and the whole store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from orchestrator.adapters.memory.workers import MemoryFleet
from orchestrator.errors import InvalidInputError, OwnershipLostError, UnavailableError
from orchestrator.ports import (
    Append,
    Claim,
    Definition,
    EventRow,
    Member,
    Owned,
    Retired,
    Store,
)
from tests.simulation.others import (
    SimClock,
    SimFeedHandle,
    SimHints,
    SimInbox,
    SimReads,
    SimRequests,
    SimShared,
)
from tests.simulation.wire import COMMAND_TIMEOUT, Wire, at_once


class SimEvents:
    """orchestrator.ports.EventStore."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        wire, store = self._wire, self._wire.database.events
        wire.refuse_busy("append busy", "append")
        ids = sorted(append.saga_id for append in batch)
        tell = " ".join(
            f"{a.saga_id[-2:]}:{a.head}+{len(a.events)}@{a.epoch}"
            f"{'' if a.owner_after else ' ' + a.status}"
            for a in batch
        )
        written: Mapping[str, int] = await wire.ask(
            "append", store.finish, rows=lambda: ids if store.locks else (),
            begin=lambda: store.prepare(batch),
            writes=True, decides=True, gate=True, fate=wire.fate_of("append", tell), tell=tell,
        )  # fmt: skip
        return written

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        store = self._wire.database.events
        rows: list[EventRow] = await self._wire.ask(
            "read events", lambda _: list(at_once(store.read(saga_id, after)))
        )
        return rows


class SimTransaction:
    """An open transaction; what the step wrote is there when the append is, or not at all."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.written: list[Callable[[], None]] = []
        self.handle: Any = self

    async def append(self, append: Append) -> int:
        wire, store = self._wire, self._wire.database.events
        if wire.faults.strikes("transaction rolled back"):
            raise InvalidInputError("a constraint was checked at the end")

        def act(prepared: Any) -> int:
            written = store.finish(prepared)
            if append.saga_id not in written:
                raise OwnershipLostError(f"saga {append.saga_id} was refused")
            for write in self.written:
                write()
            return written[append.saga_id]

        tell = f"{append.saga_id[-2:]}:{append.head}+{len(append.events)}@{append.epoch}"
        sequence: int = await wire.ask(
            "append in transaction", act, rows=lambda: [append.saga_id],
            begin=lambda: store.prepare([append]), writes=True, decides=True, gate=True,
            fate=wire.fate_of("append", tell), tell=tell,
        )  # fmt: skip
        return sequence


class SimTransactions:
    """orchestrator.ports.Transactions."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @asynccontextmanager
    async def open(self, wanted: Any) -> AsyncIterator[SimTransaction]:
        await self._wire.ask("begin", lambda _: None)
        yield SimTransaction(self._wire)


class SimQueue:
    """orchestrator.ports.WorkQueue."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._queue = wire.database.queue

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        database, queue = self._wire.database, self._queue
        found: list[Any] = []

        def rows() -> list[str]:
            found[:] = queue.candidates(owner, limit, definitions, database.locked)
            return [f"worker {owner}", *(row.request.saga_id for row in found)]

        claims: list[Claim] = await self._wire.ask(
            "claim", lambda _: queue.take(found, owner), rows=rows, writes=True,
            fate=self._wire.fate_of("claim", owner),
        )  # fmt: skip
        return claims

    async def reclaim(
        self, owner: str, saga_id: str, epoch: int, *, counts: bool = True
    ) -> Claim | None:
        claim: Claim | None = await self._wire.ask(
            "reclaim", lambda _: at_once(self._queue.reclaim(owner, saga_id, epoch, counts=counts)),
            rows=lambda: [saga_id], writes=True, fate=self._wire.fate_of("claim", saga_id),
            tell=f"{saga_id[-2:]}@{epoch}",
        )  # fmt: skip
        return claim

    async def release(
        self,
        owner: str,
        saga_ids: Sequence[str],
        delay: timedelta = timedelta(0),
        *,
        untouched: bool = False,
    ) -> None:
        ids = sorted(saga_ids)
        await self._wire.ask(
            "release", lambda _: at_once(self._queue.release(owner, ids, delay, untouched=untouched)),
            rows=lambda: ids, writes=True, tell=" ".join(i[-2:] for i in ids),
        )  # fmt: skip

    async def owned(self, owner: str) -> list[Owned]:
        found: list[Owned] = await self._wire.ask(
            "owned", lambda _: at_once(self._queue.owned(owner))
        )
        return found


class SimFleet:
    """orchestrator.ports.Fleet."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._fleet = wire.database.fleet_type(wire.database.tables)
        self.joined: list[str] = []

    @property
    def fake(self) -> MemoryFleet:
        return self._fleet

    async def join(
        self,
        worker_id: str,
        label: str,
        ttl: timedelta,
        definitions: Sequence[Definition] | None = None,
    ) -> None:
        self.joined.append(worker_id)
        await self._wire.ask(
            "join",
            lambda _: at_once(self._fleet.join(worker_id, label, ttl, definitions)),
            writes=True,
        )

    async def members(self) -> list[Member]:
        found: list[Member] = await self._wire.ask(
            "members", lambda _: at_once(self._fleet.members())
        )
        return found

    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        wire = self._wire
        if wire.place.renewals_lost:
            await asyncio.sleep(COMMAND_TIMEOUT)
            raise UnavailableError("no answer in time")

        def act(_: Any) -> bool:
            alive: bool = at_once(self._fleet.renew(worker_id, ttl))
            if alive and worker_id in wire.database.retired:
                wire.database.wrong.append(f"I23 worker {worker_id} came back from the dead")
            return alive

        alive: bool = await wire.ask(
            "renew", act, rows=lambda: [f"worker {worker_id}"], writes=True
        )
        return alive

    async def oldest_transaction(self) -> float:
        return 0.0

    async def retire_dead(self) -> list[Retired]:
        database = self._wire.database

        seen: list[str] = []

        def rows() -> list[str]:
            seen[:] = self._dead()
            return self._of(seen)

        def act(_: Any) -> list[Retired]:
            if self._dead() != seen:
                return []  # what belongs to those who died since is not locked: the next time
            found: list[Retired] = at_once(self._fleet.retire_dead())
            database.retired.update(each.worker_id for each in found)
            return found

        retired: list[Retired] = await self._wire.ask("retire dead", act, rows=rows, writes=True)
        return retired

    async def leave(self, worker_id: str) -> None:
        await self._wire.ask(
            "leave", lambda _: at_once(self._fleet.leave(worker_id)),
            rows=lambda: self._of([worker_id]), writes=True,
        )  # fmt: skip

    def _dead(self) -> list[str]:
        tables, now = self._wire.database.tables, self._wire.database.now()
        return [i for i, w in tables.workers.items() if w.lease_until <= now or not w.present]

    def _of(self, workers: Sequence[str]) -> list[str]:
        sagas = self._wire.database.tables.sagas
        held = sorted(saga_id for saga_id, row in sagas.items() if row.owner in workers)
        return [*(f"worker {worker}" for worker in workers), *held]


def open_store(
    wire: Wire, hints: SimHints, skew: float, others: Mapping[str, Callable[[Wire], Any]]
) -> Store:
    """The store of one process; *others* take the places of ports that they name."""
    handles: dict[str, Any] = {
        "events": SimEvents(wire),
        "queue": SimQueue(wire),
        "fleet": SimFleet(wire),
        "requests": SimRequests(wire),
        "inbox": SimInbox(wire),
        "feed": SimFeedHandle(wire),
        "reads": SimReads(wire),
        "clock": SimClock(wire.database, skew),
        "hints": hints.of(wire.place.loop),
        "shared": SimShared(wire),
        "transactions": SimTransactions(wire),
    }
    handles |= {name: make(wire) for name, make in others.items()}
    return Store(**handles)
