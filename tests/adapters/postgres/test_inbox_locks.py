"""Of a message and an append that meet, the one that has the row first decides for both."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.adapters.postgres.event_store import columns
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.events import Status
from orchestrator.ports import MessageKind, Reply, Store
from tests.adapters.postgres.beside import Connection, waits_for_lock
from tests.contract.given import Given


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (Status.STUCK, MessageKind.RETRY, Reply.ACCEPTED),
        (Status.STUCK, MessageKind.CANCEL, Reply.STUCK),
        (Status.COMPLETED, MessageKind.UNDO, Reply.ACCEPTED),
        (Status.COMPLETED, MessageKind.SIGNAL, Reply.TOO_LATE),
    ],
)
async def test_a_message_that_waits_for_an_append_sees_where_it_left_the_instance(
    store: Store, given: Given, side: Connection, status: Status, kind: str, expected: Reply
) -> None:
    [(owner, claim)] = await given.claimed()
    async with side.transaction():
        append = given.append(owner, claim, status=status, keep=False)
        await side.fetch(sql("append_events"), *columns([append]))
        sending = asyncio.create_task(
            store.inbox.send(claim.saga_id, kind, {}, actor="ann", dedupe_key="k")
        )
        await waits_for_lock(side)

    assert await sending is expected

    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    freed = expected is Reply.ACCEPTED
    assert (instance.status, instance.owner) == (Status.WAITING if freed else status, None)
    assert (instance.due_at is not None) == freed
    assert len(await store.inbox.read(claim.saga_id, 0)) == freed


async def test_a_repair_that_is_taken_back_leaves_the_instance_stuck(
    store: Store, given: Given, side: Connection
) -> None:
    saga_id = await given.at_rest(Status.STUCK)
    before = await store.reads.get(saga_id)
    transaction = side.transaction()
    await transaction.start()
    await side.fetch(sql("send_message"), saga_id, "retry", "{}", "ann", "k", True, True)
    await transaction.rollback()

    assert await store.reads.get(saga_id) == before
    assert await store.inbox.read(saga_id, 0) == []


async def test_of_many_repairs_at_once_one_frees_the_instance(store: Store, given: Given) -> None:
    saga_id = await given.at_rest(Status.STUCK)

    replies = await asyncio.gather(
        *(store.inbox.send(saga_id, "retry", {}, actor="ann", dedupe_key=f"k{n}") for n in range(8))
    )

    assert sorted(replies) == [Reply.ACCEPTED] + [Reply.NOT_STUCK] * 7
    assert len(await store.inbox.read(saga_id, 0)) == 1
