"""Where a shard goes on, when the broker keeps the position: exactly once, or a loud stop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.errors import FencedError, PositionError, PublishError
from orchestrator.ports import Cursor, FeedEvent, Mark
from orchestrator.runtime.relay_position import Start, Trust, is_amiss, settle
from tests.feed_events import NOON, feed_event
from tests.runtime.test_relay import QUICK, Counts, Log, Running, all_published, relay, story, until


class MarkingBroker:
    """Keeps batches with their marks, whole, from the publisher that was opened last."""

    def __init__(self, **faults: str) -> None:
        self.stored: list[FeedEvent] = []
        self.marks: list[Mark] = []
        self.faults = {int(name.removeprefix("at_")): what for name, what in faults.items()}
        self.publishes = 0
        self.opened = 0

    async def open(self) -> MarkingPublisher:
        self.opened += 1
        return MarkingPublisher(self, self.opened)

    def forget(self, marks: int, events: int) -> None:
        """Lose the last of both, as one whose topics were brought back from a copy."""
        del self.marks[len(self.marks) - marks :]
        del self.stored[len(self.stored) - events :]


class OvertakenBroker(MarkingBroker):
    """Another relay publishes a batch while the first reads the mark."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    async def open(self) -> MarkingPublisher:
        publisher = await super().open()
        if self.opened == 1:
            end = self.log.events[2].row.position
            self.stored, self.marks = self.log.events[:3], [Mark(0, end, 2)]
            self.log.holder, self.log.cursor = "other", Cursor(end, 2)
        return publisher


class MarkingPublisher:
    def __init__(self, broker: MarkingBroker, number: int) -> None:
        self._broker = broker
        self._number = number

    async def mark(self) -> Mark | None:
        return self._broker.marks[-1] if self._broker.marks else Mark(0, 0, 0)

    async def publish(self, events: Sequence[FeedEvent], mark: Mark) -> None:
        broker = self._broker
        broker.publishes += 1
        fault = broker.faults.get(broker.publishes)
        if self._number != broker.opened:
            raise FencedError
        if fault == "refuse":
            raise PublishError("refused")
        broker.stored.extend(events)
        broker.marks.append(mark)
        if fault == "lose the answer":
            raise PublishError("the answer was lost")

    async def close(self) -> None:
        return


def relay_to(broker: MarkingBroker, log: Log, **more: object) -> Running:
    return relay(log, broker, replace(QUICK, backoff_limit=0.01), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["refuse", "lose the answer"])
@pytest.mark.parametrize("at", range(1, 9))
async def test_after_a_failure_each_event_is_there_once(fault: str, at: int) -> None:
    log, broker, counts = Log(story()), MarkingBroker(**{f"at_{at}": fault}), Counts()
    async with relay_to(broker, log, counts=counts):
        await until(all_published(log))

    assert broker.stored == log.events
    assert counts.counts["producers_rebuilt"] == 1
    assert broker.opened == 2


async def test_a_checkpoint_that_did_not_follow_the_broker_is_caught_up() -> None:
    log, broker = Log(story()), MarkingBroker()
    broker.stored, broker.marks = log.events[:4], [Mark(0, log.events[3].row.position, 0)]
    async with relay_to(broker, log):
        await until(all_published(log))

    assert broker.stored == log.events


async def test_one_that_was_fenced_at_the_broker_adds_nothing_and_is_no_failure_of_its_successor() -> (
    None
):
    log, broker, counts = Log(story(versions=2)), MarkingBroker(), Counts()
    async with relay_to(broker, log, counts=counts):
        await until(all_published(log))
        successor = await broker.open()
        log.holder, log.cursor = "other", Cursor(log.cursor.position, log.cursor.epoch + 1)
        log.events.append(feed_event("a", 3, position=1000))
        await until(lambda: counts.counts["relays_fenced"] == 1)
        await successor.publish(log.events[6:], Mark(18, 1000, 2))

    assert broker.stored == log.events


async def test_a_relay_goes_on_over_positions_without_events_and_marks_them_now_and_then() -> None:
    log, broker = Log(story(versions=1)), MarkingBroker()
    async with relay(log, broker, replace(QUICK, mark_every=500)):  # type: ignore[arg-type]
        await until(all_published(log))
        log.skip_to = 400
        await until(lambda: log.cursor.position == 400)
        assert broker.marks[-1].position == 9
        log.skip_to = 1000
        await until(lambda: log.cursor.position == 1000)

    assert broker.marks[-1] == Mark(400, 1000, 1)


async def test_who_lost_the_lease_while_the_mark_was_read_is_fenced_and_raises_no_alarm() -> None:
    log, counts = Log(story(versions=2)), Counts()
    broker = OvertakenBroker(log)
    async with relay_to(broker, log, counts=counts):
        await until(lambda: counts.counts["relays_fenced"] == 1)
        log.end_lease()
        await until(all_published(log))

    assert broker.stored == log.events
    assert counts.counts["positions_refused"] == 0


# ---------------------------------------------------------------------------- when they disagree


async def refused(log: Log, broker: MarkingBroker, caplog: pytest.LogCaptureFixture) -> str:
    """What a relay says that does not publish; it says it again."""
    stored, counts = list(broker.stored), Counts()
    with caplog.at_level(logging.ERROR):
        async with relay_to(broker, log, counts=counts):
            await until(lambda: counts.counts["positions_refused"] >= 2)
    assert broker.stored == stored
    return caplog.text


