"""A worker among a database that answers late, wrongly or not at all, and people's steps."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator import Orchestrator, Saga, Status, Worker, WorkerSettings, WorkflowContext, step
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import BusyError, UnavailableError
from orchestrator.ports import Append, Claim, Definition, Held, Store
from tests.contract.given import Given
from tests.doomed import begin

QUICK = WorkerSettings(
    ttl=3, renew_every=0.1, command_timeout=0.5, margin=0.5, poll_every=0.02, watch_every=0.02,
    announce_after=0.05, grace=2,
)  # fmt: skip
HASTY = WorkerSettings(
    ttl=0.5, renew_every=0.05, command_timeout=0.05, margin=0.1, poll_every=0.02, watch_every=0.02,
    grace=0.1,
)  # fmt: skip


@dataclass
class Diary:
    """What the steps did, and what lets them go on."""

    did: list[str] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def times(self, entry: str) -> Callable[[int], Callable[[], bool]]:
        return lambda count: lambda: self.did.count(entry) >= count


@step
async def visit(place: str, ctx: WorkflowContext) -> str:
    ctx.use(Diary).did.append(f"came to {place}")
    return place


@visit.compensation_on_doubt
async def leave_again(tried: Any, ctx: WorkflowContext) -> None:
    ctx.use(Diary).did.append("left again")


@step
async def stay(place: str, ctx: WorkflowContext) -> str:
    diary = ctx.use(Diary)
    diary.did.append(f"stays at {place}")
    try:
        await diary.gate(place).wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        diary.did.append(f"called away from {place}")
        raise
    return place


@stay.compensation_on_doubt
async def forget_stay(tried: Any, ctx: WorkflowContext) -> None:
    ctx.use(Diary).did.append("forgot the stay")


short = Saga("short", version=1, body=visit)
long = Saga("long", version=1, body=stay)
limited = Saga("limited", version=1, body=visit.named("visit_slowly").rate_limit("visits", 5))
SAGAS = (short, long, limited)


class Part:
    """One part of a store, with some of it done otherwise."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def changed(store: Store, **parts: Part) -> Store:
    """*store* with other parts. (A memory store is more than its ports.)"""
    ports = {each.name: getattr(store, each.name) for each in fields(Store)}
    return Store(**{**ports, **parts})


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
def diary() -> Diary:
    return Diary()


@asynccontextmanager
async def working(
    store: Store, diary: Diary, settings: WorkerSettings = QUICK
) -> AsyncIterator[Orchestrator]:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    worker = Worker(store, JsonCodec(), SilentTelemetry(), SAGAS, {Diary: diary}, settings)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield orchestrator
    finally:
        stop.set()
        for gate in diary.gates.values():
            gate.set()
        await asyncio.wait_for(running, 10)
        await orchestrator.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------------------- slots


async def test_a_free_slot_is_filled_although_the_others_stay_taken(
    store: Store, diary: Diary
) -> None:
    settings = WorkerSettings(slots=32, poll_every=0.02)
    async with working(store, diary, settings) as orchestrator:
        for n in range(32):
            await orchestrator.start(long, str(n))
        await until(lambda: len(diary.did) == 32)
        waiting = await orchestrator.start(short, "Rome")
        diary.gate("7").set()

        assert await waiting.result(within=5) == "Rome"


# ---------------------------------------------------------------------------- answers late or lost


