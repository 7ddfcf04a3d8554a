"""Every kind of write that a store makes, each with how to see how often it was made."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain.events import Json, Status
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate
from orchestrator.ports import Append, Claim, Cursor, Store
from tests.adapters.postgres.stepping import run
from tests.contract.given import ORDER, Given, request

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)


@dataclass
class Scene:
    """One write of one kind on a database: the store beside the wire, and what was prepared there."""

    beside: Store
    side: asyncpg.Connection[asyncpg.Record]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    owner: str = ""
    claim: Claim | None = None
    saga_id: str = ""

    @property
    def given(self) -> Given:
        return Given(self.beside)

    async def claimed(self) -> None:
        """An instance in the hands of a worker."""
        [(self.owner, self.claim)] = await self.given.claimed()
        self.saga_id = self.claim.saga_id

    def append(self, **more: Any) -> Append:
        """The next event of the claimed instance."""
        assert self.claim is not None
        return self.given.append(self.owner, self.claim, **more)

    async def look(self, write: Write) -> int:
        """How often a write was made, at one moment."""
        async with self.side.transaction(isolation="repeatable_read"):
            return await write.there()

    async def ask(self, sql: str, *args: object) -> int:
        """A number that the database knows."""
        found: int = await self.side.fetchval(sql, *(args or (self.saga_id,)))
        return found


class Write:
    """`act` writes once; `there` is 1 when it has happened, and 0 when not.

    `again` is what whoever does not know does next; afterwards it has happened once. With
    *decides* the answer to a lost commit must say that nobody knows.
    """

    matching: ClassVar[str]
    decides: ClassVar[bool] = False
    session: ClassVar[str] = ""
    on_new_connection: ClassVar[bool] = False
    """Its statement is never prepared before, and so the server's own time-out may end it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    async def prepare(self) -> None:
        """What has to be there before."""
        await self.scene.claimed()

    async def warm(self, store: Store) -> None:
        """Have the statement prepared: while it is not, a late one is cut off by the server."""
        other = type(self)(Scene(self.scene.beside, self.scene.side))
        await other.prepare()
        await other.act(store)

    async def act(self, store: Store) -> Any:
        raise NotImplementedError

    async def there(self) -> int:
        raise NotImplementedError

    async def first(self, store: Store) -> None:
        """What the same session has done before."""

    async def again(self, store: Store) -> None:
        """Do the same once more: its keys make it one."""
        await self.act(store)


# ---------------------------------------------------------------------------- requests


class Start(Write):
    """One instance, by its id."""

    matching = "INSERT INTO saga_input"
    decides = True
    count = 1

    async def prepare(self) -> None:
        self.batch = [
            request(key=f"{self.scene.name}-{n}" if n % 2 else None) for n in range(self.count)
        ]

    async def act(self, store: Store) -> Any:
        return await store.requests.start(self.batch)

    async def there(self) -> int:
        ids = [one.saga_id for one in self.batch]
        rows = await self.scene.ask("SELECT count(*) FROM saga WHERE id = ANY ($1::uuid[])", ids)
        texts = await self.scene.ask(
            "SELECT count(*) FROM saga_input WHERE saga_id = ANY ($1::uuid[])", ids
        )
        assert rows == texts
        assert rows % self.count == 0, "a part of the batch is there"
        return rows // self.count


class StartOfMany(Start):
    """A batch: all of them or none."""

    count = 5


class Send(Write):
    """A message to an instance: signal, cancel, or an operator's."""

    matching = "INSERT INTO inbox"
    decides = True
    kind = "signal"

    async def act(self, store: Store) -> Any:
        return await store.inbox.send(
            self.scene.saga_id, self.kind, {"name": "go"}, actor="me", dedupe_key="once"
        )

    async def there(self) -> int:
        messages = await self.scene.ask("SELECT count(*) FROM inbox WHERE saga_id = $1")
        news = await self.scene.ask("SELECT inbox_seq FROM saga WHERE id = $1")
        assert messages == news, "a message without the news of it"
        return messages


class Cancel(Send):
    kind = "cancel"


