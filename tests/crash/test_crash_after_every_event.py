"""A process that dies at any append or any effect: another one goes on to the same end.

The real engine, recorder and executor on the memory store. Death comes before or after the n-th
append, or before or after the n-th effect, for every n there is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from orchestrator.adapters.clock import ManualClock
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import MemoryDatabase
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain import events as ev
from orchestrator.domain.chain import genesis, link
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import Primitive, pure
from orchestrator.domain.events import ENDED, Event, Json, Status
from orchestrator.domain.evolve import fold
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Completed, Step, step
from orchestrator.domain.wrappers import Retry, Timeout
from orchestrator.errors import OwnershipLostError, Permanent, Retryable
from orchestrator.ports import Append, Claim, EventRow, EventStore, StartRequest, Store
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.executor import Executor
from orchestrator.runtime.recorder import Recorder
from tests.spec import START

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.DefinitionWarning")

SAGA_ID = "01900000-0000-7000-8000-000000000001"
LIFETIMES = 6


# ---------------------------------------------------------------------------- death


class Died(BaseException):
    """The process is gone; nothing in it may catch this."""


@dataclass
class Fate:
    """Counts the moments at which a process can die, and lets it die at the chosen one."""

    at: int
    moments: int = 0
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    def due(self) -> bool:
        self.moments += 1
        return self.moments == self.at

    async def in_an_effect(self) -> None:
        if self.due():
            self.dead.set()
        await self.if_dead()

    async def in_an_append(self) -> None:
        if self.due():
            self.dead.set()
            raise Died
        await self.if_dead()

    async def if_dead(self) -> None:
        """Nothing that was going on in a dead process comes back."""
        if self.dead.is_set():
            await asyncio.Event().wait()


class CrashingEvents:
    """An event store whose client dies before or after a commit."""

    def __init__(self, events: EventStore, fate: Fate) -> None:
        self._events = events
        self._fate = fate

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        await self._fate.in_an_append()
        written = await self._events.append(batch)
        await self._fate.in_an_append()
        return written

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        return await self._events.read(saga_id, after)


# ---------------------------------------------------------------------------- the world


@dataclass
class Town:
    """An idempotent service: what was done under a key is done once, whoever asks again."""

    store: Store
    fate: Fate
    fails: str = ""
    busy: str = ""
    always_busy: str = ""
    cancel_in: str = ""
    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    async def do(self, name: str, ctx: WorkflowContext) -> str:
        self.calls[name] += 1
        if self.cancel_in == name:
            await self.store.inbox.send(
                SAGA_ID, "cancel", {"reason": "no more"}, actor="ann", dedupe_key="c1"
            )
        await self.fate.in_an_effect()
        if self.fails == name:
            raise Permanent(f"{name} is refused")
        if self.always_busy == name or (self.busy == name and ctx.attempt == 1):
            raise Retryable("come back later")
        if ctx.idempotency_key not in self.done:
            self.done.append(ctx.idempotency_key)
        await self.fate.in_an_effect()
        return name

    async def undo(self, forward_key: str, ctx: WorkflowContext) -> None:
        assert ctx.idempotency_key == f"{forward_key}/undo"
        await self.fate.in_an_effect()
        if forward_key in self.done and forward_key not in self.undone:
            self.undone.append(forward_key)
        await self.fate.in_an_effect()


def make(name: str, **options: Any) -> Step[Any, str]:
    async def act(value: Any, ctx: WorkflowContext) -> str:
        return await ctx.use(Town).do(name, ctx)

    return step(name=name, **options)(act)


async def take_back(done: Completed[Any, str], ctx: WorkflowContext) -> None:
    assert done.output
    await ctx.use(Town).undo(done.key, ctx)


async def take_back_on_doubt(tried: Any, ctx: WorkflowContext) -> None:
    await ctx.use(Town).undo(tried.key, ctx)


def kept(name: str, **options: Any) -> Step[Any, str]:
    return make(name, **options).undo(take_back)


def join(parts: Any) -> str:
    return "+".join(parts)


def order() -> Primitive[Any, Any]:
    return kept("hold") >> (kept("pay") | kept("parcel")) >> kept("receipt")


def transfer() -> Primitive[Any, Any]:
    return kept("reserve") >> kept("debit") >> kept("credit") >> kept("tell")


def pairs() -> Primitive[Any, Any]:
    chain = Compensation(((make("user"), take_back), (make("mail"), take_back)))
    return Retry(chain, 2, initial=0) >> Retry(kept("welcome"), 2, initial=0)


def computed() -> Primitive[Any, Any]:
    """Values and time-outs, which are recorded along with what comes after them."""
    first = kept("hold").map(str.upper) >> Timeout(kept("pay").map(str) >> kept("parcel"), 60)
    return first >> (kept("left") | kept("right").map(str)) >> pure(join) >> kept("receipt")


FLOWS: dict[str, Callable[[], Primitive[Any, Any]]] = {
    "order": order,
    "transfer": transfer,
    "pairs": pairs,
    "computed": computed,
}
STEPS = {
    "order": ["hold", "pay", "parcel", "receipt"],
    "transfer": ["reserve", "debit", "credit", "tell"],
    "pairs": ["user", "mail", "welcome"],
    "computed": ["hold", "pay", "parcel", "left", "right", "receipt"],
}

BESIDE = {("order", "pay"): {"parcel"}, ("computed", "left"): {"right"}}
"""What runs beside a step and is written after it."""


# ---------------------------------------------------------------------------- life after life


@dataclass
class Story:
    """One instance carried through as many processes as it takes."""

    saga: Saga[Any, Any]
    database: MemoryDatabase
    clock: ManualClock
    town: Town
    away: timedelta
    codec: JsonCodec = field(default_factory=JsonCodec)
    lives: int = 0

    async def live_until_the_end(self) -> list[Event]:
        store = self.town.store
        await self._start()
        for life in range(LIFETIMES):
            self.lives = life + 1
            await self._live(f"00000000-0000-4000-8000-00000000000{life}")
            instance = await store.reads.get(SAGA_ID)
            assert instance is not None
            if instance.status in ENDED or instance.status is Status.STUCK:
                return await self._history(instance.status)
        raise AssertionError(f"not at its end after {LIFETIMES} lives")

    async def _start(self) -> None:
        saga = self.saga
        request = StartRequest(
            SAGA_ID, saga.name, saga.version, saga.fingerprint, None, Json('"in"'), "{}", "c"
        )
        await self.town.store.requests.start([request])

    async def _live(self, owner: str) -> None:
        """One process: it claims, carries, and dies or is done. Its memory goes with it."""
        fate = self.town.fate
        asyncio.get_running_loop().set_exception_handler(_let_the_dead_rest)
        store = self.database.store()
        await store.fleet.retire_dead()
        await store.fleet.join(owner, owner, timedelta(minutes=5))
        body = asyncio.create_task(self._carry(owner, store))
        end = asyncio.create_task(fate.dead.wait())
        await asyncio.wait({body, end}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert body.done() or end.done(), "it neither ended nor died"
        died = fate.dead.is_set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if not died:
            body.result()
        elif not body.cancelled():
            body.exception()
        fate.dead.clear()
        store.fleet.cut()
        self.clock.advance(self.away)

    async def _carry(self, owner: str, store: Store) -> None:
        store = replace(store, events=CrashingEvents(store.events, self.town.fate))
        telemetry = SilentTelemetry()
        recorder = Recorder(store.events, telemetry)
        resources: dict[type, object] = {Town: self.town}
        executor = Executor(self.codec, store, resources, telemetry, timedelta(seconds=30))
        place = (self.saga.name, self.saga.version)
        engine = Engine(
            store, self.codec, recorder, executor, telemetry, {place: self.saga},
            owner=owner, may_act=lambda: True,
        )  # fmt: skip
        claims = await store.queue.claim(owner, 1, [place])
        mine: Claim | None = claims[0]
        while mine is not None:
            try:
                await engine.advance(mine)
            except OwnershipLostError:
                mine = await store.queue.reclaim(owner, SAGA_ID, mine.epoch)
            else:
                return

    async def _history(self, status: Status) -> list[Event]:
        """The log, checked: whole, chained, fenced, and saying what the row says."""
        rows = await self.town.store.events.read(SAGA_ID)
        previous = genesis(SAGA_ID)
        for row in rows:
            previous = link(
                previous, SAGA_ID, row.version, row.type, row.node, row.attempt, row.epoch,
                row.recorded_at, row.meta, row.data,
            )  # fmt: skip
            assert row.hash == previous
        assert [row.version for row in rows] == list(range(1, len(rows) + 1))
        assert [row.epoch for row in rows] == sorted(row.epoch for row in rows)
        history = [self.codec.decode_event(row) for row in rows]
        assert fold(SAGA_ID, history).status is status
        return history


def _let_the_dead_rest(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody waits for the tasks of a dead process; all other trouble is reported as usual."""
    if not isinstance(context.get("exception"), Died):
        loop.default_exception_handler(context)


