"""The feed to the broker, shard by shard; many processes share the shards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from orchestrator.domain.shards import Shard, shard_name
from orchestrator.errors import UnavailableError
from orchestrator.ports import Clock, Feed, Hints, Publisher, RelayStanding, Telemetry
from orchestrator.runtime import machine
from orchestrator.runtime.relay_position import Trust
from orchestrator.runtime.relay_settings import RelaySettings
from orchestrator.runtime.relay_shard import ShardRelay

log = logging.getLogger(__name__)

OpenPublisher = Callable[[Shard], Awaitable[Publisher]]


@dataclass(slots=True)
class _Run:
    """A shard that this process carries, or waits for."""

    relay: ShardRelay
    stop: asyncio.Event
    task: asyncio.Task[None]


class Relay:
    """Carries its part of the shards: as many as everybody else who is there, give or take one.

    Who comes, says so; the others then give up what they have too many of, after the batch in
    hand, and the newcomer takes what is free. Who ends, gives up all; who dies, by its lease.
    """

    def __init__(
        self,
        feed: Feed,
        hints: Hints,
        open_publisher: OpenPublisher,
        telemetry: Telemetry,
        settings: RelaySettings | None = None,
        *,
        name: str = "events",
        owner: str | None = None,
        trust: Trust = Trust.NEITHER,
        clock: Clock | None = None,
    ) -> None:
        self._feed = feed
        self._hints = hints
        self._open_publisher = open_publisher
        self._telemetry = telemetry
        self._settings = settings or RelaySettings()
        self._name = name
        self._owner = owner or machine.new_name()
        self._trust = trust
        self._clock = clock
        self._shards: dict[int, ShardRelay] = {}
        self._runs: dict[int, _Run] = {}
        self._leaving: dict[int, _Run] = {}
        self._told: set[int] = set()
        self._pinned = False
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.run(self._stop), name=f"relay-{self._name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running

    @property
    def shards(self) -> frozenset[int]:
        """The shards that this process carries now."""
        return frozenset(index for index, run in self._runs.items() if run.relay.held)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until *stop* is set; then finish what is in hand and give all leases up.

        Raises ConflictError when the shards are another number than the settings say.
        """
        try:
            while not stop.is_set():
                try:
                    await self._look_round()
                except UnavailableError as error:
                    log.warning("relay %s cannot share its shards now: %s", self._name, error)
                await self._wait(stop)
        finally:
            await self._end()

    # ------------------------------------------------------------------ sharing

    async def _look_round(self) -> None:
        """Take what is free, up to one's part; give up what is over it."""
        if not self._pinned:
            await self._feed.pin(self._name, self._settings.shards)
            self._pinned = True
        ttl = timedelta(seconds=self._settings.ttl)
        members = await self._feed.attend(self._name, self._owner, ttl)
        standings = {standing.relay: standing for standing in await self._feed.relays()}
        self._give_up_over(self._part(members))
        self._take_free(members, standings)
        await self._tell()

    def _part(self, members: Sequence[str]) -> int:
        """How many shards are ours: the first in the list have one more where it does not fit."""
        whole, rest = divmod(self._settings.shards, len(members))
        return whole + (members.index(self._owner) < rest)

    def _give_up_over(self, part: int) -> None:
        unheld_first = sorted(self._runs, key=lambda index: self._runs[index].relay.held)
        for index in unheld_first[: max(len(self._runs) - part, 0)]:
            self._let_go(index)

    def _take_free(self, members: Sequence[str], standings: dict[str, RelayStanding]) -> None:
        """Begin with another shard than the other processes do."""
        shards, part = self._settings.shards, self._part(members)
        first = members.index(self._owner) * shards // len(members)
        for index in (number % shards for number in range(first, first + shards)):
            standing = standings.get(shard_name(self._name, index))
            taken = standing is not None and standing.owner not in (None, self._owner)
            mine = index in self._runs and self._runs[index].relay.held
            if index in self._runs and taken and not mine:
                self._let_go(index)
            elif len(self._runs) < part and not taken and self._is_idle(index):
                self._runs[index] = self._begin(Shard(index, shards))

    def _is_idle(self, index: int) -> bool:
        return index not in self._runs and index not in self._leaving

    def _let_go(self, index: int) -> None:
        run = self._leaving[index] = self._runs.pop(index)
        run.stop.set()

    def _begin(self, shard: Shard) -> _Run:
        relay = self._shards.get(shard.index) or self._relay_of(shard)
        self._shards[shard.index], stop = relay, asyncio.Event()
        task = asyncio.create_task(relay.run(stop), name=shard_name(self._name, shard.index))
        return _Run(relay, stop, task)

    def _relay_of(self, shard: Shard) -> ShardRelay:
        """Kept also when the shard is given up: what it was told, and what it knows, counts on."""
        return ShardRelay(
            self._feed,
            self._hints,
            lambda: self._open_publisher(shard),
            self._telemetry,
            self._settings,
            name=shard_name(self._name, shard.index),
            owner=self._owner,
            shard=shard,
            trust=self._trust,
            clock=self._clock,
        )

    async def _tell(self) -> None:
        """Say how far behind each of our shards is; of one that was ours, nothing any more."""
        for index in self._told - self.shards:
            self._levels(index, 0, 0.0)
        self._told = set(self.shards)
        for index in self._told:
            behind = await self._feed.lag(shard_name(self._name, index))
            self._levels(index, behind, self._shards[index].lag)

    def _levels(self, index: int, events: int, seconds: float) -> None:
        name = shard_name(self._name, index)
        self._telemetry.level("relay_lag_events", name, events)
        self._telemetry.level("relay_lag_seconds", name, seconds)

    # ------------------------------------------------------------------ waiting and ending

    async def _wait(self, stop: asyncio.Event) -> None:
        """Until it is time to look round again. A fault in the code of a shard is not hidden."""
        asked = asyncio.ensure_future(stop.wait())
        tasks = [run.task for run in (*self._runs.values(), *self._leaving.values())]
        try:
            await asyncio.wait(
                (asked, *tasks),
                timeout=min(self._settings.share_every, self._settings.ttl / 4),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            asked.cancel()
        for runs in (self._runs, self._leaving):
            for index in [index for index, run in runs.items() if run.task.done()]:
                runs.pop(index).task.result()

    async def _end(self) -> None:
        """Stop all shards, each after the batch in hand."""
        runs = [*self._runs.values(), *self._leaving.values()]
        for run in runs:
            run.stop.set()
        await asyncio.gather(*(run.task for run in runs))
        try:
            await self._feed.leave(self._name, self._owner)
        except UnavailableError as error:
            log.warning("relay %s leaves its place to run out: %s", self._name, error)
