"""What every read model promises."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.domain.events import Status
from orchestrator.ports import Filter, Store
from orchestrator.runtime.service import new_id
from tests.contract.given import Given, request


async def test_an_unknown_id_is_none(store: Store) -> None:
    assert await store.reads.get(new_id()) is None
    assert await store.reads.get("no-id-at-all") is None
    assert await store.reads.input(new_id()) is None


async def test_a_search_gives_the_newest_first_page_by_page(store: Store, given: Given) -> None:
    ids = sorted(await given.started(7), reverse=True)

    first = await store.reads.search(Filter(limit=4))
    second = await store.reads.search(Filter(limit=4, before=first[-1].saga_id))

    assert [found.saga_id for found in first + second] == ids


async def test_a_search_narrows_by_status_name_tags_and_time(store: Store, given: Given) -> None:
    done = await given.at_rest(Status.COMPLETED)
    [refund] = await given.started(name="refund")
    acme = request(tags={"tenant": "acme", "tier": "gold"})
    await store.requests.start([acme, request(tags={"tenant": "other", "tier": "gold"})])
    since = store.clock.now()

    async def found(**wanted: object) -> set[str]:
        rows = await store.reads.search(Filter(**wanted))  # type: ignore[arg-type]  # checked here
        return {row.saga_id for row in rows}

    assert await found(status=Status.COMPLETED) == {done}
    assert await found(name="refund") == {refund}
    assert await found(tags={"tenant": "acme"}) == {acme.saga_id}
    assert await found(tags={"tenant": "acme", "tier": "lead"}) == set()
    assert len(await found(tags={"tier": "gold"})) == 2
    assert await found(since=since + timedelta(hours=1)) == set()
    assert len(await found(since=since - timedelta(hours=1))) == 4
    assert await found(name="refund", status=Status.COMPLETED) == set()


async def test_an_instance_is_found_by_its_saga_and_key(store: Store, given: Given) -> None:
    [wanted] = await given.started(key="k-1")
    await given.started(key="k-2")
    await given.started(key="k-1", name="refund")

    found = await store.reads.search(Filter(name="order", key="k-1"))

    assert [one.saga_id for one in found] == [wanted]
    assert await store.reads.search(Filter(name="order", key="k-3")) == []


async def test_the_children_of_an_instance_are_listed_newest_first(
    store: Store, given: Given
) -> None:
    [parent, stranger] = sorted(await given.started(2))
    children = sorted(await given.started(5, parent=parent), reverse=True)
    [refund] = await given.started(parent=parent, name="refund")
    await given.started(parent=stranger)

    first = await store.reads.search(Filter(parent=parent, name="order", limit=3))
    second = await store.reads.search(Filter(parent=parent, name="order", before=first[-1].saga_id))

    assert [found.saga_id for found in first + second] == children
    assert {found.parent for found in first + second} == {parent}
    everybody = await store.reads.search(Filter(parent=parent))
    assert [found.saga_id for found in everybody] == sorted([*children, refund], reverse=True)
    assert await store.reads.search(Filter(parent=refund)) == []
    assert await store.reads.search(Filter(parent="no-id-at-all")) == []


async def test_ids_that_begin_alike_are_found_newest_first(store: Store, given: Given) -> None:
    ids = sorted(await given.started(3), reverse=True)

    assert await store.reads.find(ids[0]) == [ids[0]]
    assert await store.reads.find(ids[0][:5]) == ids
    assert await store.reads.find(ids[0][:5], limit=2) == ids[:2]
    assert await store.reads.find("ffffffff-f") == []
    assert await store.reads.find("0-1") == []
    assert await store.reads.find("zzz") == []


async def test_all_ids_come_page_by_page(store: Store, given: Given) -> None:
    ids = sorted(await given.started(5))

    first = await store.reads.ids(None, 3)
    second = await store.reads.ids(first[-1], 3)

    assert first + second == ids
    assert await store.reads.ids(second[-1], 3) == []


async def test_those_that_ended_or_are_stuck_are_told(store: Store, given: Given) -> None:
    done = await given.at_rest(Status.COMPLETED)
    stuck = await given.at_rest(Status.STUCK)
    [pending] = await given.started()

    assert await store.reads.ended([done, stuck, pending, new_id()]) == {
        done: Status.COMPLETED,
        stuck: Status.STUCK,
    }
    assert await store.reads.ended([]) == {}


async def test_instances_are_counted_by_name_and_status(store: Store, given: Given) -> None:
    await given.at_rest(Status.COMPENSATED)
    await given.started(2)
    await given.started(name="refund")

    assert dict(await store.reads.counts()) == {
        ("order", Status.COMPENSATED): 1,
        ("order", Status.PENDING): 2,
        ("refund", Status.PENDING): 1,
    }


async def test_an_owned_instance_names_its_owner(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()

    instance = await store.reads.get(claim.saga_id)

    assert instance is not None
    assert (instance.owner, instance.epoch) == (owner, 1)
