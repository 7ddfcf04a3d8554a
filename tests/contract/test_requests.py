"""What every store of requests promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from orchestrator.domain.events import Json, Status
from orchestrator.ports import Filter, StartAnswer, Store
from tests.contract.given import request


async def test_a_new_instance_is_pending_and_due(store: Store) -> None:
    wanted = request(key="k-1", tags={"tenant": "acme"})

    assert await store.requests.start([wanted]) == [StartAnswer(wanted.saga_id, created=True)]

    instance = await store.reads.get(wanted.saga_id)
    assert instance is not None
    assert (instance.status, instance.head, instance.epoch) == (Status.PENDING, 0, 0)
    assert (instance.key, dict(instance.tags)) == ("k-1", {"tenant": "acme"})
    assert (instance.correlation_id, instance.owner) == ("c-1", None)
    assert instance.due_at is not None
    assert await store.reads.input(wanted.saga_id) == wanted.input


async def test_answers_come_in_the_order_of_the_requests(store: Store) -> None:
    batch = [request(key=key) for key in ("z", None, "a", "m", None)]

    answers = await store.requests.start(batch)

    assert [answer.saga_id for answer in answers] == [wanted.saga_id for wanted in batch]


async def test_a_known_key_gives_the_instance_that_has_it(store: Store) -> None:
    first = request(key="k")
    await store.requests.start([first])
    same, differing = request(key="k"), request(key="k", input=Json('{"n":2}'))

    answers = await store.requests.start([same, differing])

    assert answers == [
        StartAnswer(first.saga_id, created=False, same_input=True),
        StartAnswer(first.saga_id, created=False, same_input=False),
    ]
    assert await store.reads.get(same.saga_id) is None


async def test_one_batch_may_hold_a_key_twice(store: Store) -> None:
    first, second = request(key="k"), request(key="k", input=Json("2"))

    answers = await store.requests.start([first, second])

    assert answers == [
        StartAnswer(first.saga_id, created=True),
        StartAnswer(first.saga_id, created=False, same_input=False),
    ]


async def test_keys_are_unique_for_each_saga_name(store: Store) -> None:
    answers = await store.requests.start(
        [request(key="k"), request(key="k", name="refund"), request(key="k", version=2)]
    )

    assert [answer.created for answer in answers] == [True, True, False]


async def test_a_request_that_is_sent_again_is_known_by_its_id(store: Store) -> None:
    wanted = request()
    await store.requests.start([wanted])

    assert await store.requests.start([wanted]) == [
        StartAnswer(wanted.saga_id, created=False, same_input=True)
    ]


async def test_a_known_id_is_the_same_request_whatever_else_it_says(store: Store) -> None:
    first, other = request(key="k-1"), request(key="k-2")
    await store.requests.start([first, other])
    again = [
        replace(first, input=Json('{"n":2}')),
        replace(first, key="k-2"),
        replace(first, key="new"),
        replace(first, key=None, name="refund"),
    ]

    answers = await store.requests.start(again)

    assert answers == [StartAnswer(first.saga_id, created=False, same_input=True)] * 4
    assert await store.reads.input(first.saga_id) == first.input
    stored = await store.reads.search(Filter())
    assert {found.saga_id for found in stored} == {first.saga_id, other.saga_id}


async def test_one_batch_may_hold_an_id_twice(store: Store) -> None:
    first = request(key="k")

    answers = await store.requests.start([first, replace(first, key=None, input=Json("2"))])

    assert answers == [
        StartAnswer(first.saga_id, created=True),
        StartAnswer(first.saga_id, created=False, same_input=True),
    ]
    assert await store.reads.input(first.saga_id) == first.input


async def test_a_new_id_with_a_known_key_still_conflicts_beside_known_ids(store: Store) -> None:
    known = request(key="k")
    await store.requests.start([known])
    new = request()

    answers = await store.requests.start([request(key="k", input=Json("2")), known, new])

    assert answers == [
        StartAnswer(known.saga_id, created=False, same_input=False),
        StartAnswer(known.saga_id, created=False, same_input=True),
        StartAnswer(new.saga_id, created=True),
    ]


async def test_a_child_names_its_parent_and_anybody_else_has_none(store: Store) -> None:
    parent = request()
    child = request(parent=parent.saga_id, parent_node="order/2")
    await store.requests.start([parent, child])

    found = [await store.reads.get(one.saga_id) for one in (parent, child)]

    assert [instance and instance.parent for instance in found] == [None, parent.saga_id]


async def test_of_many_that_start_the_same_key_at_once_one_creates(
    store: Store, other: Store
) -> None:
    batches = [[request(key=f"k{n}") for n in range(20)] for _ in range(6)]
    batches[1::2] = [list(reversed(batch)) for batch in batches[1::2]]

    answers = await asyncio.gather(
        *((store, other)[n % 2].requests.start(batch) for n, batch in enumerate(batches))
    )

    by_key: dict[str | None, set[str]] = {}
    for batch, answer in zip(batches, answers, strict=True):
        for wanted, got in zip(batch, answer, strict=True):
            by_key.setdefault(wanted.key, set()).add(got.saga_id)
    assert [len(ids) for ids in by_key.values()] == [1] * 20
    assert sum(got.created for answer in answers for got in answer) == 20


async def test_an_input_is_kept_to_the_letter(store: Store) -> None:
    wanted = request(input=Json('{"b" : 1.50, "a":"\\u0000", "a": 1e400}'))
    await store.requests.start([wanted])

    assert await store.reads.input(wanted.saga_id) == wanted.input


async def test_an_empty_batch_is_answered_with_nothing(store: Store) -> None:
    assert await store.requests.start([]) == []
