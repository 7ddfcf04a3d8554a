"""One shard's relay over a log in memory and a broker that fails where it is told to."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.shards import WHOLE, Shard
from orchestrator.errors import InvalidInputError, PublishError, UnavailableError
from orchestrator.ports import EVENTS, Cursor, FeedEvent, FeedPage, Mark
from orchestrator.runtime.relay_settings import RelaySettings
from orchestrator.runtime.relay_shard import ShardRelay
from tests.feed_events import feed_event

QUICK = RelaySettings(
    page=4,
    ttl=0.2,
    publish_timeout=0.05,
    close_timeout=0.05,
    poll_every=0.001,
    idle_poll_every=0.005,
    backoff=0.001,
    backoff_limit=0.005,
    refused_pause=0.005,
)


class Log:
    """A feed whose lease ends when the test says so, and which can be away."""

    def __init__(self, events: Iterable[FeedEvent] = ()) -> None:
        self.events = list(events)
        self.cursor = Cursor(position=0, epoch=0)
        self.holder: str | None = None
        self.calls = 0
        self.away = range(0)
        self.checkpoints: list[int] = []
        self.extended = 0
        self.skip_to = 0

    def end_lease(self) -> None:
        self.holder = None

    async def acquire(self, relay: str, owner: str, ttl: timedelta) -> Cursor | None:
        self._reach()
        if self.holder not in (None, owner):
            return None
        if self.holder is None:
            self.holder = owner
            self.cursor = Cursor(self.cursor.position, self.cursor.epoch + 1)
        self.extended += 1
        return self.cursor

    async def read(self, after: int, limit: int, shard: Shard = WHOLE) -> FeedPage:
        self._reach()
        await asyncio.sleep(0)
        events = tuple(event for event in self.events if event.row.position > after)[:limit]
        return FeedPage(events, events[-1].row.position if events else max(after, self.skip_to))

    async def rewind(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        return await self.checkpoint(relay, owner, cursor, ttl)

    async def checkpoint(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        self._reach()
        if (self.holder, self.cursor.epoch) != (owner, cursor.epoch):
            return False
        if cursor != self.cursor:
            self.checkpoints.append(cursor.position)
        self.cursor = cursor
        return True

    async def give_up(self, relay: str, owner: str) -> None:
        if self.holder == owner:
            self.holder = None

    async def lag(self, relay: str) -> int:
        return len(self.events) - self.cursor.position

    def _reach(self) -> None:
        self.calls += 1
        if self.calls in self.away:
            raise UnavailableError("the database is away")


class Broker:
    """Keeps what is published. `faults` says what happens to the n-th publish of all."""

    def __init__(self, **faults: str) -> None:
        self.stored: list[FeedEvent] = []
        self.faults = {int(name.removeprefix("at_")): what for name, what in faults.items()}
        self.publishes = 0
        self.opened = 0
        self.closed = 0
        self.refusing = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self) -> BrokerPublisher:
        if self.refusing:
            self.refusing -= 1
            raise UnavailableError("no broker there")
        self.opened += 1
        return BrokerPublisher(self)

    def versions(self, saga_id: str) -> list[int]:
        return [event.row.version for event in self.stored if event.row.saga_id == saga_id]


class BrokerPublisher:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def mark(self) -> Mark | None:
        return None

    async def publish(self, events: Sequence[FeedEvent], mark: Mark) -> None:
        broker = self._broker
        broker.publishes += 1
        await broker.gate.wait()
        fault = broker.faults.get(broker.publishes)
        if fault == "refuse":
            raise PublishError("refused")
        if fault == "half":
            broker.stored.extend(events[: len(events) // 2])
            raise PublishError("refused half way")
        broker.stored.extend(events)
        if fault == "lose the answer":
            raise PublishError("the answer was lost")
        if fault == "hang":
            await _for_ever()

    async def close(self) -> None:
        self._broker.closed += 1
        if self._broker.faults.get(0) == "hang":
            await _for_ever()


async def _for_ever() -> None:
    """Does not even let itself be cancelled, but once."""
    for _ in range(2):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


class Bell:
    """Hints that the test gives by hand."""

    def __init__(self) -> None:
        self.wakes: list[Callable[[], None]] = []

    def poke(self, channel: str) -> None:
        assert channel == EVENTS
        for wake in self.wakes:
            wake()

    def listen(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        assert channel == EVENTS
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)


class Counts:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def recorded(self, *args: Any) -> None:
        raise AssertionError("a relay records nothing")

    def attempted(self, *args: Any) -> None:
        raise AssertionError("a relay attempts nothing")

    def batch(self, kind: str, size: int, seconds: float) -> None:
        self.counts[f"batches of {kind}"] += 1

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] += by

    def level(self, name: str, of: str, value: float) -> None:
        raise AssertionError("the process tells the levels of its shards")


class Running(ShardRelay):
    """A relay for as long as a block lasts."""

    async def __aenter__(self) -> ShardRelay:
        self._task = asyncio.create_task(self.run(asyncio.Event()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task


def story(sagas: Sequence[str] = ("a", "b", "c"), versions: int = 10) -> list[FeedEvent]:
    """The events of some sagas, interleaved, with positions that have gaps."""
    pairs = [(saga, version) for version in range(1, versions + 1) for saga in sagas]
    return [feed_event(saga, v, position=3 * i) for i, (saga, v) in enumerate(pairs, start=1)]


def relay(log: Log, broker: Broker, settings: RelaySettings = QUICK, **more: Any) -> Running:
    counts = more.pop("counts", Counts())
    return Running(log, more.pop("bell", Bell()), broker.open, counts, settings, **more)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def all_published(log: Log) -> Callable[[], bool]:
    return lambda: log.cursor.position == log.events[-1].row.position


def first_occurrences(broker: Broker, saga_id: str) -> list[int]:
    return list(dict.fromkeys(broker.versions(saga_id)))


# ---------------------------------------------------------------------------- all goes well


async def test_everything_is_published_once_and_in_order_when_nothing_fails() -> None:
    log, broker, counts = Log(story()), Broker(), Counts()
    async with relay(log, broker, counts=counts):
        await until(all_published(log))

    assert broker.stored == log.events
    assert counts.counts["published_events"] == 30
    assert counts.counts["relay_failures"] == 0


async def test_the_checkpoint_moves_only_after_the_acknowledgement() -> None:
    log, broker = Log(story()), Broker()
    broker.gate.clear()
    async with relay(log, broker, replace(QUICK, ttl=60, publish_timeout=30)):
        await until(lambda: broker.publishes == 1)
        assert (log.checkpoints, broker.stored) == ([], [])
        broker.gate.set()
        await until(all_published(log))

    assert log.checkpoints == sorted(set(log.checkpoints))
    assert log.checkpoints[0] == log.events[3].row.position


async def test_large_payloads_are_published_in_parts_each_with_its_checkpoint() -> None:
    large = [feed_event("a", v, position=v, data='"' + "x" * 98 + '"') for v in range(1, 8)]
    log, broker = Log(large), Broker()
    async with relay(log, broker, replace(QUICK, page=7, publish_bytes=250)):
        await until(all_published(log))

    assert broker.versions("a") == [1, 2, 3, 4, 5, 6, 7]
    assert log.checkpoints == [2, 4, 6, 7]


async def test_payloads_over_the_size_of_a_part_are_published_one_by_one() -> None:
    log, broker = Log(story(versions=1)), Broker()
    async with relay(log, broker, replace(QUICK, publish_bytes=1)):
        await until(all_published(log))

    assert broker.publishes == 3
    assert broker.stored == log.events


async def test_a_hint_wakes_an_idle_relay_at_once() -> None:
    log, broker, bell = Log(story(versions=1)), Broker(), Bell()
    slow = RelaySettings(poll_every=60, idle_poll_every=60)
    async with relay(log, broker, slow, bell=bell):
        await until(all_published(log))
        log.events.append(feed_event("a", 2, position=100))
        bell.poke(EVENTS)
        await until(all_published(log))

    assert broker.versions("a") == [1, 2]
    assert bell.wakes == []


async def test_without_hints_polling_finds_new_events() -> None:
    log, broker = Log(story(versions=1)), Broker()
    async with relay(log, broker):
        await until(all_published(log))
        log.events.append(feed_event("a", 2, position=100))
        await until(all_published(log))

    assert broker.versions("a") == [1, 2]


# ---------------------------------------------------------------------------- the broker fails


@pytest.mark.parametrize("fault", ["refuse", "half", "lose the answer", "hang"])
@pytest.mark.parametrize("at", range(1, 9))
async def test_a_failed_publish_is_repeated_from_the_checkpoint_and_nothing_is_lost(
    fault: str, at: int
) -> None:
    log, broker, counts = Log(story()), Broker(**{f"at_{at}": fault}), Counts()
    async with relay(log, broker, counts=counts):
        await until(all_published(log))

    for saga in ("a", "b", "c"):
        assert first_occurrences(broker, saga) == list(range(1, 11))
    page = 2 if at == 8 else 4  # the last of 30 events in pages of four
    repeated = {"refuse": 0, "half": page // 2, "lose the answer": page, "hang": page}
    assert len(broker.stored) - 30 == repeated[fault]
    assert counts.counts["relay_failures"] == 1
    assert (broker.opened, broker.closed) == (2, 2)


async def test_many_failures_in_a_row_lose_nothing() -> None:
    faults = {f"at_{n}": what for n, what in enumerate(["half", "lose the answer"] * 5, start=2)}
    log, broker, counts = Log(story()), Broker(**faults), Counts()
    async with relay(log, broker, counts=counts):
        await until(all_published(log))

    for saga in ("a", "b", "c"):
        assert first_occurrences(broker, saga) == list(range(1, 11))
    assert counts.counts["relay_failures"] == 10


async def test_a_broker_that_comes_back_is_found_again(caplog: pytest.LogCaptureFixture) -> None:
    log, broker = Log(story()), Broker()
    broker.refusing = 5
    with caplog.at_level(logging.WARNING):
        async with relay(log, broker):
            await until(all_published(log))

    assert broker.stored == log.events
    said = [record for record in caplog.records if "no broker there" in record.message]
    assert [record.relay for record in said] == ["events"] * 5  # type: ignore[attr-defined]  # our extra


async def test_the_waits_grow_while_a_broker_stays_away() -> None:
    log, broker = Log(story()), Broker()
    broker.refusing = 5
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with relay(log, broker, replace(QUICK, backoff=0.01, backoff_limit=1)):
        await until(all_published(log))

    shortest = sum(0.5 * 0.01 * 2**n for n in range(5))
    assert loop.time() - began >= shortest


async def test_a_publisher_that_does_not_close_is_left_behind() -> None:
    log, broker = Log(story()), Broker(at_0="hang", at_2="refuse")
    async with relay(log, broker):
        await until(all_published(log))

    assert broker.stored == log.events


# ---------------------------------------------------------------------------- the feed fails


@pytest.mark.parametrize("from_call", range(1, 17))
async def test_a_feed_that_was_away_is_read_on_from_the_checkpoint(from_call: int) -> None:
    log, broker, counts = Log(story()), Broker(), Counts()
    log.away = range(from_call, from_call + 3)
    async with relay(log, broker, counts=counts):
        await until(all_published(log))

    for saga in ("a", "b", "c"):
        assert first_occurrences(broker, saga) == list(range(1, 11))
    assert counts.counts["relay_failures"] >= 1


async def test_a_failure_to_read_ahead_is_told_when_the_publish_failed_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, broker = Log(story()), Broker(at_1="refuse")
    acquired_checked_followed_and_read = 4
    log.away = range(acquired_checked_followed_and_read + 1, acquired_checked_followed_and_read + 2)
    async with relay(log, broker):
        await until(all_published(log))

    assert broker.stored == log.events
    assert "could not read ahead: the database is away" in caplog.text


async def test_a_fault_in_the_code_is_not_hidden() -> None:
    class Broken(Log):
        async def read(self, after: int, limit: int, shard: Shard = WHOLE) -> FeedPage:
            raise ZeroDivisionError

    log, broker = Broken(story()), Broker()
    with pytest.raises(ZeroDivisionError):
        await relay(log, broker).run(asyncio.Event())

    assert (broker.closed, log.holder) == (1, None)


# ---------------------------------------------------------------------------- more than one


async def test_a_standby_publishes_nothing_until_the_lease_ends() -> None:
    log, first, second = Log(story()), Broker(), Broker()
    async with relay(log, first, owner="first"):
        await until(all_published(log))
        async with relay(log, second, owner="second"):
            log.events.append(feed_event("a", 11, position=1000))
            await until(all_published(log))
            assert (second.opened, second.stored) == (0, [])

    assert first.versions("a") == list(range(1, 12))


async def test_a_standby_takes_over_from_the_checkpoint_of_one_that_stops() -> None:
    log, first, second = Log(story(versions=5)), Broker(), Broker()
    async with relay(log, first, owner="first") as active:
        await until(all_published(log))
        async with relay(log, second, owner="second"):
            await active.__aexit__(None, None, None)
            log.events.extend(feed_event("a", v, position=100 + v) for v in range(6, 9))
            await until(all_published(log))

    assert first.versions("a") == [1, 2, 3, 4, 5]
    assert second.versions("a") == [6, 7, 8]


async def test_a_fenced_relay_stops_and_only_repeats_what_the_new_one_publishes() -> None:
    log, broker, counts = Log(story()), Broker(), Counts()
    patient = replace(QUICK, ttl=60, publish_timeout=30)
    broker.gate.clear()
    async with relay(log, broker, patient, owner="first", counts=counts):
        await until(lambda: broker.publishes == 1)
        log.end_lease()
        log.holder, log.cursor = "second", Cursor(0, log.cursor.epoch + 1)
        broker.gate.set()
        await until(lambda: counts.counts["relays_fenced"] == 1)
        await until(lambda: broker.closed == 1)

        assert broker.stored == log.events[:4]
        assert log.checkpoints == []

        log.end_lease()
        await until(all_published(log))

    assert broker.stored == log.events[:4] + log.events
    assert counts.counts["relay_terms"] == 2


async def test_an_idle_relay_keeps_its_lease() -> None:
    log, broker = Log(story(versions=1)), Broker()
    async with relay(log, broker):
        await until(lambda: log.extended >= 4)

    assert broker.opened == 1


async def test_an_idle_relay_that_was_taken_over_notices() -> None:
    log, broker, counts = Log(story(versions=1)), Broker(), Counts()
    async with relay(log, broker, counts=counts):
        await until(all_published(log))
        log.holder, log.cursor = ("other", Cursor(log.cursor.position, log.cursor.epoch + 1))
        await until(lambda: counts.counts["relays_fenced"] == 1)

    assert log.holder == "other"


# ---------------------------------------------------------------------------- stopping


async def test_stopping_finishes_the_page_in_hand_and_gives_the_lease_up() -> None:
    log, broker = Log(story()), Broker()
    broker.gate.clear()
    stop = asyncio.Event()
    settings = replace(QUICK, ttl=60, publish_timeout=30)
    running = asyncio.create_task(relay(log, broker, settings).run(stop))
    await until(lambda: broker.publishes == 1)
    stop.set()
    broker.gate.set()
    await asyncio.wait_for(running, 1)

    assert broker.stored == log.events[:4]
    assert log.checkpoints == [log.events[3].row.position]
    assert (log.holder, broker.closed) == (None, 1)


async def test_stopping_does_not_wait_for_a_broker_that_is_away() -> None:
    log, broker = Log(story()), Broker()
    broker.refusing = 1_000_000
    slow = RelaySettings(backoff=60, backoff_limit=60)
    async with asyncio.timeout(1):
        async with relay(log, broker, slow):
            await until(lambda: broker.refusing < 1_000_000)

    assert log.checkpoints == []


def test_a_lease_too_short_for_one_slow_publish_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="too short"):
        RelaySettings(ttl=5, publish_timeout=4)