class LateClaims(Part):
    """A queue whose first claim is done at once, and told of when the test says so."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.tell = asyncio.Event()
        self.looks = 0
        self.claimed = False

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        claims: list[Claim] = await self._inner.claim(owner, limit, definitions)
        if claims and not self.claimed:
            self.claimed = True
            await self.tell.wait()
        return claims

    async def owned(self, owner: str) -> Any:
        self.looks += 1
        return await self._inner.owned(owner)


async def test_a_claim_whose_answer_is_late_is_not_given_back_meanwhile(
    store: Store, diary: Diary
) -> None:
    queue = LateClaims(store.queue)
    async with working(changed(store, queue=queue), diary) as orchestrator:
        handle = await orchestrator.start(short, "Rome")
        await until(lambda: queue.claimed)
        looks = queue.looks
        await until(lambda: queue.looks > looks + 5)
        queue.tell.set()

        assert await handle.result(within=5) == "Rome"
        assert diary.did == ["came to Rome"]
        assert (await orchestrator.get(handle.saga_id)).epoch == 1


class LostClaims(Part):
    """A queue whose first claims are done, and the answer is lost."""

    lose = 1

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.counted: list[int] = []

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        claims: list[Claim] = await self._inner.claim(owner, limit, definitions)
        self.counted += [claim.claims for claim in claims]
        if claims and self.lose:
            self.lose -= 1
            raise UnavailableError("the answer was lost")
        return claims


async def test_a_claim_whose_answer_was_lost_is_taken_again(store: Store, diary: Diary) -> None:
    queue = LostClaims(store.queue)
    async with working(changed(store, queue=queue), diary) as orchestrator:
        handle = await orchestrator.start(short, "Rome")

        assert await handle.result(within=5) == "Rome"
        assert diary.did == ["came to Rome"]
        assert queue.counted == [1, 1], "nobody had begun it, so it is as clean as before"


# ---------------------------------------------------------------------------- one task each


async def test_an_instance_that_is_claimed_anew_is_carried_once(store: Store, diary: Diary) -> None:
    async with working(store, diary) as orchestrator:
        handle = await orchestrator.start(long, "Rome")
        await until(diary.times("stays at Rome")(1))
        owner = (await orchestrator.get(handle.saga_id)).owner
        assert owner is not None
        await store.queue.release(owner, [handle.saga_id])
        await until(diary.times("stays at Rome")(2))

        assert diary.did == ["stays at Rome", "called away from Rome", "stays at Rome"]
        await handle.cancel("enough")
        await _in_history(orchestrator, handle.saga_id, "CancelRequested")
        diary.gate("Rome").set()
        assert await orchestrator.wait(handle.saga_id, within=5) is Status.COMPENSATED


async def _in_history(orchestrator: Orchestrator, saga_id: str, type_: str) -> None:
    async with asyncio.timeout(5):
        while type_ not in [entry.type async for entry in orchestrator.history(saga_id)]:
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------- the lease


class Silence(Part):
    """A fleet that stops answering when the test says so."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.silent = asyncio.Event()
        self.freed: list[list[str]] = []
        self.diary: Diary | None = None

    async def renew(self, worker_id: str, ttl: timedelta) -> bool:
        if self.silent.is_set():
            await asyncio.Event().wait()
        alive: bool = await self._inner.renew(worker_id, ttl)
        return alive

    async def leave(self, worker_id: str) -> None:
        self.freed.append([] if self.diary is None else list(self.diary.did))
        await self._inner.leave(worker_id)


async def test_steps_are_called_away_at_the_deadline_although_the_renewal_hangs(
    store: Store, diary: Diary
) -> None:
    fleet = Silence(store.fleet)
    async with working(changed(store, fleet=fleet), diary, HASTY) as orchestrator:
        await orchestrator.start(long, "Rome")
        await until(diary.times("stays at Rome")(1))
        fleet.silent.set()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(diary.times("called away from Rome")(1))

        assert loop.time() - began < HASTY.ttl


