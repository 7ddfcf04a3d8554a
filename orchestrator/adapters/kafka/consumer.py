"""Records in from topics: each to an intake, its offset committed only after the intake is done.

A member of a consumer group reads. When the group divides its partitions anew, what is in hand is
finished, committed and given back; what is late is cancelled and comes again elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener  # type: ignore[import-untyped]  # ships no types
from aiokafka.errors import (  # type: ignore[import-untyped]  # ships no types
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from orchestrator.adapters.kafka.lanes import GivenBackError, Lanes
from orchestrator.adapters.kafka.settings import BROKER_ERRORS, KafkaSettings, reach, within
from orchestrator.adapters.kafka.topic import ensure_topics
from orchestrator.domain.policies import Backoff
from orchestrator.errors import (
    InvalidInputError,
    NotYetError,
    RejectedRecordError,
    UnavailableError,
)
from orchestrator.ports import DeadLetters, Intake, Record, Telemetry

log = logging.getLogger(__name__)

_SAY_EVERY = 30.0

Place = tuple[str, int]
"""A topic and one of its partitions."""


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """How a member of a group reads. All times in seconds.

    At most `window` records or `window_bytes` of a partition are held, and `concurrency` are taken
    in at once. Behind a record that waits up to `ahead` others are taken in; after a crash they come
    again. `drain_timeout` is what a record in hand gets when its partition is called back.
    A partition that was stopped by an error is tried again after `stopped_for`. With
    `create_topics` those that are missing are made, where the Kafka settings allow it.
    """

    window: int = 500
    window_bytes: int = 8 * 1024 * 1024
    ahead: int = 50_000
    concurrency: int = 64
    commit_every: float = 0.5
    drain_timeout: float = 15.0
    session_timeout: float = 10.0
    rebalance_timeout: float = 30.0
    stopped_for: float = 60.0
    look_for_topics: float = 15.0
    backoff: float = 0.1
    backoff_limit: float = 5.0
    read_committed: bool = True
    create_topics: bool = False

    def __post_init__(self) -> None:
        if self.drain_timeout + 5 > self.rebalance_timeout:
            raise InvalidInputError(
                f"a drain_timeout of {self.drain_timeout:g} s leaves no time to join again within "
                f"rebalance_timeout ({self.rebalance_timeout:g} s): keep it 5 s shorter"
            )


class KafkaConsumer:
    """One member of *group*: brings the records of *topics* to an intake.

    *assigned* hears which partitions are ours whenever they were dealt anew, before any of their
    records comes. `stopped` says which partitions an error stopped, by topic and number; the others go on.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        group: str,
        intake: Intake,
        dead_letters: DeadLetters,
        telemetry: Telemetry,
        options: ConsumerSettings | None = None,
        *,
        assigned: Callable[[Sequence[Place]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._topics = tuple(dict.fromkeys(topics))
        self._group = group
        self._intake = intake
        self._dead_letters = dead_letters
        self._telemetry = telemetry
        self._options = options or ConsumerSettings()
        self._backoff = Backoff(
            timedelta(seconds=self._options.backoff),
            cap=timedelta(seconds=self._options.backoff_limit),
        )
        self._turns = asyncio.Semaphore(self._options.concurrency)
        self._on_assigned = assigned
        self._held: dict[Any, Lanes] = {}
        self._told_missing: set[str] = set()
        self._committing = asyncio.Lock()
        self._say_at = 0.0

    @property
    def stopped(self) -> Mapping[tuple[str, int], Exception]:
        """Partitions that do not go on, with the error that stopped them."""
        return {(place.topic, place.partition): lanes.error
                for place, lanes in self._held.items() if lanes.error is not None}  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Read until *stop* is set; then finish what is in hand, commit, and leave the group."""
        failures = 0
        while not stop.is_set():
            try:
                async with self._membership() as consumer:
                    failures = 0
                    await self._pump(consumer, stop)
            except (UnavailableError, *BROKER_ERRORS) as error:
                failures += 1
                delay = self._backoff.delay(failures, self._group).total_seconds()
                log.warning("group %s: reads on in %.1f s: %r", self._group, delay, error)
                await _pause(delay, stop)

    # ------------------------------------------------------------------ one membership

    @asynccontextmanager
    async def _membership(self) -> AsyncIterator[Any]:
        options, seconds = self._options, 1000
        consumer = AIOKafkaConsumer(
            **self._settings.client(),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # we look ourselves what is missing
            isolation_level="read_committed" if options.read_committed else "read_uncommitted",
            max_partition_fetch_bytes=self._settings.max_message_bytes,
            fetch_max_bytes=max(options.window_bytes, self._settings.max_message_bytes),
            session_timeout_ms=int(options.session_timeout * seconds),
            heartbeat_interval_ms=int(options.session_timeout * seconds / 5),
            rebalance_timeout_ms=int(options.rebalance_timeout * seconds),
        )
        try:
            # Started without topics: with them it would wait for the group, for as long as it takes.
            await reach(self._settings, consumer.start())
            yield consumer
        finally:
            await self._give_back(consumer)
            await self._leave(consumer)

    async def _pump(self, consumer: Any, stop: asyncio.Event) -> None:
        """Fetch and hand out, until asked to stop or a topic that was missing is there."""
        clock = asyncio.get_running_loop().time
        if self._options.create_topics and self._settings.create_topic:
            await ensure_topics(self._settings, self._topics)
        topics, missing = await self._find_topics(consumer)
        if topics:
            consumer.subscribe(topics, listener=_Listener(self, consumer))
        look_at, commit_at = clock() + self._options.look_for_topics, clock()
        while not stop.is_set():
            if not topics:
                await _pause(self._options.look_for_topics, stop)
            else:
                for place, records in (await self._fetch(consumer, stop)).items():
                    self._hand_out(place, records)
                self._steer(consumer, clock())
            if clock() >= commit_at:
                self._pass_over(consumer)
                await self._commit(consumer)
                commit_at = clock() + self._options.commit_every
            if missing and clock() >= look_at:
                if (await self._find_topics(consumer))[0] != topics:
                    return
                look_at = clock() + self._options.look_for_topics

    async def _find_topics(self, consumer: Any) -> tuple[list[str], list[str]]:
        # Asking for all topics: asking for one by name would create it on some brokers.
        cluster = await reach(self._settings, consumer._client.fetch_all_metadata())  # noqa: SLF001 - no public way
        known = cluster.topics(exclude_internal_topics=False)
        there = [topic for topic in self._topics if topic in known]
        missing = [topic for topic in self._topics if topic not in known]
        if new := set(missing) - self._told_missing:
            self._told_missing |= new
            log.warning("group %s waits for topics to be created: %s", self._group, sorted(new))
        return there, missing

    async def _fetch(self, consumer: Any, stop: asyncio.Event) -> Mapping[Any, Sequence[Any]]:
        """What came in. While the group divides its partitions nothing does, for as long as it takes."""
        window = self._options.window
        fetch = asyncio.ensure_future(consumer.getmany(timeout_ms=100, max_records=window))
        halt = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({fetch, halt}, return_when=asyncio.FIRST_COMPLETED)
            found: Mapping[Any, Sequence[Any]] = fetch.result() if fetch.done() else {}
        except NoOffsetForPartitionError as error:
            await self._begin(consumer, error.args[0], None)
        except OffsetOutOfRangeError as error:
            for place, offset in error.args[0].items():
                await self._begin(consumer, place, offset)
        else:
            return found
        finally:
            fetch.cancel()
            halt.cancel()
        return {}

    async def _begin(self, consumer: Any, place: Any, wanted: int | None) -> None:
        """Read from the oldest record there is; say what is missing before it."""
        begin = (await reach(self._settings, consumer.beginning_offsets([place])))[place]
        if place not in consumer.assignment():
            return
        consumer.seek(place, begin)
        if wanted is None:
            return
        told = f"group {self._group}: {place.topic}/{place.partition}"
        if begin > wanted:
            self._telemetry.count("lost_records", begin - wanted)
            log.error(
                "%s: %d records, from offset %d on, are gone: they were removed before they were read",
                told, begin - wanted, wanted,
            )  # fmt: skip
        else:
            log.error(
                "%s ends before offset %d, which is the next to be read: it was made anew, or lost "
                "its end; all that is there is read",
                told, wanted,
            )  # fmt: skip

    def _pass_over(self, consumer: Any) -> None:
        """Have control records and aborted ones committed, too: we never see them."""
        subscription = consumer._subscription.subscription  # noqa: SLF001 - position() may wait
        assignment = None if subscription is None else subscription.assignment
        for place, lanes in self._held.items():
            state = None if assignment is None else assignment.state_value(place)
            if state is not None and state.has_valid_position:
                lanes.pass_to(state.position)

    def _hand_out(self, place: Any, records: Sequence[Any]) -> None:
        lanes = self._held.get(place)
        if lanes is None:
            return  # called back while they were on their way
        for found in records:
            lanes.add(
                Record(
                    found.topic, found.partition, found.offset, found.timestamp, found.key,
                    found.value, tuple((name, value or b"") for name, value in found.headers),
                )
            )  # fmt: skip

    def _steer(self, consumer: Any, now: float) -> None:
        """Fetch no more for partitions that are full; try again those that were stopped."""
        paused = consumer.paused()
        for place, lanes in tuple(self._held.items()):
            if lanes.error is not None:
                self._hold(consumer, place, lanes, now)
            elif lanes.full and place not in paused:
                consumer.pause(place)
            elif place in paused and lanes.roomy:
                consumer.resume(place)

    def _hold(self, consumer: Any, place: Any, lanes: Lanes, now: float) -> None:
        if not lanes.resume_at:
            lanes.resume_at = now + self._options.stopped_for
            consumer.pause(place)
            self._telemetry.count("stopped_partitions")
            log.error(
                "group %s: %s/%d stops: %s", self._group, place.topic, place.partition, lanes.error
            )
        elif now >= lanes.resume_at and not lanes.dirty and (offset := lanes.restart) is not None:
            self._held[place] = self._new_lanes()
            consumer.seek(place, offset)
            consumer.resume(place)

    # ------------------------------------------------------------------ one record

    async def _carry(self, record: Record, closing: asyncio.Event) -> None:
        """Bring a record to the intake until it is in, or among the dead letters."""
        clock = asyncio.get_running_loop().time
        began, attempt, failures = clock(), 1, 0
        while True:
            try:
                async with self._turns:
                    await self._intake.take(record, attempt)
            except RejectedRecordError as error:
                return await self._reject(record, error, closing)
            except NotYetError as error:
                if error.patience is not None and clock() - began >= error.patience:
                    return await self._reject(record, error, closing)
                attempt += 1
                log.debug("record %s: %s", record.place, error)
            except UnavailableError as error:
                self._unavailable(record, error)
            else:
                self._telemetry.count("consumed_records")
                return None
            failures += 1
            await self._wait(failures, record, closing)

    async def _reject(self, record: Record, error: Exception, closing: asyncio.Event) -> None:
        failures = 0
        while True:
            try:
                await self._dead_letters.put(record, error)
            except UnavailableError as trouble:
                self._unavailable(record, trouble)
                failures += 1
                await self._wait(failures, record, closing)
            else:
                self._telemetry.count("dead_letters")
                log.warning("record %s is a dead letter: %s", record.place, error)
                return

    def _unavailable(self, record: Record, error: UnavailableError) -> None:
        """All that is in hand fails together: enough to know, not enough to fill a disk."""
        now = asyncio.get_running_loop().time()
        level = logging.WARNING if now >= self._say_at else logging.DEBUG
        if level is logging.WARNING:
            self._say_at = now + _SAY_EVERY
        log.log(level, "group %s waits at record %s: %s", self._group, record.place, error)

    async def _wait(self, failures: int, record: Record, closing: asyncio.Event) -> None:
        delay = self._backoff.delay(failures, record.place).total_seconds()
        await _pause(delay, closing)
        if closing.is_set():
            raise GivenBackError

    # ------------------------------------------------------------------ offsets

    def _new_lanes(self) -> Lanes:
        limits = (self._options.window, self._options.window_bytes, self._options.ahead)
        return Lanes(self._carry, *limits)

    def assigned(self, places: Sequence[Any]) -> None:
        """The group gave us these partitions."""
        self._held = {place: self._new_lanes() for place in places}
        if self._on_assigned is not None:
            self._on_assigned([(place.topic, place.partition) for place in places])
        if places:
            told = ", ".join(sorted(f"{place.topic}/{place.partition}" for place in places))
            log.info("group %s: reads %s", self._group, told)

    async def _give_back(self, consumer: Any) -> None:
        """Finish what is in hand and commit it; what ends later counts no more."""
        held = tuple(self._held.values())
        if not held:
            return
        late = await asyncio.gather(*(one.drain(self._options.drain_timeout) for one in held))
        if sum(late):
            log.warning("group %s: %d records were late and come again", self._group, sum(late))
        await self._commit(consumer)
        self._held = {}

    async def _commit(self, consumer: Any) -> None:
        async with self._committing:
            done = {place: lanes for place, lanes in self._held.items() if lanes.dirty}
            if not done:
                return
            offsets = {place: lanes.reached for place, lanes in done.items()}
            try:
                await within(self._settings.publish_timeout, consumer.commit(offsets))
            except (IllegalStateError, *BROKER_ERRORS) as error:
                # Whoever has the partitions now, or later, takes these records again.
                log.warning("group %s could not commit: %r", self._group, error)
                return
            for place, lanes in done.items():
                lanes.committed = offsets[place]

    async def _leave(self, consumer: Any) -> None:
        try:
            await within(self._settings.close_timeout, consumer.stop())
        except BROKER_ERRORS as error:
            log.warning("group %s: a consumer did not stop by itself: %r", self._group, error)
            await asyncio.wait({asyncio.ensure_future(consumer._client.close())}, timeout=1)  # noqa: SLF001 - as above


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # its base has no types
    """Tells a consumer what the group decided."""

    def __init__(self, owner: KafkaConsumer, consumer: Any) -> None:
        self._owner = owner
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # awaited by aiokafka
        del revoked  # aiokafka gives all of them back, always
        await self._owner._give_back(self._consumer)  # noqa: SLF001 - two halves of one thing

    async def on_partitions_assigned(self, assigned: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # awaited by aiokafka
        self._owner.assigned(tuple(assigned))


async def _pause(seconds: float, until: asyncio.Event) -> None:
    """Wait; not longer than until the event is set."""
    wait = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait({wait}, timeout=seconds)
    finally:
        wait.cancel()
