"""What is special to the store in memory; all the rest is in tests/contract."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.clock import ManualClock, SystemClock
from orchestrator.adapters.memory import MemoryDatabase, open_store
from orchestrator.domain.events import Json, Status
from orchestrator.errors import InvalidInputError, OwnershipLostError
from orchestrator.ports import DUE, ENDS, Append, Reply, StartRequest
from orchestrator.runtime.service import new_id

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)
SECOND = timedelta(seconds=1)


def request() -> StartRequest:
    return StartRequest(new_id(), "order", 1, "f1", None, Json("1"), "{}", "c-1")


async def test_processes_on_one_database_see_the_same_rows() -> None:
    database = MemoryDatabase()
    one, other = database.store(), database.store()
    [answer] = await one.requests.start([request()])
    assert await other.reads.get(answer.saga_id) == await one.reads.get(answer.saga_id)
    assert await MemoryDatabase().store().reads.get(answer.saga_id) is None


async def test_a_vanished_worker_is_retired_before_its_lease_ends() -> None:
    database = MemoryDatabase(ManualClock(START))
    one, other = database.store(), database.store()
    await one.fleet.join("w1", "one", LEASE)
    [answer] = await one.requests.start([request()])
    assert [c.saga_id for c in await one.queue.claim("w1", 5, [("order", 1)])] == [answer.saga_id]
    assert await other.fleet.retire_dead() == []
    one.vanish("w1")
    [retired] = await other.fleet.retire_dead()
    assert (retired.worker_id, retired.released) == ("w1", 1)
    assert await one.fleet.renew("w1", LEASE) is False
    with pytest.raises(OwnershipLostError):
        await one.queue.claim("w1", 5, [("order", 1)])


async def test_a_renewal_restores_the_presence() -> None:
    store = MemoryDatabase().store()
    await store.fleet.join("w1", "one", LEASE)
    store.vanish("w1")
    assert await store.fleet.renew("w1", LEASE)
    assert await store.fleet.retire_dead() == []


async def test_leases_end_by_the_clock_of_the_database() -> None:
    clock = ManualClock(START)
    async with open_store(clock) as store:
        assert store.clock is clock
        await store.fleet.join("w1", "one", LEASE)
        clock.advance(LEASE - SECOND)
        assert await store.fleet.retire_dead() == []
        clock.advance(SECOND)
        assert [r.worker_id for r in await store.fleet.retire_dead()] == ["w1"]


async def test_closing_a_store_takes_the_presences_of_its_own_workers_only() -> None:
    database = MemoryDatabase()
    survivor = database.store()
    await survivor.fleet.join("w2", "two", LEASE)
    async with open_store(database=database) as store:
        await store.fleet.join("w1", "one", LEASE)
    assert [r.worker_id for r in await survivor.fleet.retire_dead()] == ["w1"]


async def test_a_message_is_stored_as_json_would_store_it() -> None:
    store = MemoryDatabase().store()
    [answer] = await store.requests.start([request()])
    payload = {"items": (1, 2)}
    reply = await store.inbox.send(answer.saga_id, "signal", payload, actor="ann", dedupe_key="k")
    assert reply is Reply.ACCEPTED
    payload["items"] = (3, 4)
    [message] = await store.inbox.read(answer.saga_id, 0)
    assert message.payload == {"items": [1, 2]}


async def test_of_two_appends_to_one_instance_in_a_batch_one_is_written() -> None:
    store = MemoryDatabase().store()
    await store.fleet.join("w1", "one", LEASE)
    [answer] = await store.requests.start([request()])
    [claim] = await store.queue.claim("w1", 1, [("order", 1)])
    append = Append(
        answer.saga_id, "w1", claim.epoch, 0, (), Status.WAITING, None, None, 0, if_inbox=False
    )
    assert await store.events.append([append, append]) == {answer.saga_id: 0}
    assert await store.events.append([append]) == {}


async def test_hints_wake_listeners_of_their_channel_once_until_they_stop() -> None:
    database = MemoryDatabase()
    one, other = database.store(), database.store()
    woken: list[str] = []
    stop = other.hints.listen(DUE, lambda: woken.append("due"))
    other.hints.listen(ENDS, lambda: woken.append("ends"))
    one.hints.poke(DUE)
    one.hints.poke(DUE)
    assert woken == []
    await asyncio.sleep(0)
    assert woken == ["due"]
    stop()
    one.hints.poke(DUE)
    await asyncio.sleep(0)
    assert woken == ["due"]


def test_a_manual_clock_moves_forward_only() -> None:
    clock = ManualClock(START)
    clock.advance(SECOND)
    assert clock.now() == START + SECOND
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-SECOND)
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(START.replace(tzinfo=None))


def test_the_system_clock_is_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


async def test_a_start_cannot_ride_in_a_transaction_that_memory_does_not_have() -> None:
    store, wanted = MemoryDatabase().store(), request()
    with pytest.raises(InvalidInputError, match="no transactions"):
        await store.requests.start([wanted], within=object())
    assert await store.reads.get(wanted.saga_id) is None


async def test_the_handle_of_a_simulated_transaction_is_nothing_whatever_is_wanted() -> None:
    store = MemoryDatabase().store()
    for wanted in (int, "AsyncSession", None):
        async with store.transactions.open(wanted) as transaction:
            assert transaction.handle is None
