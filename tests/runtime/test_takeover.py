"""Whoever dies in the middle of any primitive, another worker goes on where he was."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from orchestrator import Handle, SagaFailedError, Status
from tests.crash.field_hospital import Nursery, until
from tests.runtime.mortal_worker import KINDS
from tests.runtime.scenes import Scene, verdict
from tests.runtime.stage import Stage, kinds, types

pytestmark = pytest.mark.crash

DEAD = -9


async def child_of(stage: Stage, handle: Handle[int], number: int = 0) -> Handle[int]:
    """The handle of an instance's child, in the order in which they were requested."""
    await stage.has(handle, "ChildStarted", number + 1)
    found = [e.event.child_id async for e in handle.history() if e.type == "ChildRequested"]
    return await stage.orchestrator.handle(found[number])


async def test_one_that_is_parked_on_a_signal_does_not_miss_its_worker(on_stage: Stage) -> None:
    scene = Scene("parked", 1)
    handle = await on_stage.start(scene)
    async with on_stage.process(scene) as process:
        await on_stage.stands(handle, Status.WAITING)
        process.kill()
        await process.ended()
    assert (await on_stage.orchestrator.get(handle.saga_id)).owner is None
    await handle.signal(verdict, 41)
    async with on_stage.worker(scene):
        assert await handle.result(within=20) == 42
    assert on_stage.diary.of(handle.saga_id) == ["first", "second"]


async def test_a_parent_that_waits_for_its_children_is_taken_over(on_stage: Stage) -> None:
    scene = Scene("parent", 1)
    handle = await on_stage.start(scene)
    async with on_stage.process(scene) as process:
        await on_stage.has(handle, "ChildStarted", 3)
        children = [await child_of(on_stage, handle, number) for number in range(3)]
        for child in children:
            await on_stage.stands(child, Status.WAITING)
        process.kill()
        await process.ended()
    async with on_stage.worker(scene):
        for n, child in enumerate(children):
            await child.signal(verdict, n)
        assert await handle.result(within=20) == 1 + 2 + 3 + 1
    assert on_stage.diary.of(handle.saga_id) == ["first", "last"]
    for child in children:
        assert on_stage.diary.of(child.saga_id) == ["c1", "c2"]


@pytest.mark.parametrize(
    ("kind", "count"), [("append-after", 1), ("append-after", 2), ("append-before", 2)]
)
async def test_a_parent_hears_of_a_child_whose_worker_dies_as_it_ends(
    kind: str, count: int, nursery: Nursery, on_stage: Stage
) -> None:
    scene = Scene("parent-of-one", 1)
    handle = await on_stage.start(scene)
    async with on_stage.worker(scene, park_after=0.05):
        child = await child_of(on_stage, handle)
        for waiting in (handle, child):
            await on_stage.stands(waiting, Status.WAITING)
    await child.signal(verdict, 1)
    job = on_stage.job(scene, until=[handle.saga_id], kind=kind, count=count)
    assert await nursery.send([job]) == [DEAD]
    async with on_stage.worker(scene):
        assert await handle.result(within=10) == 3


@pytest.mark.parametrize(
    ("name", "end"), [("talk", Status.COMPLETED), ("talk-undone", Status.COMPENSATED)]
)
@pytest.mark.parametrize("count", [2, 3, 4])
async def test_the_code_of_a_flow_is_replayed_by_another_worker(
    name: str, end: Status, count: int, nursery: Nursery, on_stage: Stage
) -> None:
    scene = Scene(name, count)
    handle = await on_stage.start(scene)
    await handle.signal(verdict, 10)
    for kind, passed in (("effect-before", count), ("effect-after", 1)):
        job = on_stage.job(scene, until=[handle.saga_id], kind=kind, count=passed)
        assert await nursery.send([job]) == [DEAD]
    async with on_stage.worker(scene):
        assert await on_stage.orchestrator.wait(handle.saga_id, 20) is end
    calls = on_stage.diary.of(handle.saga_id)
    # The one who died before a call did not make it, the one who died after it did.
    again = ["one", "two", "three"][count - 2]
    assert [call for call in calls if calls.count(call) == 2] == [again, again]
    talked = ["first", "one", "two", "three"]
    rest = ["no", "-three", "-two", "-one", "-first"] if end is Status.COMPENSATED else ["last"]
    assert list(dict.fromkeys(calls)) == talked + rest
    found = await types(handle)
    assert (found["FlowRequested"], found["FlowReturned"], found["SignalReceived"]) == (5, 1, 1)


