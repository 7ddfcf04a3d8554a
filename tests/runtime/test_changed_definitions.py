"""What a worker does with instances that were begun by other code, or that it does not know."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest

from orchestrator import Handle, Primitive, Saga, Status
from orchestrator.ports import Filter, MessageKind
from tests.runtime.scenes import act, verdict
from tests.runtime.stage import Stage, types

one, two, three, other = act("one"), act("two"), act("three"), act("other")


def version(body: Primitive[int, int], number: int = 1) -> Saga[int, int]:
    """The saga `changing` as it is written just now."""
    return Saga("changing", number, body)


BEGUN = one >> verdict.wait() >> two


async def parked(stage: Stage, body: Primitive[int, int] = BEGUN) -> Handle[int]:
    """An instance that waits in the middle, and whose worker has gone."""
    async with stage.worker(version(body)):
        handle = await stage.start(version(body))
        await stage.stands(handle, Status.WAITING)
    return handle


async def test_a_part_that_was_appended_is_taken_in_by_what_waits_before_it(
    on_stage: Stage,
) -> None:
    handle = await parked(on_stage)
    await handle.signal(verdict, 10)
    async with on_stage.worker(version(BEGUN >> three)):
        assert await handle.result(within=20) == 12
    assert on_stage.diary.of(handle.saga_id) == ["one", "two", "three"]


async def test_a_part_that_was_not_reached_may_change(on_stage: Stage) -> None:
    handle = await parked(on_stage)
    await handle.signal(verdict, 10)
    async with on_stage.worker(version(one >> verdict.wait() >> other)):
        assert await handle.result(within=20) == 11
    assert on_stage.diary.of(handle.saga_id) == ["one", "other"]


@pytest.mark.parametrize(
    "changed",
    [
        other >> verdict.wait() >> two,
        verdict.wait() >> two,
        one >> two,
        one >> two >> verdict.wait(),
        one >> (verdict.wait() | verdict.wait()) >> three.using(lambda v: 1),
    ],
    ids=["another step", "one fewer", "no wait", "swapped", "in a branch"],
)
async def test_a_part_that_was_reached_and_changed_parks_as_stuck_before_any_effect(
    changed: Primitive[int, int], on_stage: Stage
) -> None:
    handle = await parked(on_stage)
    await handle.signal(verdict, 10)
    async with on_stage.worker(version(changed)):
        await on_stage.stands(handle, Status.STUCK)
    assert on_stage.diary.of(handle.saga_id) == ["one"]
    stuck = (await handle.state()).stuck
    assert stuck is not None
    assert "shape" in stuck.reason
    assert "resume" in stuck.reason

    async with on_stage.worker(version(BEGUN)):
        await on_stage.orchestrator.resume(handle.saga_id, "the old code is back", actor="ann")
        # The signal that came in between was not lost.
        assert await handle.result(within=20) == 11
    assert on_stage.diary.of(handle.saga_id) == ["one", "two"]
    [resumed] = [e.event async for e in handle.history() if e.type == "SagaResumed"]
    assert (resumed.actor, resumed.reason) == ("ann", "the old code is back")


async def test_resumed_by_the_wrong_code_it_is_stuck_again(on_stage: Stage) -> None:
    handle = await parked(on_stage)
    await handle.signal(verdict, 10)
    async with on_stage.worker(version(other >> verdict.wait() >> two)):
        await on_stage.stands(handle, Status.STUCK)
        await on_stage.orchestrator.resume(handle.saga_id, "perhaps", actor="ann")
        await on_stage.has(handle, "SagaStuck", 2)
    assert on_stage.diary.of(handle.saga_id) == ["one"]
    async with on_stage.worker(version(BEGUN)):
        await on_stage.orchestrator.resume(handle.saga_id, "now", actor="ann")
        assert await handle.result(within=20) == 11


async def test_one_that_has_not_begun_is_begun_by_the_code_it_was_started_with(
    on_stage: Stage,
) -> None:
    handle = await on_stage.start(version(one >> two))
    async with on_stage.worker(version(other >> two)):
        await on_stage.stands(handle, Status.STUCK)
        assert on_stage.diary.lines() == []
    async with on_stage.worker(version(one >> two)):
        await on_stage.orchestrator.resume(handle.saga_id, "old code", actor="ann")
        assert await handle.result(within=20) == 3


async def test_a_cancel_that_came_before_the_wrong_code_counts_once_the_old_code_is_back(
    on_stage: Stage,
) -> None:
    handle = await on_stage.start(version(one >> two))
    queue, fleet = on_stage.app.store.queue, on_stage.app.store.fleet
    owner = str(uuid.uuid4())
    await fleet.join(owner, "doomed", timedelta(minutes=1))
    assert len(await queue.claim(owner, 1, [("changing", 1)])) == 1
    await handle.cancel("not wanted", actor="ann")
    await fleet.leave(owner)
    async with on_stage.worker(version(other >> two)):
        await on_stage.stands(handle, Status.STUCK)
    async with on_stage.worker(version(one >> two)):
        await on_stage.orchestrator.resume(handle.saga_id, "old code", actor="ann")
        assert await on_stage.orchestrator.wait(handle.saga_id, within=20) is Status.COMPENSATED
    assert on_stage.diary.of(handle.saga_id)[-1:] == ["-one"], "its dead owner may have done it"


def family(body: Primitive[int, int]) -> Saga[int, int]:
    """A parent that waits once its child, as it is written just now, is done."""
    return Saga("family", 1, version(body).child() >> verdict.wait())


@pytest.mark.parametrize("ended", [False, True], ids=["mended", "terminated"])
async def test_a_completed_child_whose_code_changed_is_undone_once_the_old_code_is_back(
    on_stage: Stage, ended: bool
) -> None:
    async with on_stage.worker(family(one >> two)):
        parent = await on_stage.start(family(one >> two))
        await on_stage.stands(parent, Status.WAITING)
    [child] = await on_stage.orchestrator.search(Filter(parent=parent.saga_id))
    handle = await on_stage.orchestrator.handle(child.saga_id)
    assert await handle.status() is Status.COMPLETED

    async with on_stage.worker(family(other >> two)):
        await parent.cancel("not wanted", actor="ann")
        await on_stage.stands(handle, Status.STUCK)
        state = await handle.state()
        assert state.stuck is not None
        assert "shape" in state.stuck.reason
        if ended:
            await handle.terminate("so be it", actor="ann")
            await on_stage.stands(handle, Status.TERMINATED)
            assert (await handle.state()).status is Status.TERMINATED
            return
    async with on_stage.worker(family(one >> two)):
        await on_stage.orchestrator.resume(handle.saga_id, "the old code is back", actor="ann")
        await on_stage.stands(handle, Status.COMPENSATED)
        await on_stage.stands(parent, Status.COMPENSATED)


async def test_one_past_its_pivot_whose_code_changed_refuses_its_undo_and_stays_done(
    on_stage: Stage,
) -> None:
    async with on_stage.worker(version(one >> two.pivot())):
        handle = await on_stage.start(version(one >> two.pivot()))
        assert await handle.result(within=20) == 3
    await on_stage.orchestrator.store.inbox.send(
        handle.saga_id, MessageKind.UNDO, {}, actor="a parent", dedupe_key="undo"
    )
    async with on_stage.worker(version(other >> two.pivot())):
        await on_stage.has(handle, "ActionRefused")
    assert (await handle.state()).status is await handle.status() is Status.COMPLETED


async def test_a_worker_without_the_definition_leaves_an_instance_alone(on_stage: Stage) -> None:
    handle = await on_stage.start(version(one, 2))
    before = await on_stage.orchestrator.get(handle.saga_id)
    async with on_stage.worker(version(one, 1), Saga("something-else", 2, one)):
        # It is at work: what it knows ends.
        known = await on_stage.start(version(one, 1))
        assert await known.result(within=20) == 2
        assert await on_stage.orchestrator.get(handle.saga_id) == before
    async with on_stage.worker(version(one, 2)):
        assert await handle.result(within=20) == 2
    assert (await types(handle))["SagaStuck"] == 0


async def test_old_and_new_versions_run_side_by_side(on_stage: Stage) -> None:
    old = await parked(on_stage)
    async with on_stage.worker(version(BEGUN, 1), version(one >> three, 2)):
        new = await on_stage.start(version(one >> three, 2))
        await old.signal(verdict, 10)
        assert await asyncio.gather(old.result(20), new.result(20)) == [11, 3]
    assert on_stage.diary.of(new.saga_id) == ["one", "three"]