class SlowToAsk(Part):
    """Shared state that is long in letting the first one pass, and lets no other."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def reserve(self, rate: Any, turn: datetime | None = None) -> Held | None:
        if self.asked.is_set():
            return Held(datetime.max.replace(tzinfo=UTC))
        self.asked.set()
        await self.answer.wait()
        return None


async def test_nothing_is_called_after_the_deadline_that_was_asked_for_before(
    store: Store, diary: Diary
) -> None:
    fleet, shared = Silence(store.fleet), SlowToAsk(store.shared)
    async with working(changed(store, fleet=fleet, shared=shared), diary, HASTY) as orchestrator:
        await orchestrator.start(limited, "Rome")
        await asyncio.wait_for(shared.asked.wait(), 5)
        fleet.silent.set()
        await until(lambda: len(fleet.freed) == 1)
        shared.answer.set()

    assert diary.did == []


# ---------------------------------------------------------------------------- going


async def test_steps_have_ended_before_their_instance_is_given_to_others(
    store: Store, diary: Diary
) -> None:
    fleet = Silence(store.fleet)
    fleet.diary = diary
    worker = Worker(
        changed(store, fleet=fleet), JsonCodec(), SilentTelemetry(), SAGAS, {Diary: diary}, HASTY
    )
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    await orchestrator.start(long, "Rome")
    await until(diary.times("stays at Rome")(1))
    stop.set()
    await asyncio.wait_for(running, 5)
    await orchestrator.close()

    assert fleet.freed == [["stays at Rome", "called away from Rome"]]


async def test_a_worker_that_is_cancelled_leaves_no_task_behind(store: Store, diary: Diary) -> None:
    before = asyncio.all_tasks()
    worker = Worker(store, JsonCodec(), SilentTelemetry(), SAGAS, {Diary: diary}, QUICK)
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    running = asyncio.create_task(worker.run(asyncio.Event()))
    handle = await orchestrator.start(short, "Rome")
    await handle.result(within=5)
    await orchestrator.close()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})

    await until(lambda: asyncio.all_tasks() <= before)


@step
def count_up(n: int, ctx: WorkflowContext) -> int:
    return n + 1


counting = Saga("counting", version=1, body=count_up)


async def test_a_worker_that_begins_anew_leaves_no_threads_behind(store: Store) -> None:
    def threads() -> int:
        return sum(thread.name == "step" for thread in threading.enumerate())

    before = threads()
    worker = Worker(store, JsonCodec(), SilentTelemetry(), [counting], {}, QUICK)
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), [counting])
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    for n in range(10):
        assert await (await orchestrator.start(counting, n)).result(within=5) == n + 1
        [member] = await store.fleet.members()
        await store.fleet.leave(member.worker_id)
    stop.set()
    await running
    await orchestrator.close()

    await until(lambda: threads() <= before)


# ---------------------------------------------------------------------------- a disk that is full


class FullDisk(Part):
    """A log that takes nothing while the test says so; the rows beside it can be written."""

    def __init__(self, inner: Any, error: Exception) -> None:
        super().__init__(inner)
        self.error: Exception | None = error
        self.refused = 0

    async def append(self, batch: Any) -> Any:
        if self.error is not None:
            self.refused += 1
            raise self.error
        return await self._inner.append(batch)


async def test_what_was_done_is_kept_and_written_once_the_log_takes_it(
    store: Store, diary: Diary
) -> None:
    events = FullDisk(store.events, BusyError("no space left on device"))
    async with working(changed(store, events=events), diary) as orchestrator:
        handle = await orchestrator.start(short, "Rome")
        await until(lambda: events.refused > 4)
        events.error = None

        assert await handle.result(within=5) == "Rome"
        assert diary.did == ["came to Rome"]
        assert (await orchestrator.get(handle.saga_id)).epoch == 1


async def test_what_was_seen_while_the_log_was_away_is_forgotten(
    store: Store, diary: Diary
) -> None:
    events = FullDisk(store.events, UnavailableError("the database is away"))
    async with working(changed(store, events=events), diary) as orchestrator:
        handle = await orchestrator.start(short, "Rome")
        await until(lambda: events.refused >= 2)
        events.error = None

        assert await handle.result(within=5) == "Rome"
        assert (await orchestrator.get(handle.saga_id)).epoch == 1 + events.refused
        assert diary.did == ["came to Rome"] * (1 + events.refused)


# ---------------------------------------------------------------------------- trouble of our own


class Faulty(Part):
    """A log that a fault in the code keeps from being written."""

    async def append(self, batch: Any) -> Any:
        raise ZeroDivisionError("a fault in the code")


async def test_an_instance_that_failed_thousands_of_times_still_comes_back_later(
    store: Store, diary: Diary
) -> None:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    handle = await orchestrator.start(short, "Rome")
    await store.fleet.join("ann", "ann", timedelta(minutes=1))
    for _ in range(2000):
        [claim] = await begin(store, "ann", [("short", 1)])
        await store.queue.release("ann", [handle.saga_id])
    async with working(changed(store, events=Faulty(store.events)), diary):
        async with asyncio.timeout(5):
            while (instance := await orchestrator.get(handle.saga_id)).epoch == claim.epoch:
                await asyncio.sleep(0.005)
            while (instance := await orchestrator.get(handle.saga_id)).owner is not None:
                await asyncio.sleep(0.005)
    await orchestrator.close()

    assert instance.epoch == claim.epoch + 2, "claimed and begun once more"
    assert instance.due_at is not None
    assert instance.due_at - store.clock.now() > timedelta(seconds=30)


# ---------------------------------------------------------------------------- what is said


class Away(Part):
    """A part that cannot be reached while the test says so."""

    def __init__(self, inner: Any, outage: Outage) -> None:
        super().__init__(inner)
        self._outage = outage

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)

        async def call(*args: Any) -> Any:
            if self._outage.on:
                self._outage.refused += 1
                raise UnavailableError("the database is away")
            return await found(*args)

        return call


@dataclass
class Outage:
    """Whether the database is away, and how often it was asked meanwhile."""

    on: bool = False
    refused: int = 0


@pytest.mark.parametrize("at_start", [True, False])
async def test_an_outage_is_said_once_and_its_end_once(
    store: Store, diary: Diary, caplog: pytest.LogCaptureFixture, at_start: bool
) -> None:
    outage = Outage(on=at_start)
    away = changed(store, queue=Away(store.queue, outage), fleet=Away(store.fleet, outage))
    with caplog.at_level(logging.INFO, "orchestrator.runtime"):
        async with working(away, diary) as orchestrator:
            if not at_start:
                handle = await orchestrator.start(short, "Paris")
                await handle.result(within=5)
            outage.on = True
            await until(lambda: outage.refused > (2 if at_start else 20))
            outage.on = False
            handle = await orchestrator.start(short, "Rome")
            await handle.result(within=5)
            await until(lambda: "back" in caplog.text)

    said = [record.getMessage() for record in caplog.records if "away" in record.getMessage()]
    assert len(said) == 1
    assert len([record for record in caplog.records if "is back" in record.getMessage()]) == 1


# ---------------------------------------------------------------------------- poison


async def claimed_in_vain(store: Store, times: int, begun: bool = True) -> str:
    """An instance whose owners all died before they recorded anything, or even began it."""
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    handle = await orchestrator.start(short, "Rome")
    for _ in range(times):
        owner = str(uuid.uuid4())
        await store.fleet.join(owner, "doomed", timedelta(seconds=60))
        if begun:
            [claim] = await begin(store, owner, [("short", 1)])
        else:
            [claim] = await store.queue.claim(owner, 1, [("short", 1)])
        assert claim.saga_id == handle.saga_id
        await store.queue.release(owner, [claim.saga_id])
    return handle.saga_id


async def test_what_was_claimed_in_vain_too_often_is_stuck_before_anything_runs(
    store: Store, diary: Diary
) -> None:
    saga_id = await claimed_in_vain(store, WorkerSettings().claim_limit)
    async with working(store, diary) as orchestrator:
        assert await orchestrator.wait(saga_id, within=10) is Status.STUCK
        assert diary.did == []
        await orchestrator.resume(saga_id, "the worker was mended", actor="ann")
        assert await orchestrator.wait(saga_id, within=10) is Status.COMPLETED


async def begun_in_vain(store: Store) -> str:
    """An instance that went on once, and then had owners that all died as soon as they began it."""
    given = Given(store)
    saga_id = await claimed_in_vain(store, 1)
    owner = await given.worker()
    [claim] = await store.queue.claim(owner, 1, [("short", 1)])
    assert saga_id in await store.events.append([given.append(owner, claim, 2)])
    for _ in range(WorkerSettings().claim_limit):
        await store.queue.release(owner, [saga_id])
        await begin(store, owner, [("short", 1)])
    await store.queue.release(owner, [saga_id])
    return saga_id


class Heavy(Part):
    """A log with histories that no worker lives to read to their end."""

    async def read(self, saga_id: str, after: int = 0) -> Any:
        if after == 0:
            await asyncio.Event().wait()
        return await self._inner.read(saga_id, after)


async def test_what_was_claimed_in_vain_too_often_is_stuck_before_its_history_is_read(
    store: Store, diary: Diary
) -> None:
    saga_id = await begun_in_vain(store)
    async with working(changed(store, events=Heavy(store.events)), diary) as orchestrator:
        assert await orchestrator.wait(saga_id, within=5) is Status.STUCK
    assert [row.version for row in await store.events.read(saga_id)] == [1, 2, 3]


class Overtaken(Part):
    """An inbox into which a message comes right after it was read."""

    def __init__(self, inner: Any, send: Callable[[], Any]) -> None:
        super().__init__(inner)
        self._send = [send]

    async def read(self, saga_id: str, after: int) -> Any:
        found = await self._inner.read(saga_id, after)
        if self._send:
            await self._send.pop()()
        return found


async def test_a_terminate_that_comes_while_it_is_parked_is_obeyed(
    store: Store, diary: Diary
) -> None:
    saga_id = await begun_in_vain(store)
    sender = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    inbox = Overtaken(store.inbox, lambda: sender.terminate(saga_id, "enough", actor="ann"))
    async with working(changed(store, inbox=inbox), diary) as orchestrator:
        await until(lambda: not inbox._send)
        async with asyncio.timeout(5):
            while await (await orchestrator.handle(saga_id)).status() is not Status.TERMINATED:
                await asyncio.sleep(0.01)
    await sender.close()


class Refusing(Part):
    """A log that cannot be written to for so many times: for all, or where *whose* is concerned."""

    def __init__(self, inner: Any, times: float, whose: str = "") -> None:
        super().__init__(inner)
        self.left, self.whose = times, whose

    async def append(self, batch: Sequence[Append]) -> Any:
        if self.left > 0 and (not self.whose or self.whose in {one.saga_id for one in batch}):
            self.left -= 1
            raise UnavailableError("the table is locked")
        return await self._inner.append(batch)


STRICT = replace(QUICK, claim_limit=3)


async def test_while_nobody_can_write_no_instance_is_blamed_for_it(
    store: Store, diary: Diary
) -> None:
    locked = Refusing(store.events, times=6)
    async with working(changed(store, events=locked), diary, STRICT) as orchestrator:
        handle = await orchestrator.start(short, "Rome")
        assert await orchestrator.wait(handle.saga_id, within=20) is Status.COMPLETED
    assert locked.left == 0
    assert diary.did.count("came to Rome") == 7, "called again under its key, each time"


async def test_where_nobody_can_write_for_very_long_a_step_is_not_called_without_end(
    store: Store, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.runtime.worker._BROWN_OUT", 0.3)
    locked = Refusing(store.events, times=8)
    async with working(changed(store, events=locked), diary, STRICT) as orchestrator:
        handle = await orchestrator.start(short, "Rome")
        assert await orchestrator.wait(handle.saga_id, within=30) is Status.STUCK
    assert locked.left == 0
    assert 3 < diary.did.count("came to Rome") < 8


async def test_one_that_can_never_be_written_is_parked_where_others_are(
    store: Store, diary: Diary
) -> None:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    handle = await orchestrator.start(short, "Rome")
    locked = Refusing(store.events, times=math.inf, whose=handle.saga_id)
    async with working(changed(store, events=locked), diary, STRICT):
        async with asyncio.timeout(20):
            while (await orchestrator.get(handle.saga_id)).claims <= STRICT.claim_limit + 1:
                others = [await orchestrator.start(short, f"Paris {n}") for n in range(3)]
                for other in others:
                    await other.result(within=20)
        locked.left = 0
        assert await orchestrator.wait(handle.saga_id, within=20) is Status.STUCK
    await orchestrator.close()


async def test_what_its_dead_owners_never_began_is_not_held_against_it(
    store: Store, diary: Diary
) -> None:
    saga_id = await claimed_in_vain(store, 2 * WorkerSettings().claim_limit, begun=False)
    async with working(store, diary) as orchestrator:
        assert await orchestrator.wait(saga_id, within=10) is Status.COMPLETED


async def test_what_was_claimed_in_vain_too_often_can_be_terminated(
    store: Store, diary: Diary
) -> None:
    saga_id = await claimed_in_vain(store, WorkerSettings().claim_limit)
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), SAGAS)
    await orchestrator.terminate(saga_id, "not needed any more", actor="ann")
    async with working(store, diary):
        assert await orchestrator.wait(saga_id, within=10) is Status.TERMINATED
    assert diary.did == []
