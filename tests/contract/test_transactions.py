"""What every store promises of transactions for steps. Their SQL is in adapters/postgres."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from orchestrator.domain.events import Status
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import Store
from tests.contract.given import Given

WANTED = asyncpg.Connection


async def test_an_append_in_a_transaction_is_as_any_other(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    await store.inbox.send(claim.saga_id, "signal", {}, actor="ann", dedupe_key="k")
    append = given.append(owner, claim, 2, status=Status.COMPLETED, keep=False)

    async with store.transactions.open(WANTED) as transaction:
        assert await transaction.append(replace(append, pivoted=True)) == 1

    read = await store.events.read(claim.saga_id)
    assert [replace(row, position=0) for row in read] == list(append.events)
    assert [row.position for row in read] == [1, 2]
    instance = await store.reads.get(claim.saga_id)
    assert instance is not None
    assert (instance.status, instance.head, instance.pivoted) == (Status.COMPLETED, 2, True)


async def test_a_transaction_without_an_append_writes_nothing(store: Store, given: Given) -> None:
    [(_, claim)] = await given.claimed()

    async with store.transactions.open(WANTED):
        pass

    assert await store.events.read(claim.saga_id) == []


async def test_an_append_of_a_lost_owner_is_refused(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    good = given.append(owner, claim)
    await store.inbox.send(claim.saga_id, "signal", {}, actor="ann", dedupe_key="k")

    for bad in (
        replace(good, epoch=claim.epoch - 1),
        replace(good, head=1),
        replace(good, owner=await given.worker()),
        replace(good, if_inbox=True),
    ):
        with pytest.raises(OwnershipLostError, match=claim.saga_id):
            async with store.transactions.open(WANTED) as transaction:
                await transaction.append(bad)

    assert await store.events.read(claim.saga_id) == []
    async with store.transactions.open(WANTED) as transaction:
        assert await transaction.append(good) == 1