async def every_death(
    flow: Callable[[], Primitive[Any, Any]],
    check: Callable[[Story, list[Event]], None],
    away: timedelta = timedelta(seconds=1),
    **behaviour: Any,
) -> int:
    """Tell the story once for each moment of death, and at last without one."""
    for at in count(1):
        fate, clock = Fate(at), ManualClock(START)
        database = MemoryDatabase(clock)
        town = Town(database.store(), fate, **behaviour)
        story = Story(Saga("crashing", 1, flow()), database, clock, town, away)
        history = await story.live_until_the_end()
        check(story, history)
        assert story.lives <= (2 if fate.moments >= at else 1)
        if fate.moments < at:
            return at - 1
    raise AssertionError


# ---------------------------------------------------------------------------- what must be true


def names(history: list[Event], kind: type[Any]) -> list[str]:
    return [event.step for event in history if isinstance(event, kind)]


def ends(history: list[Event]) -> str:
    return type(history[-1]).__name__


def completed(story: Story, history: list[Event]) -> None:
    assert ends(history) == "SagaCompleted"
    town = story.town
    succeeded = {event.node for event in history if isinstance(event, ev.StepSucceeded)}
    undone = {event.node for event in history if isinstance(event, ev.StepCompensated)}
    assert len(town.done) == len(set(town.done))
    left = {key for key in town.done if key not in town.undone}
    assert left == {f"{SAGA_ID}/{node}" for node in succeeded - undone}
    assert max(story.town.calls.values()) <= 3


