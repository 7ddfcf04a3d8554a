"""A definition whose plan raises: soon stuck with the reason, nothing done is lost, mended it goes on."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator import Retryable, Saga, Status, WorkflowContext, step
from orchestrator.adapters.memory import open_store
from orchestrator.domain.events import SagaStuck
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Store
from tests.runtime.test_hostile_steps import prepare
from tests.runtime.test_review import stands, working
from tests.runtime.test_worker import Diary

SOON = 5.0
"""Three looks and the short waits between them; it was a hundred seconds and more."""


class Moody(float):
    """A number of the user's own that cannot be told, until it is mended."""

    def __float__(self) -> float:
        if _mended:
            return 1.0
        raise ZeroDivisionError("no number for you")


_mended: list[bool] = []


@step
async def try_once(n: int, ctx: WorkflowContext) -> int:
    ctx.use(Diary).did.append("tried")
    if _mended:
        return n
    raise Retryable("busy")


flow = Saga("broken", 1, prepare >> try_once.retry(5, initial=0.01, factor=Moody(1)))


@pytest.fixture
def _whole_again() -> None:
    _mended.clear()


@pytest.mark.usefixtures("_whole_again")
async def test_what_cannot_be_planned_is_soon_stuck_and_goes_on_when_it_is_mended() -> None:
    diary = Diary()
    async with open_store() as store, working(store, diary, flow) as orchestrator:
        began = asyncio.get_running_loop().time()
        handle = await orchestrator.start(flow, 7)
        await stands(handle, Status.STUCK)
        assert asyncio.get_running_loop().time() - began < SOON
        entries = [entry async for entry in handle.history()]
        stuck = entries[-1].event
        assert isinstance(stuck, SagaStuck)
        assert "ZeroDivisionError: no number for you" in stuck.reason
        assert "saga resume ID" in stuck.reason
        # It failed once, and that is recorded: no look calls it again.
        assert diary.did == ["tried"]
        assert [entry.type for entry in entries].count("StepFailed") == 1

        # Not mended: stuck again, as soon.
        await orchestrator.resume(handle.saga_id, reason="perhaps")
        await _stuck_again(store, handle.saga_id, 2)
        _mended.append(True)
        await orchestrator.resume(handle.saga_id, reason="mended")
        assert await handle.result(within=SOON) == 7


@pytest.mark.usefixtures("_whole_again")
async def test_what_cannot_be_planned_can_be_terminated() -> None:
    async with open_store() as store, working(store, Diary(), flow) as orchestrator:
        handle = await orchestrator.start(flow, 7)
        await stands(handle, Status.STUCK)
        await orchestrator.terminate(handle.saga_id, reason="written off")
        await stands(handle, Status.TERMINATED)


async def _stuck_again(store: Store, saga_id: str, times: int) -> None:
    limit = asyncio.get_running_loop().time() + SOON
    while True:
        rows = await store.events.read(saga_id)
        if [row.type for row in rows].count("SagaStuck") == times:
            return
        if asyncio.get_running_loop().time() > limit:
            raise OrchestratorError(f"{[row.type for row in rows]}")
        await asyncio.sleep(0.02)
