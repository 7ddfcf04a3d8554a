"""Claim instances, keep the lease alive, carry what is owned, and hand over on the way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from orchestrator.domain.saga import Saga
from orchestrator.errors import OwnershipLostError, UnavailableError
from orchestrator.ports import DUE, SUSPECT, Claim, Codec, Store, Telemetry
from orchestrator.runtime import machine
from orchestrator.runtime.engine import Engine, definitions
from orchestrator.runtime.executor import Executor
from orchestrator.runtime.outage import Outage
from orchestrator.runtime.recorder import Recorder
from orchestrator.runtime.suspects import set_apart
from orchestrator.runtime.worker_settings import WorkerSettings

log = logging.getLogger(__name__)

EXIT_BLOCKED = 70

_AT_FIRST = 64
"""How many a worker takes in hand before it has shown that it lives."""

_APART_AGAIN = 2.0
"""When those are looked at again that may end their workers, and had no room here."""

_BROWN_OUT = 600.0
"""For so long an instance is not blamed for what happens to the events of all others as well."""

_MEASURE_EVERY = 15.0

_LAST_WORDS = 1.0
"""How long what was told to end, or is about to, is waited for."""


class Worker:
    """One process's share of the work. `run` goes on until *stop* is set and all is handed over."""

    def __init__(
        self,
        store: Store,
        codec: Codec,
        telemetry: Telemetry,
        sagas: Sequence[Saga[Any, Any]],
        resources: Mapping[type, object],
        settings: WorkerSettings | None = None,
        label: str = "",
    ) -> None:
        self._store = store
        self._codec = codec
        self._telemetry = telemetry
        self._sagas = definitions(sagas)
        self._resources = resources
        self._settings = settings or WorkerSettings()
        self._label = label or f"{os.uname().nodename}:{os.getpid()}"
        self._outage = Outage()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set. A lost lease or database ends a shift, never the worker."""
        wait = 0.1
        while not stop.is_set():
            shift = _Shift(self._store, self._codec, self._telemetry, self._sagas,
                           self._resources, self._settings, self._label, self._outage)  # fmt: skip
            try:
                await shift.work(stop)
                if not stop.is_set():
                    log.error("worker %s ends: too many steps ignored their time-out", shift.id)
                    return
            except OwnershipLostError as error:
                log.warning("worker %s begins anew: %s", shift.id, error)
                self._telemetry.count("lost_leases")
                wait = 0.1
            except UnavailableError as error:
                self._outage.failed(f"worker {shift.id}", "join the fleet", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), machine.jittered(wait))
                wait = min(wait * 2, 2.0)


class _Shift:
    """One incarnation of a worker: an owner id, from joining to leaving."""

    def __init__(
        self,
        store: Store,
        codec: Codec,
        telemetry: Telemetry,
        sagas: Mapping[tuple[str, int], Saga[Any, Any]],
        resources: Mapping[type, object],
        settings: WorkerSettings,
        label: str,
        outage: Outage,
    ) -> None:
        self.id = machine.new_name()
        self._store = store
        self._telemetry = telemetry
        self._settings = settings
        self._label = label
        self._outage = outage
        self._definitions = list(sagas)
        self._deadline = 0.0
        self._ticks = 0
        self._recorder = Recorder(store.events, telemetry, may_act=self._may_act, outage=outage)
        step_timeout = timedelta(seconds=settings.step_timeout)
        self._executor = Executor(codec, store, resources, telemetry, step_timeout)
        self._engine = Engine(
            store,
            codec,
            self._recorder,
            self._executor,
            telemetry,
            sagas,
            owner=self.id,
            may_act=self._may_act,
            park_after=timedelta(seconds=settings.park_after),
            claim_limit=settings.claim_limit,
        )
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._suspects: dict[str, Claim] = {}
        self._finished = 0
        self._claiming: float | None = None
        self._strays: dict[tuple[str, int], float] = {}
        self._free = asyncio.Event()
        self._due = asyncio.Event()

    async def work(self, stop: asyncio.Event) -> None:
        settings = self._settings
        ttl = timedelta(seconds=settings.ttl)
        began = machine.monotonic()
        await self._store.fleet.join(self.id, self._label, ttl, self._definitions)
        self._deadline = began + settings.ttl - settings.margin
        self._outage.succeeded(self._name, "join the fleet")
        log.info("%s (%s) works", self._name, self._label)
        unlisten = self._store.hints.listen(DUE, self._due.set)
        over = threading.Event()
        if settings.watchdog:
            threading.Thread(target=self._guard, args=(over,), daemon=True, name="watchdog").start()
        helpers = [
            asyncio.create_task(self._renew(ttl), name="renew"),
            asyncio.create_task(
                self._every(settings.watch_every, "look after others", self._watch), name="watch"
            ),
            asyncio.create_task(
                self._every(settings.watch_every, "look at what it owns", self._follow),
                name="follow",
            ),
            asyncio.create_task(
                self._every(_MEASURE_EVERY, "measure", self._measure, at_once=True), name="measure"
            ),
            asyncio.create_task(self._sweep(), name="sweep"),
        ]
        claims = asyncio.create_task(self._claim(stop), name="claim")
        try:
            await asyncio.wait({claims, *helpers}, return_when=asyncio.FIRST_COMPLETED)
            for task in (claims, *helpers):
                if task.done() and (error := task.exception()):
                    raise error
            await self._drain(helpers)
        finally:
            unlisten()
            over.set()
            await _end([claims, *helpers, *self._carried.values()])
            await self._leave()

    @property
    def _name(self) -> str:
        return f"worker {self.id}"

    def _may_act(self) -> bool:
        return machine.monotonic() < self._deadline

    # ------------------------------------------------------------------ claiming and carrying

    async def _claim(self, stop: asyncio.Event) -> None:
        """Keep the slots filled, never claiming more than are free."""
        settings, now = self._settings, machine.monotonic
        patience, few = 0.0, 1
        while not stop.is_set() and len(self._executor.abandoned) <= settings.abandoned_limit:
            free = self._room() - len(self._carried)
            # After a full claim a few more are worth waiting for, but not for long.
            if free < (few if now() < patience else 1):
                self._free.clear()
                waits = 1.0 if free == 0 and self._room() == settings.slots else settings.poll_every
                await _first(self._free, stop, waits)
                continue
            self._due.clear()
            claims = await self._try_claim(free)
            kept, back = set_apart(claims, self._still_suspected(), settings.claim_limit)
            for claim in kept:
                self._take(claim)
            if back:
                await self._put_back(back)
            if len(claims) == free:
                patience = now() + settings.poll_every
                few = max(min(len(claims), settings.slots // 8), 1)
            else:
                patience = 0.0
                await _first(self._due, stop, settings.poll_every)

    def _room(self) -> int:
        """How many may be in hand: few at first, then as many more as there were signs of progress.

        A worker that dies soon, and the next, and the next, then count a claim in vain against few.
        """
        shown = self._recorder.written + self._finished
        return min(self._settings.slots, _AT_FIRST + shown)

    def _still_suspected(self) -> list[int]:
        """The claims of the suspects in hand that have not got one event further here."""
        for saga_id, claim in tuple(self._suspects.items()):
            run = self._engine.running.get(saga_id)
            if run is not None and run.head > claim.head:
                del self._suspects[saga_id]
        return [claim.claims for claim in self._suspects.values()]

    async def _try_claim(self, free: int) -> list[Claim]:
        self._claiming = machine.monotonic()
        try:
            claims = await self._store.queue.claim(self.id, free, self._definitions)
        except UnavailableError as error:
            self._outage.failed(self._name, "claim", error)
            self._claiming = None
            await asyncio.sleep(machine.jittered(0.5))
            return []
        # From here to the taking of the claims nothing is awaited.
        self._claiming = None
        self._outage.succeeded(self._name, "claim")
        machine.shuffle(self._definitions)
        self._telemetry.count("claims", len(claims))
        return claims

    def _take(self, claim: Claim) -> None:
        before = self._carried.get(claim.saga_id)
        task = asyncio.create_task(
            self._carry(claim) if before is None else self._carry_after(before, claim)
        )
        self._carried[claim.saga_id] = task
        if claim.claims >= SUSPECT:
            self._suspects[claim.saga_id] = claim

        def done(_: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                log.error("saga %s was dropped", claim.saga_id, exc_info=error)
            if self._carried.get(claim.saga_id) is task:
                del self._carried[claim.saga_id]
                self._suspects.pop(claim.saga_id, None)
            self._finished += 1
            self._free.set()

        task.add_done_callback(done)

    async def _put_back(self, claims: Sequence[Claim]) -> None:
        """Leave to others, or to a quieter moment, what must not run beside what is in hand."""
        ids = [claim.saga_id for claim in claims]
        delay = timedelta(seconds=machine.jittered(_APART_AGAIN))
        try:
            await self._store.queue.release(self.id, ids, delay)
        except UnavailableError as error:
            log.debug("%s: %d sagas stay until the sweep: %s", self._name, len(ids), error)

    async def _carry_after(self, before: asyncio.Task[None], claim: Claim) -> None:
        """Carry an instance that was in hand here under an older epoch: one task at a time."""
        try:
            await asyncio.wait({before}, timeout=_LAST_WORDS)
        finally:
            before.cancel()
        await asyncio.wait({before})
        await self._carry(claim)

    async def _carry(self, claim: Claim) -> None:
        """Advance one instance; after a refused or unknown append, take it again and go on."""
        mine = await self._reclaim(claim) if claim.claims >= SUSPECT else claim
        wait, began = 0.0, machine.monotonic()
        while mine is not None:
            counts, written = True, self._recorder.written
            if mine.claims < SUSPECT:
                began = machine.monotonic()
            try:
                await self._engine.advance(mine)
            except OwnershipLostError as error:
                log.info("saga %s is taken again: %s", claim.saga_id, error)
                self._telemetry.count("refused_appends")
            except UnavailableError as error:
                log.info("saga %s is taken again: %s", claim.saga_id, error)
                # Where nobody's events get through, it is hardly the fault of this one.
                others_wrote = self._recorder.written > written
                counts = others_wrote or machine.monotonic() - began > _BROWN_OUT
                await asyncio.sleep(machine.jittered(wait))
                wait = min(max(wait * 2, 0.1), 5.0)
            except Exception:
                log.exception("saga %s cannot be carried on; it is given back", claim.saga_id)
                await self._give_back(mine)
                return
            else:
                return
            before, mine = mine, await self._reclaim(mine, counts=counts)
            if mine is None:
                await self._engine.tell_unanswered(before)

    async def _reclaim(self, claim: Claim, *, counts: bool = True) -> Claim | None:
        wait, queue = 0.1, self._store.queue
        while self._may_act():
            try:
                return await queue.reclaim(self.id, claim.saga_id, claim.epoch, counts=counts)
            except UnavailableError as error:
                # Every instance in hand comes by here at once: the worker itself says it aloud.
                log.debug("saga %s: %s", claim.saga_id, error)
                await asyncio.sleep(machine.jittered(wait))
                wait = min(wait * 2, 1.0)
        return None

    async def _give_back(self, claim: Claim) -> None:
        """Release an instance that our own code failed on; it is counted and comes back later."""
        delay = timedelta(seconds=min(0.1 * 2 ** min(claim.claims, 10), 60.0))
        try:
            await self._store.queue.release(self.id, [claim.saga_id], delay)
        except UnavailableError as error:
            log.warning("saga %s stays ours until the sweep: %s", claim.saga_id, error)

    # ------------------------------------------------------------------ lease and fellows

    async def _renew(self, ttl: timedelta) -> None:
        """Extend the lease; the deadline counts from before the renewal was sent."""
        settings = self._settings
        while True:
            await asyncio.sleep(settings.renew_every)
            began = machine.monotonic()
            try:
                alive = await self._store.fleet.renew(self.id, ttl)
            except UnavailableError as error:
                if machine.monotonic() >= self._deadline:
                    raise OwnershipLostError(f"the lease ran out: {error}") from error
                self._outage.failed(self._name, "renew its lease", error)
                continue
            self._outage.succeeded(self._name, "renew its lease")
            if not alive:
                raise OwnershipLostError("it was retired by another worker")
            self._deadline = began + settings.ttl - settings.margin

    async def _watch(self) -> None:
        for retired in await self._store.fleet.retire_dead():
            log.warning(
                "worker %s was found dead (%s); %d sagas are free to be taken over",
                retired.worker_id, retired.reason, retired.released,
            )  # fmt: skip
            self._telemetry.count("takeovers", retired.released)
            self._due.set()

    async def _measure(self) -> None:
        """What is wrong long before anybody notices: rows that were read over cannot be removed."""
        age = await self._store.fleet.oldest_transaction()
        self._telemetry.level("oldest_transaction", "", age)

    async def _follow(self) -> None:
        """Hear of inbox news, and give back what the database thinks is ours but is not here."""
        now = machine.monotonic()
        strays: dict[tuple[str, int], float] = {}
        for owned in await self._store.queue.owned(self.id):
            if owned.saga_id in self._carried:
                self._engine.tell_inbox(owned.saga_id, owned.inbox_seq)
            else:
                claim = owned.saga_id, owned.epoch
                strays[claim] = self._strays.get(claim, now)
        # What was missed once may have been given up since; what is missed again under the same
        # epoch is lost, unless a claim that was sent before has not been answered yet. (One that
        # was sent after this look began may be the very one that it sees.)
        before = now if self._claiming is None else min(now, self._claiming)
        lost = [claim for claim, missed in strays.items() if missed < before]
        self._strays = strays
        if lost:
            log.warning("%s gives back %d sagas it never heard of", self._name, len(lost))
            ids = sorted(saga_id for saga_id, _ in lost)
            await self._store.queue.release(self.id, ids, untouched=True)

    async def _sweep(self) -> None:
        while True:
            self._ticks += 1
            await asyncio.sleep(0.1)
            if machine.monotonic() >= self._deadline:
                # Nobody waits for the database here: a renewal that hangs says nothing.
                raise OwnershipLostError("the lease ran out")
            self._engine.announce_overdue(
                asyncio.get_running_loop().time() - self._settings.announce_after
            )

    async def _every(
        self,
        seconds: float,
        activity: str,
        act: Callable[[], Awaitable[None]],
        *,
        at_once: bool = False,
    ) -> None:
        while True:
            if not at_once:
                await asyncio.sleep(seconds)
            at_once = False
            try:
                await act()
            except UnavailableError as error:
                self._outage.failed(self._name, activity, error)
            else:
                self._outage.succeeded(self._name, activity)

    def _guard(self, over: threading.Event) -> None:
        """End a process whose event loop is blocked past the lease: it can stop nothing itself."""
        seen, silent = -1, 0
        while not over.wait(0.5):
            silent = silent + 1 if self._ticks == seen else 0
            seen = self._ticks
            # Several looks, because a process that was stopped and goes on finds its lease
            # long gone while its loop is about to notice by itself.
            if silent >= 4 and machine.monotonic() > self._deadline:
                os.write(2, b"saga worker: the event loop is blocked and the lease is gone\n")
                os._exit(EXIT_BLOCKED)

    # ------------------------------------------------------------------ going

    async def _drain(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        """Let what runs settle within the grace, then give everything back."""
        self._engine.drain()
        carried = set(self._carried.values())
        if not carried:
            return
        lost = asyncio.ensure_future(asyncio.wait(helpers, return_when=asyncio.FIRST_COMPLETED))
        settled = asyncio.ensure_future(asyncio.wait(carried))
        try:
            await asyncio.wait(
                {lost, settled}, timeout=self._settings.grace, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await _end([lost, settled])

    async def _leave(self) -> None:
        # What runs on after others have its instance would overlap with them.
        if left := set(self._executor.abandoned):
            await asyncio.wait(left, timeout=_LAST_WORDS)
        self._executor.close()
        await self._recorder.close()
        try:
            await self._store.fleet.leave(self.id)
        except UnavailableError as error:
            log.warning("worker %s could not say good-bye: %s", self.id, error)


async def _first(one: asyncio.Event, other: asyncio.Event, seconds: float) -> None:
    """Wait for one of two events, but no longer than *seconds*."""
    if one.is_set() or other.is_set():
        return
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(waits)


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what still runs and wait a moment for it; results were looked at elsewhere."""
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=5.0)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()