def taken_back(story: Story, history: list[Event]) -> None:
    assert ends(history) == "SagaCompensated"
    assert sorted(story.town.done) == sorted(story.town.undone)
    # Every undo of the whole saga is of the youngest that is left.
    turned = next(i for i, e in enumerate(history) if isinstance(e, ev.CompensationStarted))
    undone = names(history[turned:], ev.StepCompensated)
    scopes = set(names(history[:turned], ev.StepCompensated))
    order_ = [name for name in names(history[:turned], ev.StepSucceeded) if name not in scopes]
    assert undone == order_[::-1]


@pytest.mark.parametrize("flow", FLOWS)
async def test_a_death_at_any_moment_leads_to_the_same_result(flow: str) -> None:
    def check(story: Story, history: list[Event]) -> None:
        completed(story, history)
        assert sorted(names(history, ev.StepSucceeded)) == sorted(STEPS[flow])
        assert story.town.undone == []

    # Two moments in each effect, and two in most of the appends.
    assert await every_death(FLOWS[flow], check) >= 3 * len(STEPS[flow])


@pytest.mark.parametrize(("flow", "fails"), [(f, s) for f in FLOWS for s in STEPS[f]])
async def test_a_death_at_any_moment_undoes_the_same_steps(flow: str, fails: str) -> None:
    def check(story: Story, history: list[Event]) -> None:
        taken_back(story, history)
        before = set(STEPS[flow][: STEPS[flow].index(fails)])
        beside = BESIDE.get((flow, fails), set())
        assert set(names(history, ev.StepCompensated)) == before | beside

    await every_death(FLOWS[flow], check, fails=fails)