async def published_before(events: int = 12) -> tuple[Log, MarkingBroker]:
    log, broker = Log(story(versions=events // 3)), MarkingBroker()
    async with relay_to(broker, log):
        await until(all_published(log))
    return log, broker


async def test_a_broker_that_was_emptied_stops_the_relay_with_the_first_event_it_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, broker = await published_before()
    broker.forget(len(broker.marks), len(broker.stored))
    said = await refused(log, broker, caplog)
    assert "says that saga a version 1 was published" in said
    assert "--go-on-from broker" in said


async def test_a_broker_that_lost_its_last_batch_stops_the_relay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, broker = await published_before()
    broker.forget(marks=1, events=4)
    assert "was published: topics of the broker were removed" in await refused(log, broker, caplog)


async def test_an_older_state_of_the_database_stops_the_relay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, broker = await published_before()
    log.cursor = Cursor(log.events[1].row.position, log.cursor.epoch)
    assert "an older state of the database was brought back" in await refused(log, broker, caplog)


async def test_a_database_that_has_not_come_to_the_epoch_of_the_broker_stops_the_relay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, broker = await published_before()
    broker.marks.append(replace(broker.marks[-1], epoch=99))
    assert "the broker has a batch of epoch 99" in await refused(log, broker, caplog)


async def test_told_to_go_on_from_the_broker_it_publishes_what_the_broker_lost() -> None:
    log, broker = await published_before()
    broker.forget(len(broker.marks), len(broker.stored))
    log.events.append(feed_event("a", 5, position=1000))
    async with relay_to(broker, log, trust=Trust.BROKER):
        await until(all_published(log))

    assert broker.stored == log.events


async def test_told_to_go_on_from_the_database_it_publishes_what_follows_the_checkpoint() -> None:
    log, broker = await published_before()
    before = len(broker.stored)
    log.cursor = Cursor(log.events[1].row.position, log.cursor.epoch)
    async with relay_to(broker, log, trust=Trust.DATABASE):
        await until(lambda: len(broker.stored) > before)
        await until(all_published(log))

    assert broker.stored[before:] == log.events[2:]


class TakenLog(Log):
    """Another takes the lease at the moment when a checkpoint is to be set as a person said."""

    async def rewind(self, relay: str, owner: str, cursor: Cursor, ttl: timedelta) -> bool:
        if self.holder == owner and self.rewound == 0:
            self.rewound, self.holder = 1, "other"
            self.cursor = Cursor(self.cursor.position, self.cursor.epoch + 1)
        return await super().rewind(relay, owner, cursor, ttl)

    rewound = 0


@pytest.mark.parametrize("trust", [Trust.BROKER, Trust.DATABASE])
async def test_what_a_person_said_still_counts_when_the_lease_was_lost_before_it_was_done(
    trust: Trust,
) -> None:
    log, broker, counts = TakenLog(story(versions=4)), MarkingBroker(), Counts()
    end = log.events[5].row.position
    log.cursor = Cursor(end, 1)
    async with relay_to(broker, log, trust=trust, counts=counts):
        await until(lambda: counts.counts["relays_fenced"] == 1)
        assert (broker.marks, broker.stored) == ([], [])
        log.end_lease()
        await until(all_published(log))

    assert broker.stored == (log.events if trust is Trust.BROKER else log.events[6:])
    assert counts.counts["positions_refused"] == 0


class Later:
    """A clock at five minutes after all events."""

    def now(self) -> datetime:
        return NOON + timedelta(minutes=5)


async def test_the_lag_of_a_shard_that_publishes_nothing_is_told() -> None:
    log, broker = await published_before()
    broker.forget(marks=len(broker.marks), events=len(broker.stored))
    counts = Counts()
    async with relay_to(broker, log, counts=counts, clock=Later()) as running:
        await until(lambda: counts.counts["positions_refused"] >= 1)
        assert running.lag == 300


async def test_a_batch_whose_answer_was_lost_is_no_lag_once_it_is_known_to_be_there() -> None:
    log, broker, counts = Log(story(versions=1)), MarkingBroker(at_1="lose the answer"), Counts()
    async with relay_to(broker, log, counts=counts, clock=Later()) as running:
        await until(lambda: counts.counts["relay_terms"] == 2)
        await until(all_published(log))
        assert running.lag == 0

    assert broker.stored == log.events


def test_only_a_checkpoint_at_the_beginning_or_past_the_end_of_the_last_batch_is_right() -> None:
    mark = Mark(since=10, position=20, epoch=3)
    right = {at for at in range(30) if not _refused(Cursor(at, 3), mark)}
    assert right == {10, *range(20, 30)}
    assert settle(Cursor(10, 3), mark) == Start(20, 20)
    assert settle(Cursor(25, 4), mark) == Start(20, 25)
    assert _refused(Cursor(20, 2), mark)
    assert [at for at in range(9, 23) if is_amiss(Cursor(at, 3), mark)] == [
        *[9], *range(11, 20), 21, 22
    ]  # fmt: skip


def _refused(cursor: Cursor, mark: Mark) -> bool:
    try:
        settle(cursor, mark)
    except PositionError:
        return True
    return False