@pytest.mark.parametrize("kind", ["effect-before", "effect-after"])
async def test_a_child_that_is_being_undone_is_undone_by_another_worker(
    kind: str, nursery: Nursery, on_stage: Stage
) -> None:
    scene = Scene("parent-undone", 1)
    handle = await on_stage.start(scene)
    # first, c1, c2 and no; then the undo of c2
    job = on_stage.job(scene, until=[handle.saga_id], kind=kind, count=5)
    assert await nursery.send([job]) == [DEAD]
    child = await child_of(on_stage, handle)
    assert await child.status() is Status.COMPENSATING
    async with on_stage.worker(scene):
        assert await on_stage.orchestrator.wait(handle.saga_id, 20) is Status.COMPENSATED
    assert await child.status() is Status.COMPENSATED
    again = ["-c2"] if kind == "effect-after" else []
    assert on_stage.diary.of(child.saga_id)[2:] == [*again, "-c2", "-c1"]
    assert on_stage.diary.of(handle.saga_id) == ["first", "no", "-first"]


@pytest.mark.parametrize(
    ("name", "end"), [("tour", Status.COMPLETED), ("tour-undone", Status.COMPENSATED)]
)
async def test_wherever_a_worker_dies_in_a_saga_of_every_primitive_it_ends_the_same_way(
    name: str, end: Status, nursery: Nursery, on_stage: Stage
) -> None:
    model = await on_stage.start(Scene(name, 0))
    await model.signal(verdict, 3)
    healthy = on_stage.job(Scene(name, 0), until=[model.saga_id])
    assert await nursery.send([healthy]) == [0]
    passed = kinds(on_stage.journal)
    points = [(kind, n) for kind in KINDS for n in range(1, passed[kind] + 1)]
    points = Random(len(name)).sample(points, 16)
    scenes = [Scene(name, number) for number in range(1, len(points) + 1)]
    handles = [await on_stage.start(scene) for scene in scenes]
    for handle in handles:
        await handle.signal(verdict, 3)
    jobs = [
        on_stage.job(scene, until=[handle.saga_id], kind=kind, count=count)
        for scene, handle, (kind, count) in zip(scenes, handles, points, strict=True)
    ]
    died = await nursery.send(jobs)
    assert died.count(DEAD) >= 12, list(zip(points, died, strict=True))
    ids = [handle.saga_id for handle in handles]
    assert await nursery.send([on_stage.job(*scenes, until=ids)]) == [0]
    told = await what_happened(model)
    for handle, point in zip(handles, points, strict=True):
        assert await handle.status() is end, point
        assert await what_happened(handle) == told, point
        assert (await on_stage.orchestrator.replay(handle.saga_id)).agrees
        assert await on_stage.orchestrator.verify(handle.saga_id) > 0
    ledger = await on_stage.ledger()
    assert set(ledger.values()) == {1}
    assert_called(on_stage, [model.saga_id, *ids])


async def what_happened(handle: Handle[int]) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """What was done where, and what was undone, whatever went on in between."""
    entries = [entry async for entry in handle.history()]
    kept = ("StepSucceeded", "ItemSucceeded", "TimerFired", "FlowRequested", "RouteChosen")
    places = [(entry.type, entry.node.partition("/")[2]) for entry in entries]
    done = Counter(place for place in places if place[0] in kept)
    return done, Counter(node for type_, node in places if type_ == "StepCompensated")


def assert_called(stage: Stage, ids: list[str]) -> None:
    """Nothing was called more often than its one death explains."""
    calls = Counter((line["saga"], line["what"], line["key"]) for line in stage.diary.lines())
    assert all(times <= 2 for times in calls.values())
    assert {saga for saga, _, _ in calls} >= set(ids)


async def test_two_workers_share_parents_children_and_flows(on_stage: Stage) -> None:
    names = ("tour", "tour-undone", "talk") * 4
    scenes = [Scene(name, number) for number, name in enumerate(names)]
    handles = [await on_stage.start(scene) for scene in scenes]
    async with on_stage.worker(*scenes, slots=4), on_stage.worker(*scenes, slots=4):
        for handle in handles:
            await handle.signal(verdict, 3)
        for scene, handle in zip(scenes, handles, strict=True):
            if scene.name == "tour-undone":
                with pytest.raises(SagaFailedError, match="Permanent"):
                    await handle.result(within=30)
            else:
                await handle.result(within=30)
    calls = Counter((line["saga"], line["what"], line["key"]) for line in on_stage.diary.lines())
    assert set(calls.values()) == {1}
    assert set((await on_stage.ledger()).values()) == {1}


async def test_a_timer_goes_off_at_another_worker(on_stage: Stage) -> None:
    scene = Scene("long-sleep", 1)
    handle = await on_stage.start(scene)
    async with on_stage.process(scene) as process:
        await on_stage.stands(handle, Status.WAITING)
        process.kill()
        await process.ended()
    [due] = [e.event.due_at async for e in handle.history() if e.type == "TimerSet"]
    async with on_stage.worker(scene):

        async def is_due() -> bool:
            return (
                on_stage.app.store.clock.now() >= due or await handle.status() is not Status.WAITING
            )

        await until(is_due, "the time")
        assert on_stage.app.store.clock.now() >= due
        assert await handle.result(within=20) == 3
    assert on_stage.diary.of(handle.saga_id) == ["first", "second"]