@pytest.mark.parametrize(("flow", "cancel_in"), [(f, s) for f in FLOWS for s in STEPS[f]])
async def test_a_cancel_is_obeyed_whenever_the_process_dies(flow: str, cancel_in: str) -> None:
    def check(story: Story, history: list[Event]) -> None:
        taken_back(story, history)
        place, cancel = next(
            (i, e) for i, e in enumerate(history) if isinstance(e, ev.CancelRequested)
        )
        # Nothing begins any more, but what may have begun before a death settles first.
        later = {e.node for e in history[place:] if isinstance(e, ev.StepSucceeded)}
        assert later <= set(cancel.running)
        if story.lives == 1:
            following = STEPS[flow][STEPS[flow].index(cancel_in) + 2 :]
            assert not set(following) & set(names(history, ev.StepSucceeded))

    await every_death(FLOWS[flow], check, cancel_in=cancel_in)


@pytest.mark.parametrize("busy", ["user", "mail"])
async def test_a_retry_survives_a_death_at_any_moment(busy: str) -> None:
    def flow() -> Primitive[Any, Any]:
        return Retry(kept("user"), 1, initial=0) >> Retry(kept("mail"), 1, initial=0)

    def check(story: Story, history: list[Event]) -> None:
        completed(story, history)
        assert len([e for e in history if isinstance(e, ev.RetryScheduled)]) == 1

    assert await every_death(flow, check, busy=busy) >= 8


async def test_a_scope_is_undone_and_run_again_whenever_the_process_dies() -> None:
    def flow() -> Primitive[Any, Any]:
        return Retry(kept("user") >> kept("mail"), 1, initial=0) >> kept("welcome")

    def check(story: Story, history: list[Event]) -> None:
        taken_back(story, history)
        assert names(history, ev.StepCompensated) == ["user", "user"]
        assert [e.target for e in history if isinstance(e, ev.RetryScheduled)] == ["crashing/0/0@2"]

    assert await every_death(flow, check, always_busy="mail") >= 12


def doubtable(name: str, **options: Any) -> Step[Any, str]:
    made = make(name, **options)
    made.compensation_on_doubt(take_back_on_doubt)
    return made


@pytest.mark.parametrize("away", [1, 120])
async def test_a_step_that_must_run_once_is_never_called_again_after_a_death(away: int) -> None:
    """Neither when the deadline of a sibling passes while nobody is there."""

    def flow() -> Primitive[Any, Any]:
        timed = Timeout(doubtable("beside").map(str) >> doubtable("after"), 60)
        return kept("first") >> (doubtable("risky", once=True) | timed) >> kept("last")

    def check(story: Story, history: list[Event]) -> None:
        assert story.town.calls["risky"] <= 1
        if ends(history) == "SagaCompleted":
            completed(story, history)
            return
        assert ends(history) == "SagaCompensated"
        assert sorted(story.town.done) == sorted(story.town.undone)
        assert names(history, ev.StepInDoubt) or away == 120

    assert await every_death(flow, check, timedelta(seconds=away)) >= 16


async def test_what_was_not_begun_before_its_deadline_is_not_in_doubt() -> None:
    """A worker that was away past the deadline finds a step that can never have been called."""

    def flow() -> Primitive[Any, Any]:
        return Timeout(kept("first") >> Retry(kept("busy"), 3, initial=30, jitter=False), 60)

    fate, clock = Fate(0), ManualClock(START)
    database = MemoryDatabase(clock)
    town = Town(database.store(), fate, always_busy="busy")
    story = Story(Saga("crashing", 1, flow()), database, clock, town, timedelta(seconds=120))
    history = await story.live_until_the_end()
    taken_back(story, history)
    assert names(history, ev.StepInDoubt) == []
    assert town.calls["busy"] == 1
