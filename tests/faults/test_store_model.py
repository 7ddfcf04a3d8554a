"""Whatever is done to a store, in whatever order: it stands where the model says."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestrator.domain.events import Json, Status
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import Append, EventRow
from tests.contract.given import LEASE, request
from tests.faults.model import ENDED, LATER, NOW, Instance, Model
from tests.faults.worlds import Cut, MemoryWorld, World, postgres_world

T = TypeVar("T")

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "0"))
"""How many runs of 50 steps; 0: as many as there is time for. `make chaos` wants 5,000."""

HOUR = timedelta(hours=1)
KINDS = ("signal", "cancel", "terminate", "resume", "retry", "skip", "resolve", "child", "undo")
AFTER = (Status.RUNNING, Status.WAITING, Status.COMPENSATING, Status.STUCK, *sorted(ENDED))
KEPT = (Status.RUNNING, Status.COMPENSATING)
any_number = st.integers(0, 1_000)
numbers = itertools.count()


class Life(RuleBasedStateMachine):
    """One life of a few instances under a name of their own, and the workers they pass through."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    world: ClassVar[World]
    idle: ClassVar[list[str]] = []
    """Workers that are alive and have nothing: to enter one costs a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.number = next(numbers)
        self.name = f"order-{self.number}"
        self.gone: list[str] = [str(uuid.uuid4())]
        self.sent = itertools.count()

    # ------------------------------------------------------------------ of the test

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the store."""
        return self.loop.run_until_complete(work)

    def pick(self, n: int) -> Instance:
        """One of the instances."""
        return list(self.model.instances.values())[n % len(self.model.instances)]

    def worker(self, n: int) -> str:
        """One of the workers, which enters if there is none."""
        if not self.model.workers or n % 7 == 0:
            self.model.workers.append(self._entering())
        return self.model.workers[n % len(self.model.workers)]

    def _entering(self) -> str:
        if self.idle:
            return self.idle.pop()
        worker = str(uuid.uuid4())
        self.run(self.world.store.fleet.join(worker, "tester", LEASE))
        return worker

    def append(
        self, one: Instance, count: int, status: Status, *, keep: bool, later: bool, pivoted: bool
    ) -> Append:
        """A valid one, by its owner."""
        at = self.world.store.clock.now()
        keep = keep and status in KEPT
        return Append(
            one.saga_id,
            one.owner or self.gone[-1],
            one.epoch,
            one.head,
            tuple(self._event(one, one.head + n) for n in range(1, count + 1)),
            status,
            at + HOUR if later and not keep and status in (Status.WAITING, *KEPT) else None,
            one.owner if keep else None,
            len(one.inbox),
            if_inbox=not keep,
            pivoted=pivoted,
        )

    def _event(self, one: Instance, version: int) -> EventRow:
        at = self.world.store.clock.now()
        return EventRow(
            one.saga_id, version, "StepSucceeded", "order/0", 1, max(one.epoch, 1), "{}", "{}", at,
            version.to_bytes(32, "big"),
        )  # fmt: skip

    def teardown(self) -> None:
        for worker in self.model.workers:
            held = [o.saga_id for o in self.run(self.world.store.queue.owned(worker))]
            self.run(self.world.store.queue.release(worker, held, HOUR))
            self.idle.append(worker)

    # ------------------------------------------------------------------ starts

    @rule(keyed=st.booleans(), n=any_number)
    def start(self, keyed: bool, n: int) -> None:
        key, text = (f"{self.name}-{n % 4}", f'{{"n":{n % 2}}}') if keyed else (None, "{}")
        saga_id = str(uuid.UUID(int=(self.number << 64) + next(self.sent)))
        self._start(saga_id, key, text)

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number)
    def start_the_same_again(self, n: int) -> None:
        one = self.pick(n)
        self._start(one.saga_id, None, '{"n":99}')

    def _start(self, saga_id: str, key: str | None, text: str) -> None:
        wanted = request(saga_id=saga_id, name=self.name, key=key, input=Json(text))
        [answer] = self.run(self.world.store.requests.start([wanted]))
        told = answer.saga_id, answer.created, answer.same_input
        assert told == self.model.start(saga_id, key, text)

    # ------------------------------------------------------------------ the queue

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number, limit=st.integers(1, 3))
    def claim(self, n: int, limit: int) -> None:
        owner = self.worker(n)
        claims = self.run(self.world.store.queue.claim(owner, limit, [(self.name, 1)]))
        free = {one.saga_id for one in self.model.instances.values() if one.claimable}
        found = {claim.saga_id for claim in claims}
        assert len(found) == len(claims) == min(limit, len(free))
        assert found <= free
        for claim in claims:
            one = self.model.instances[claim.saga_id]
            self.model.claim(one, owner)
            told = claim.epoch, claim.head, claim.status, claim.inbox_seq, claim.inbox_seen
            assert told == (one.epoch, one.head, one.status, len(one.inbox), one.seen)
            assert claim.claims == one.claims
            assert claim.input == (None if one.head else one.input)

    @rule(n=any_number)
    def one_who_is_gone_claims(self, n: int) -> None:
        with pytest.raises(OwnershipLostError):
            self.run(
                self.world.store.queue.claim(self.gone[n % len(self.gone)], 5, [(self.name, 1)])
            )

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number, old=st.integers(0, 1), own=st.booleans(), counts=st.booleans())
    def reclaim(self, n: int, old: int, own: bool, counts: bool) -> None:
        one = self.pick(n)
        owner = one.owner if own and one.owner else self.worker(n)
        epoch = one.epoch - old
        queue = self.world.store.queue
        claim = self.run(queue.reclaim(owner, one.saga_id, epoch, counts=counts))
        assert (claim is not None) == self.model.reclaim(one, owner, epoch, counts=counts)
        told = None if claim is None else (claim.epoch, claim.head, claim.claims)
        assert told in (None, (one.epoch, one.head, one.claims))

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number, own=st.booleans(), later=st.booleans(), untouched=st.booleans())
    def release(self, n: int, own: bool, later: bool, untouched: bool) -> None:
        one = self.pick(n)
        owner = one.owner if own and one.owner else self.worker(n)
        delay = HOUR if later else timedelta(0)
        self.run(self.world.store.queue.release(owner, [one.saga_id], delay, untouched=untouched))
        self.model.release(one, owner, due=LATER if later else NOW, untouched=untouched)

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number)
    def its_time_comes(self, n: int) -> None:
        one = self.pick(n)
        if one.owner is None and one.due is not None:
            self.run(self.world.make_due(one.saga_id))
            one.due = NOW

    # ------------------------------------------------------------------ the fleet

    @rule(n=any_number)
    def renew(self, n: int) -> None:
        worker = self.worker(n)
        assert self.run(self.world.store.fleet.renew(worker, LEASE))

    @precondition(lambda self: self.model.workers)
    @rule(n=any_number)
    def a_lease_runs_out(self, n: int) -> None:
        worker = self.worker(n)
        self.run(self.world.expire(worker))
        [retired] = self.run(self.world.store.fleet.retire_dead())
        freed = self.model.retire(worker)
        assert (retired.worker_id, retired.released) == (worker, len(freed))
        # It cannot steal anything back, and all that is left to it is to go.
        assert not self.run(self.world.store.fleet.renew(worker, LEASE))
        self.run(self.world.store.fleet.leave(worker))
        self._freed(worker, freed)

    @precondition(lambda self: self.model.workers)
    @rule(n=any_number)
    def leave(self, n: int) -> None:
        worker = self.worker(n)
        self.run(self.world.store.fleet.leave(worker))
        self._freed(worker, self.model.retire(worker))

    def _freed(self, worker: str, freed: list[Instance]) -> None:
        self.gone.append(worker)
        for one in freed:
            if one.claims >= 3:  # it may be what ended its worker, and rests for a moment
                self.run(self.world.make_due(one.saga_id))

    # ------------------------------------------------------------------ the log

    @precondition(lambda self: self.owned())
    @rule(
        n=any_number, count=st.integers(0, 3), status=st.sampled_from(AFTER), keep=st.booleans(),
        later=st.booleans(), unread=st.integers(0, 1), pivoted=st.booleans(),
    )  # fmt: skip
    def write(
        self,
        n: int,
        count: int,
        status: Status,
        keep: bool,
        later: bool,
        unread: int,
        pivoted: bool,
    ) -> None:
        one = self.owned()[n % len(self.owned())]
        append = self.append(one, count, status, keep=keep, later=later, pivoted=pivoted)
        self._write([replace(append, inbox_seen=max(append.inbox_seen - unread, 0))])

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number, what=st.sampled_from(["epoch", "head", "ahead", "owner", "gone"]))
    def write_what_is_out_of_date(self, n: int, what: str) -> None:
        one = self.pick(n)
        fresh = self.append(one, 1, Status.RUNNING, keep=True, later=False, pivoted=False)
        stale = {
            "epoch": replace(fresh, epoch=fresh.epoch - 1),
            "head": replace(fresh, head=fresh.head - 1),
            "ahead": replace(fresh, head=fresh.head + 1),
            "owner": replace(fresh, owner=str(uuid.uuid4())),
            "gone": replace(fresh, owner=self.gone[n % len(self.gone)]),
        }[what]
        # In one batch with one that is good, which it must not take down with it.
        good = [o for o in self.owned() if o is not one][:1]
        also = [
            self.append(o, 1, Status.RUNNING, keep=True, later=False, pivoted=False) for o in good
        ]
        assert not self._write([stale, *also]) - {o.saga_id for o in good}

    @precondition(lambda self: self.owned())
    @rule(n=any_number, cut=st.sampled_from(["before", "after"]), keep=st.booleans())
    def nobody_knows_whether_it_was_written(self, n: int, cut: Cut, keep: bool) -> None:
        one = self.owned()[n % len(self.owned())]
        status = Status.RUNNING if keep else Status.WAITING
        append = self.append(one, 2, status, keep=keep, later=True, pivoted=False)
        self.run(self.world.cut(cut, append))
        if cut == "after":
            assert self.model.append(append)
        # Taken again, and looked at: never sent again from memory.
        claim = self.run(self.world.store.queue.reclaim(append.owner, append.saga_id, append.epoch))
        assert (claim is not None) == self.model.reclaim(one, append.owner, append.epoch)
        assert not self._write([append])

    def owned(self) -> list[Instance]:
        """Those that a worker has."""
        return [one for one in self.model.instances.values() if one.owner]

    def _write(self, batch: list[Append]) -> set[str]:
        written = self.run(self.world.store.events.append(batch))
        assert set(written) == {append.saga_id for append in batch if self.model.append(append)}
        for saga_id, inbox_seq in written.items():
            assert inbox_seq == len(self.model.instances[saga_id].inbox)
        return set(written)

    # ------------------------------------------------------------------ messages

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number, kind=st.sampled_from(KINDS), known=st.booleans())
    def send(self, n: int, kind: str, known: bool) -> None:
        one = self.pick(n)
        key = f"key-{n % 5}" if known else str(uuid.uuid4())
        number = next(self.sent)
        reply = self.run(
            self.world.store.inbox.send(
                one.saga_id, kind, {"n": number}, actor="me", dedupe_key=key
            )
        )
        assert reply == self.model.send(one, kind, key, number)

    @precondition(lambda self: self.model.instances)
    @rule(n=any_number, after=st.integers(0, 3))
    def read_messages(self, n: int, after: int) -> None:
        one = self.pick(n)
        found = self.run(self.world.store.inbox.read(one.saga_id, after))
        assert [(m.kind, m.payload["n"]) for m in found] == one.inbox[after:]
        assert [m.seq for m in found] == list(range(after + 1, len(one.inbox) + 1))

    # ------------------------------------------------------------------ always

    @invariant()
    def the_store_stands_where_the_model_says(self) -> None:
        self.model.check()
        ordered = sorted(self.model.instances.values(), key=lambda one: one.saga_id)
        assert self.run(self.world.rows(self.name)) == [one.shown() for one in ordered]


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


def _live(world: World, loop: asyncio.AbstractEventLoop, examples: int) -> None:
    class ThisLife(Life):
        idle: ClassVar[list[str]] = []

    ThisLife.world, ThisLife.loop = world, loop
    run_state_machine_as_test(
        ThisLife,
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=50,
            deadline=None,
            # To make a failure smaller takes longer than a test may; a long run has the time.
            phases=list(Phase) if EXAMPLES else [Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_the_store_in_memory_does_what_the_model_does() -> None:
    with _loop() as loop:
        _live(MemoryWorld(), loop, 80)


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_postgres_does_what_the_model_does(dsn: str) -> None:
    with _loop() as loop:
        opening = postgres_world(dsn)
        world = loop.run_until_complete(opening.__aenter__())
        try:
            _live(world, loop, 30)
        finally:
            loop.run_until_complete(opening.__aexit__(None, None, None))