class Answer(Send):
    """A repair of a stuck instance, which frees it to be claimed."""

    kind = "retry"

    async def warm(self, store: Store) -> None:
        """By a signal: what is freed here would be claimed below."""
        await Send(self.scene).warm(store)

    async def prepare(self) -> None:
        self.scene.saga_id = await self.scene.given.at_rest(Status.STUCK)

    async def there(self) -> int:
        messages = await super().there()
        due = await self.scene.ask("SELECT count(due_at) FROM saga WHERE id = $1")
        assert messages == due, "told, and not freed"
        return messages


class StartOfChild(Start):
    """An instance that belongs to another."""

    async def prepare(self) -> None:
        await self.scene.claimed()
        self.batch = [request(parent=self.scene.saga_id, parent_node="order/0")]


# ---------------------------------------------------------------------------- the log


class AppendEvents(Write):
    """Events of an owned instance."""

    matching = "INSERT INTO event"
    decides = True
    status, keep = Status.RUNNING, True

    def _append(self) -> Append:
        return self.scene.append(
            count=2, status=self.status, keep=self.keep, if_inbox=not self.keep
        )

    async def prepare(self) -> None:
        await self.scene.claimed()
        self.append = self._append()

    async def act(self, store: Store) -> Any:
        return await store.events.append([self.append])

    async def again(self, store: Store) -> None:
        """Never sent again: taken under a new epoch, and looked at; then what is missing is written."""
        claim = self.scene.claim
        assert claim is not None
        mine = await store.queue.reclaim(self.scene.owner, claim.saga_id, claim.epoch)
        if mine is None:  # it was given up, or has ended
            assert await self.scene.look(self) == 1
            return
        self.scene.claim = mine
        if mine.head == claim.head:
            self.append = self._append()
            assert await store.events.append([self.append])

    async def there(self) -> int:
        rows = await self.scene.side.fetch(
            "SELECT version FROM event WHERE saga_id = $1 ORDER BY version", self.scene.saga_id
        )
        versions = [row["version"] for row in rows]
        assert versions in ([], [1, 2])
        assert await self.scene.ask("SELECT head FROM saga WHERE id = $1") == len(versions)
        return len(versions) // 2


class Park(AppendEvents):
    """Events, and the instance given up until it is due."""

    status, keep = Status.WAITING, False


class End(AppendEvents):
    """The last event."""

    status, keep = Status.COMPLETED, False


class StepInTransaction(AppendEvents):
    """A step's own SQL and its event."""

    matching = "INSERT INTO event"
    session = "transaction"
    kind: Any = asyncpg.Connection

    async def prepare(self) -> None:
        await super().prepare()
        await self.scene.side.execute("CREATE TABLE IF NOT EXISTS book (saga uuid)")

    async def act(self, store: Store) -> Any:
        async with store.transactions.open(self.kind) as transaction:
            await run(transaction.handle, f"INSERT INTO book VALUES ('{self.scene.saga_id}')")
            return await transaction.append(self.append)

    async def again(self, store: Store) -> None:
        claim = self.scene.claim
        assert claim is not None
        mine = await store.queue.reclaim(self.scene.owner, claim.saga_id, claim.epoch)
        assert mine is not None
        self.scene.claim = mine
        if mine.head == claim.head:
            self.append = self._append()
            await self.act(store)

    async def there(self) -> int:
        events = await super().there()
        assert await self.scene.ask("SELECT count(*) FROM book WHERE saga = $1") == events
        return events


class StepInSession(StepInTransaction):
    """The same by SQLAlchemy."""

    kind = AsyncSession


# ---------------------------------------------------------------------------- the work queue


class TakeClaim(Write):
    """A claim; whoever lost its answer finds the instance among its own, and gives it back."""

    matching = "JOIN claimed"

    async def prepare(self) -> None:
        self.scene.owner = await self.scene.given.worker()
        [self.scene.saga_id] = await self.scene.given.started()

    async def act(self, store: Store) -> Any:
        return await store.queue.claim(self.scene.owner, 5, [ORDER])

    async def again(self, store: Store) -> None:
        stray = [owned.saga_id for owned in await store.queue.owned(self.scene.owner)]
        await store.queue.release(self.scene.owner, stray)
        [claim] = await self.act(store)
        assert claim.epoch == 1 + len(stray)

    async def there(self) -> int:
        return await self.scene.ask("SELECT count(owner) FROM saga WHERE id = $1")


