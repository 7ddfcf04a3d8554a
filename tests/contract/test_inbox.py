"""What every inbox promises."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import InvalidInputError
from orchestrator.ports import Reply, Store
from orchestrator.runtime.service import new_id
from tests.contract.given import Given


async def send(store: Store, saga_id: str, key: str, **payload: object) -> Reply:
    return await store.inbox.send(saga_id, "cancel", payload, actor="ann", dedupe_key=key)


async def test_messages_read_back_in_order(store: Store, given: Given) -> None:
    [saga_id] = await given.started()
    for n in range(3):
        assert await send(store, saga_id, f"k{n}", n=n, text="ä\x00") is Reply.ACCEPTED

    read = await store.inbox.read(saga_id, 0)

    assert [(m.seq, m.kind, m.actor) for m in read] == [(n, "cancel", "ann") for n in (1, 2, 3)]
    assert [m.payload for m in read] == [{"n": n, "text": "ä\x00"} for n in range(3)]
    assert [m.seq for m in await store.inbox.read(saga_id, 2)] == [3]


async def test_a_known_message_changes_nothing(store: Store, given: Given) -> None:
    [saga_id] = await given.started()
    await send(store, saga_id, "k", n=1)

    assert await send(store, saga_id, "k", n=2) is Reply.DUPLICATE

    [message] = await store.inbox.read(saga_id, 0)
    assert message.payload == {"n": 1}


async def test_the_same_key_is_new_to_another_instance(store: Store, given: Given) -> None:
    one, two = await given.started(2)

    assert await send(store, one, "k") is Reply.ACCEPTED
    assert await send(store, two, "k") is Reply.ACCEPTED


async def test_of_many_senders_of_one_message_one_is_accepted(
    store: Store, other: Store, given: Given
) -> None:
    [saga_id] = await given.started()

    replies = await asyncio.gather(
        *(send((store, other)[n % 2], saga_id, f"k{n // 4}") for n in range(16))
    )

    assert sorted(replies) == [Reply.ACCEPTED] * 4 + [Reply.DUPLICATE] * 12
    assert [m.seq for m in await store.inbox.read(saga_id, 0)] == [1, 2, 3, 4]


async def test_a_message_to_nobody_is_not_found(store: Store) -> None:
    assert await send(store, new_id(), "k") is Reply.NOT_FOUND


async def test_a_message_of_no_kind_is_refused(store: Store, given: Given) -> None:
    [saga_id] = await given.started()

    with pytest.raises(InvalidInputError, match=r"'poke'.*signal"):
        await store.inbox.send(saga_id, "poke", {}, actor="ann", dedupe_key="k")
