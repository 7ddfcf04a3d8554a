"""What everybody asks of the simulated server: requests, messages, the feed, and the small ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate
from orchestrator.domain.shards import WHOLE, Shard
from orchestrator.errors import UnavailableError
from orchestrator.ports import (
    Cursor,
    FeedPage,
    Filter,
    Held,
    Hit,
    Instance,
    Message,
    RelayStanding,
    Reply,
    StartAnswer,
    StartRequest,
)
from tests.simulation.database import Database
from tests.simulation.wire import Wire, at_once


class SimRequests:
    """orchestrator.ports.Requests."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def start(
        self, batch: Sequence[StartRequest], within: object | None = None
    ) -> list[StartAnswer]:
        requests = self._wire.database.requests
        rows = [f"start {r.key or r.saga_id}" for r in batch]
        answers: list[StartAnswer] = await self._wire.ask(
            "start", lambda _: at_once(requests.start(batch)), rows=lambda: rows, writes=True,
            decides=True, fate=self._wire.fate_of("write", "start"),
            tell=" ".join(f"{r.saga_id[-2:]} {r.name}" for r in batch),
        )  # fmt: skip
        return answers


class SimInbox:
    """orchestrator.ports.Inbox."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(
        self, saga_id: str, kind: str, payload: Mapping[str, Any], *, actor: str, dedupe_key: str
    ) -> Reply:
        inbox = self._wire.database.inbox
        reply: Reply = await self._wire.ask(
            f"send {kind}",
            lambda _: at_once(
                inbox.send(saga_id, kind, payload, actor=actor, dedupe_key=dedupe_key)
            ),
            rows=lambda: [saga_id], writes=True, decides=True,
            fate=self._wire.fate_of("write", kind), tell=saga_id[-2:],
        )  # fmt: skip
        return reply

    async def read(self, saga_id: str, after: int) -> list[Message]:
        inbox = self._wire.database.inbox
        messages: list[Message] = await self._wire.ask(
            "read inbox", lambda _: list(at_once(inbox.read(saga_id, after)))
        )
        return messages


class SimFeedHandle:
    """orchestrator.ports.Feed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._feed = wire.database.feed

    async def acquire(self, relay: str, owner: str, ttl: timedelta) -> Cursor | None:
        cursor: Cursor | None = await self._wire.ask(
            "acquire", lambda _: at_once(self._feed.acquire(relay, owner, ttl)),
            rows=lambda: [f"relay {relay}"], writes=True,
        )  # fmt: skip
        return cursor

    async def read(self, after: int, limit: int, shard: Shard = WHOLE) -> FeedPage:
        page: FeedPage = await self._wire.ask(
            "read feed", lambda _: self._feed.page(after, limit), gate=self._feed.gated
        )
        return page

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        moved: bool = await self._wire.ask(
            "checkpoint", lambda _: at_once(self._feed.checkpoint(relay, owner, cursor, ttl)),
            rows=lambda: [f"relay {relay}"], writes=True, tell=str(cursor.position),
            fate=self._wire.fate_of("write", "checkpoint"),
        )  # fmt: skip
        return moved

    async def give_up(self, relay: str, owner: str) -> None:
        await self._wire.ask(
            "give up", lambda _: at_once(self._feed.give_up(relay, owner)),
            rows=lambda: [f"relay {relay}"], writes=True,
        )  # fmt: skip

    async def rewind(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        raise NotImplementedError

    async def pin(self, relay: str, shards: int) -> None:
        raise NotImplementedError

    async def attend(self, relay: str, owner: str, ttl: timedelta) -> list[str]:
        raise NotImplementedError

    async def leave(self, relay: str, owner: str) -> None:
        raise NotImplementedError

    async def lag(self, relay: str) -> int:
        raise NotImplementedError

    async def relays(self) -> list[RelayStanding]:
        raise NotImplementedError


class SimReads:
    """What the engine asks of orchestrator.ports.ReadModel."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reads = wire.database.reads

    async def get(self, saga_id: str) -> Instance | None:
        found: Instance | None = await self._wire.ask(
            "get", lambda _: at_once(self._reads.get(saga_id))
        )
        return found

    async def search(self, wanted: Filter) -> list[Instance]:
        found: list[Instance] = await self._wire.ask(
            "search", lambda _: at_once(self._reads.search(wanted))
        )
        return found

    async def ended(self, saga_ids: Sequence[str]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._wire.ask(
            "ended", lambda _: at_once(self._reads.ended(saga_ids))
        )
        return found

    async def input(self, saga_id: str) -> Any:
        return await self._wire.ask("input", lambda _: at_once(self._reads.input(saga_id)))


class SimShared:
    """orchestrator.ports.SharedState."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._shared = wire.database.shared
        self.away = False

    async def _ask(self, what: str, work: Callable[[], Any]) -> Any:
        if self.away and self._wire.faults.on:
            raise UnavailableError("the shared state is away")
        return await self._wire.ask(what, lambda _: at_once(work()), writes=True)

    async def admit(self, circuit: Circuit) -> Held | None:
        return await self._ask("admit", lambda: self._shared.admit(circuit))  # type: ignore[no-any-return]  # as the fake's

    async def report(self, circuit: Circuit, *, succeeded: bool) -> None:
        await self._ask("report", lambda: self._shared.report(circuit, succeeded=succeeded))

    async def reserve(self, rate: Rate, turn: datetime | None = None) -> Held | None:
        return await self._ask("reserve", lambda: self._shared.reserve(rate, turn))  # type: ignore[no-any-return]  # as the fake's

    async def look_up(
        self, cache: CacheRule, key: str, holder: str, patience: timedelta
    ) -> Hit | Held | None:
        work = lambda: self._shared.look_up(cache, key, holder, patience)  # noqa: E731 - one use
        return await self._ask("look up", work)  # type: ignore[no-any-return]  # as the fake's

    async def keep(self, cache: CacheRule, key: str, holder: str, output: Any) -> None:
        await self._ask("keep", lambda: self._shared.keep(cache, key, holder, output))

    async def let_go(self, cache: CacheRule, key: str, holder: str) -> None:
        await self._ask("let go", lambda: self._shared.let_go(cache, key, holder))

    async def spent(self, budget: BudgetRule) -> float:
        return await self._ask("spent", lambda: self._shared.spent(budget))  # type: ignore[no-any-return]  # as the fake's

    async def spend(self, budget: BudgetRule, amount: float, receipt: str) -> None:
        await self._ask("spend", lambda: self._shared.spend(budget, amount, receipt))


class SimClock:
    """The database's clock as one process knows it: a little off."""

    def __init__(self, database: Database, skew: float) -> None:
        self._database = database
        self._skew = timedelta(seconds=skew)

    def now(self) -> datetime:
        now: datetime = self._database.now()
        return now + self._skew


class SimHints:
    """Wake-ups between processes: at once, late, or never."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._poked: set[str] = set()
        self._listening: list[tuple[str, Any, Callable[[], None]]] = []

    def poke(self, channel: str) -> None:
        faults, timeline = self._database.faults, self._database.timeline
        if channel in self._poked or faults.strikes("hint lost", channel):
            return
        self._poked.add(channel)
        late = faults.strikes("hint late", channel)
        timeline.after(timeline.random.uniform(0.1, 2.0) if late else 0.001, self._wake, channel)

    def of(self, loop: Any) -> _HintsOf:
        return _HintsOf(self, loop)

    def _wake(self, channel: str) -> None:
        self._poked.discard(channel)
        for wanted, loop, wake in self._listening:
            if wanted == channel and not loop.dead:
                loop.call_soon(wake)


class _HintsOf:
    """orchestrator.ports.Hints of one process."""

    def __init__(self, hints: SimHints, loop: Any) -> None:
        self._hints = hints
        self._loop = loop

    def poke(self, channel: str) -> None:
        if not self._loop.dead:
            self._hints.poke(channel)

    def listen(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        entry = (channel, self._loop, wake)
        self._hints._listening.append(entry)

        def end() -> None:
            if entry in self._hints._listening:
                self._hints._listening.remove(entry)

        return end