class TakeAgain(Write):
    """A new epoch for one's own; under the old one it cannot be had twice."""

    matching = "WITH mine AS \\( UPDATE saga"

    async def act(self, store: Store) -> Any:
        return await store.queue.reclaim(self.scene.owner, self.scene.saga_id, 1)

    async def again(self, store: Store) -> None:
        happened = await self.scene.look(self) == 1
        assert (await self.act(store) is None) == happened

    async def there(self) -> int:
        return await self.scene.ask("SELECT epoch - 1 FROM saga WHERE id = $1")


class Release(Write):
    matching = "WITH mine AS MATERIALIZED"

    async def act(self, store: Store) -> Any:
        await store.queue.release(self.scene.owner, [self.scene.saga_id])

    async def there(self) -> int:
        return 1 - await self.scene.ask("SELECT count(owner) FROM saga WHERE id = $1")


# ---------------------------------------------------------------------------- the fleet


class Join(Write):
    """A worker enters; one that does not know begins anew under another name."""

    matching = "INSERT INTO worker"
    on_new_connection = True

    async def prepare(self) -> None:
        self.scene.owner = str(uuid.uuid4())

    async def act(self, store: Store) -> Any:
        await store.fleet.join(self.scene.owner, "me", LEASE)

    async def again(self, store: Store) -> None:
        self.scene.owner = str(uuid.uuid4())
        await self.act(store)

    async def there(self) -> int:
        return await self.scene.ask("SELECT count(*) FROM worker WHERE id = $1", self.scene.owner)


class Renew(Write):
    matching = "UPDATE worker SET lease_until"

    async def warm(self, store: Store) -> None:
        """On the worker's own session, which is made with its first renewal."""

    async def act(self, store: Store) -> Any:
        return await store.fleet.renew(self.scene.owner, 100 * LEASE)

    async def first(self, store: Store) -> None:
        await store.fleet.renew(self.scene.owner, LEASE)

    async def there(self) -> int:
        return await self.scene.ask(
            "SELECT (lease_until > clock_timestamp() + interval '40 min')::int FROM worker WHERE id = $1",
            self.scene.owner,
        )


class Retire(Write):
    """Another's death: its row, and what it held, together."""

    matching = "UPDATE worker SET retired_at .* UPDATE saga"

    async def prepare(self) -> None:
        await self.scene.claimed()
        await self.scene.side.execute(
            "UPDATE worker SET lease_until = clock_timestamp() - interval '1 s' WHERE id = $1",
            self.scene.owner,
        )

    async def act(self, store: Store) -> Any:
        return await store.fleet.retire_dead()

    async def there(self) -> int:
        gone = await self.scene.ask(
            "SELECT count(retired_at) FROM worker WHERE id = $1", self.scene.owner
        )
        held = await self.scene.ask("SELECT count(owner) FROM saga WHERE id = $1")
        assert gone == 1 - held, "retired, and what it held is not free"
        return gone


class Leave(Retire):
    on_new_connection = True

    async def prepare(self) -> None:
        await self.scene.claimed()

    async def act(self, store: Store) -> Any:
        await store.fleet.leave(self.scene.owner)


# ---------------------------------------------------------------------------- the relay


class TakeRelay(Write):
    matching = "INSERT INTO relay_cursor"

    async def prepare(self) -> None:
        """Nothing: the first to ask makes it."""

    async def act(self, store: Store) -> Any:
        cursor = await store.feed.acquire(self.scene.name, "me", LEASE)
        assert cursor == Cursor(0, 1), "one owner, one epoch, however often it asks"

    async def there(self) -> int:
        return await self.scene.ask(
            "SELECT count(*) FROM relay_cursor WHERE relay = $1 AND epoch = 1", self.scene.name
        )


class MoveCheckpoint(Write):
    matching = "UPDATE relay_cursor SET position"

    async def prepare(self) -> None:
        assert await self.scene.beside.feed.acquire(self.scene.name, "me", LEASE)

    async def act(self, store: Store) -> Any:
        assert await store.feed.checkpoint(self.scene.name, "me", Cursor(7, 1), LEASE)

    async def there(self) -> int:
        position = await self.scene.ask(
            "SELECT position FROM relay_cursor WHERE relay = $1", self.scene.name
        )
        assert position in (0, 7)
        return position // 7


class GiveUpRelay(MoveCheckpoint):
    matching = "UPDATE relay_cursor SET owner = NULL"

    async def act(self, store: Store) -> Any:
        await store.feed.give_up(self.scene.name, "me")

    async def there(self) -> int:
        return 1 - await self.scene.ask(
            "SELECT count(owner) FROM relay_cursor WHERE relay = $1", self.scene.name
        )


