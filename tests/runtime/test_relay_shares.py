"""Many relays share the shards of one log, and hand them over without a gap."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from orchestrator.adapters.memory.store import open_store
from orchestrator.domain.shards import Shard
from orchestrator.errors import ConflictError, UnavailableError
from orchestrator.ports import FeedEvent, Mark, Store
from orchestrator.runtime.relay import Relay
from orchestrator.runtime.relay_position import Trust
from tests.contract.given import Given
from tests.runtime.test_relay import QUICK, Counts, until

SETTINGS = replace(QUICK, page=50, ttl=0.4, shards=6, share_every=0.02)


class Levels(Counts):
    def __init__(self) -> None:
        super().__init__()
        self.levels: dict[tuple[str, str], float] = {}

    def level(self, name: str, of: str, value: float) -> None:
        self.levels[name, of] = value


class Topic:
    """What all shards published; each has one publisher, the one that was opened last."""

    def __init__(self) -> None:
        self.stored: list[FeedEvent] = []
        self.marks: dict[int, Mark] = {}
        self.opened: Counter[int] = Counter()

    async def open(self, shard: Shard) -> ShardPublisher:
        self.opened[shard.index] += 1
        return ShardPublisher(self, shard.index, self.opened[shard.index])

    def versions(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for event in self.stored:
            found[event.row.saga_id].append(event.row.version)
        return dict(found)


class ShardPublisher:
    def __init__(self, topic: Topic, shard: int, number: int) -> None:
        self._topic, self._shard, self._number = topic, shard, number

    async def mark(self) -> Mark | None:
        return self._topic.marks.get(self._shard, Mark(0, 0, 0))

    async def publish(self, events: Sequence[FeedEvent], mark: Mark) -> None:
        await asyncio.sleep(0.001)
        assert self._number == self._topic.opened[self._shard], "two publish one shard"
        self._topic.stored.extend(events)
        self._topic.marks[self._shard] = mark

    async def close(self) -> None:
        return


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as store:
        yield store


def relay(store: Store, topic: Topic, owner: str, telemetry: Levels | None = None) -> Relay:
    return Relay(store.feed, store.hints, topic.open, telemetry or Levels(), SETTINGS, owner=owner)


def shares(relays: Sequence[Relay]) -> list[int]:
    """How many shards each has; together all, and none twice."""
    held = [shard for each in relays for shard in each.shards]
    return [len(each.shards) for each in relays] if sorted(held) == list(range(6)) else []


def shared(relays: Sequence[Relay], *wanted: int) -> Callable[[], bool]:
    return lambda: sorted(shares(relays), reverse=True) == list(wanted)


@asynccontextmanager
async def writing(store: Store) -> AsyncIterator[dict[str, list[int]]]:
    """Events in fifty sagas, version after version, until the block ends; what was written."""
    given, done = Given(store), asyncio.Event()
    owned = await given.claimed(50)
    written: dict[str, list[int]] = {claim.saga_id: [] for _, claim in owned}

    async def write() -> None:
        head = 0
        while not done.is_set():
            rows = [given.append(owner, claim, head=head) for owner, claim in owned]
            head += 1
            for saga_id in await store.events.append(rows):
                written[saga_id].append(head)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(write())
    try:
        yield written
    finally:
        done.set()
        await task


async def published(store: Store) -> None:
    async with asyncio.timeout(5):
        while await store.feed.lag("events"):
            await asyncio.sleep(0.005)


async def test_one_relay_carries_all_shards_and_each_saga_in_order(store: Store) -> None:
    topic = Topic()
    only = relay(store, topic, "ann")
    async with only, writing(store) as written:
        await until(shared([only], 6))
        await until(lambda: len(topic.stored) > 500)
    async with relay(store, topic, "bob"):
        await published(store)

    assert topic.versions() == written


async def test_those_who_come_get_their_part_and_those_who_stay_take_it_over(
    store: Store,
) -> None:
    topic, relays = Topic(), [relay(store, Topic(), "")] * 0
    async with AsyncExitStack() as stack, writing(store) as written:
        for owner, parts in (
            ("bob", (6,)),
            ("ann", (3, 3)),
            ("eve", (2, 2, 2)),
            ("dan", (2, 2, 1, 1)),
        ):
            relays.append(relay(store, topic, owner))
            await stack.enter_async_context(relays[-1])
            await until(shared(relays, *parts))
        await relays.pop(0).__aexit__(None, None, None)
        await until(shared(relays, 2, 2, 2))
        await relays.pop().__aexit__(None, None, None)
        await until(shared(relays, 3, 3))
    async with relay(store, topic, "last"):
        await published(store)

    assert topic.versions() == written


async def test_the_shards_of_one_that_died_are_taken_over_when_its_leases_end(
    store: Store,
) -> None:
    topic = Topic()
    doomed, heir = relay(store, topic, "ann"), relay(store, topic, "bob")
    async with heir, writing(store) as written:
        running = asyncio.create_task(doomed.run(asyncio.Event()))
        await until(shared([doomed, heir], 3, 3))
        for run in doomed._runs.values():
            run.task.cancel()
            run.relay._feed = _Gone()  # type: ignore[assignment]  # it gives up nothing any more
        doomed._feed = _Gone()  # type: ignore[assignment]
        running.cancel()
        await until(shared([heir], 6))
        await asyncio.wait({running})
    async with relay(store, topic, "last"):
        await published(store)

    assert topic.versions() == written


class _Gone:
    """The feed of a process that is dead."""

    def __getattr__(self, name: str) -> object:
        async def refuse(*_: object) -> None:
            raise UnavailableError("dead")

        return refuse


async def test_more_relays_than_shards_stand_by(store: Store) -> None:
    topic = Topic()
    relays = [relay(store, topic, f"r{n}") for n in range(8)]
    async with AsyncExitStack() as stack:
        for each in relays:
            await stack.enter_async_context(each)
        await until(shared(relays, 1, 1, 1, 1, 1, 1, 0, 0))


async def test_another_number_of_shards_than_before_is_refused(store: Store) -> None:
    topic = Topic()
    async with relay(store, topic, "ann") as first:
        await until(shared([first], 6))
    other = Relay(store.feed, store.hints, topic.open, Levels(), replace(SETTINGS, shards=4))

    with pytest.raises(ConflictError, match="SAGA_RELAY_SHARDS=6"):
        await other.run(asyncio.Event())


async def test_the_lag_of_a_shard_that_was_given_up_is_told_no_longer(store: Store) -> None:
    told = Levels()
    async with relay(store, Topic(), "ann", told) as ann, writing(store):
        await until(lambda: sum(of.startswith("events/") for _, of in told.levels) == 12)
        told.levels = dict.fromkeys(told.levels, 17.0)
        async with relay(store, Topic(), "bob") as bob:
            await until(shared([ann, bob], 3, 3))
            gone = [levels for levels in told.levels if int(levels[1][-1]) in bob.shards]
            await until(lambda: [told.levels[each] for each in gone] == [0.0] * 6)


async def test_what_a_person_said_of_a_shard_counts_once_also_when_it_comes_back(
    store: Store,
) -> None:
    topic, counts = Topic(), Levels()
    told = Relay(
        store.feed, store.hints, topic.open, counts, SETTINGS, owner="ann", trust=Trust.BROKER
    )
    async with told:
        async with writing(store):
            await until(lambda: len(topic.stored) > 100)
        await published(store)
        async with relay(store, topic, "bob") as bob:
            await until(shared([told, bob], 3, 3))
            lost = bob.shards
            topic.stored.clear()
            topic.marks.update(dict.fromkeys(lost, Mark(0, 0, 0)))
        await until(lambda: counts.counts["positions_refused"] >= len(lost))

    assert topic.stored == []


async def test_the_lag_of_each_shard_is_told(store: Store) -> None:
    topic, told = Topic(), Levels()
    async with relay(store, topic, "ann", told), writing(store):
        names = [f"events/{n}" for n in range(6)]
        await until(lambda: all(("relay_lag_events", name) in told.levels for name in names))
        await until(lambda: all(("relay_lag_seconds", name) in told.levels for name in names))

    assert set(told.levels) == {
        (level, name) for level in ("relay_lag_events", "relay_lag_seconds") for name in names
    }