# ---------------------------------------------------------------------------- shared state


class Shared(Write):
    """What sagas know of each other. It is advice: a repeat may count twice, and loses no saga."""

    repeats: ClassVar[bool] = True

    async def prepare(self) -> None:
        self.circuit = Circuit(self.scene.name, failures=1, reset=0 * SECOND, probes=1)
        self.rate = Rate(self.scene.name, calls=10, per=3600 * SECOND)
        self.cache = CacheRule(self.scene.name, ttl=3600 * SECOND)
        self.budget = BudgetRule(self.scene.name, limit=5)


class Admit(Shared):
    matching = "UPDATE circuit c SET probes"

    async def prepare(self) -> None:
        await super().prepare()
        await self.scene.beside.shared.report(self.circuit, succeeded=False)
        await asyncio.sleep(0)

    async def act(self, store: Store) -> Any:
        return await store.shared.admit(self.circuit)

    async def there(self) -> int:
        return await self.scene.ask(
            "SELECT cardinality(probes) FROM circuit WHERE name = $1", self.scene.name
        )


class ReportFailure(Shared):
    matching = "INSERT INTO circuit"

    async def act(self, store: Store) -> Any:
        await store.shared.report(self.circuit, succeeded=False)

    async def there(self) -> int:
        return await self.scene.ask(
            "SELECT count(*) FROM circuit WHERE name = $1 AND failed >= 1", self.scene.name
        )


class ReserveCall(Shared):
    matching = "INSERT INTO rate"

    async def act(self, store: Store) -> Any:
        assert await store.shared.reserve(self.rate) is None

    async def there(self) -> int:
        return await self.scene.ask("SELECT count(*) FROM rate WHERE name = $1", self.scene.name)


class LookUp(Shared):
    """The turn to compute an output: the same holder that asks again has it still."""

    matching = "INSERT INTO cache_entry"

    async def act(self, store: Store) -> Any:
        assert await store.shared.look_up(self.cache, "k", "me", LEASE) is None

    async def there(self) -> int:
        return await self.scene.ask(
            "SELECT count(*) FROM cache_entry WHERE name = $1 AND holder = 'me'", self.scene.name
        )


class Keep(Shared):
    matching = "UPDATE cache_entry SET output"

    async def prepare(self) -> None:
        await super().prepare()
        assert await self.scene.beside.shared.look_up(self.cache, "k", "me", LEASE) is None

    async def act(self, store: Store) -> Any:
        await store.shared.keep(self.cache, "k", "me", Json("1"))

    async def there(self) -> int:
        return await self.scene.ask(
            "SELECT count(output) FROM cache_entry WHERE name = $1", self.scene.name
        )


class LetGo(Keep):
    matching = "DELETE FROM cache_entry WHERE"

    async def act(self, store: Store) -> Any:
        await store.shared.let_go(self.cache, "k", "me")

    async def there(self) -> int:
        return 1 - await self.scene.ask(
            "SELECT count(*) FROM cache_entry WHERE name = $1", self.scene.name
        )


class Spend(Shared):
    """The same receipt counts once."""

    matching = "INSERT INTO budget"

    async def act(self, store: Store) -> Any:
        await store.shared.spend(self.budget, 1.0, "receipt")

    async def there(self) -> int:
        spent = await self.scene.ask(
            "SELECT coalesce(sum(spent), 0)::int FROM budget WHERE name = $1", self.scene.name
        )
        receipts = await self.scene.ask(
            "SELECT count(*) FROM budget_receipt WHERE name = $1", self.scene.name
        )
        assert spent == receipts, "spent without a receipt"
        return spent


WRITES: dict[str, tuple[type[Write], ...]] = {
    "starts": (Start, StartOfMany, StartOfChild),
    "messages": (Send, Cancel, Answer),
    "appends": (AppendEvents, Park, End, StepInTransaction, StepInSession),
    "claims": (TakeClaim, TakeAgain, Release),
    "leases": (Join, Renew, Retire, Leave),
    "relays": (TakeRelay, MoveCheckpoint, GiveUpRelay),
    "shared state": (Admit, ReportFailure, ReserveCall, LookUp, Keep, LetGo, Spend),
}
