"""Many wait for ends with one query; none of them is ever left waiting for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields

import pytest

from orchestrator import NotFoundError, Orchestrator, Status
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import UnavailableError
from orchestrator.ports import Store
from orchestrator.runtime.ends import Ends


class Reads:
    """A read model that knows of ends what the test says."""

    def __init__(self) -> None:
        self.ends: dict[str, Status] = {}
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.under_way = 0

    async def ended(self, saga_ids: Sequence[str]) -> Mapping[str, Status]:
        self.asked.set()
        self.under_way += 1
        try:
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return {saga_id: self.ends[saga_id] for saga_id in saga_ids if saga_id in self.ends}


def with_reads(store: Store, reads: Reads) -> Store:
    """*store* with another read model. (A memory store is more than its ports.)"""
    ports = {field.name: getattr(store, field.name) for field in fields(Store)}
    return Store(**{**ports, "reads": reads})


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
async def ends(reads: Reads) -> AsyncIterator[Ends]:
    async with open_store() as store:
        found = Ends(with_reads(store, reads), poll=0.001)
        yield found
        await found.close()


async def test_each_hears_of_its_own_end(ends: Ends, reads: Reads) -> None:
    waits = [asyncio.create_task(ends.wait(str(n), within=5)) for n in range(4)]
    await reads.asked.wait()
    reads.ends = {"0": Status.COMPLETED, "1": Status.STUCK, "2": Status.COMPLETED}
    reads.ends["3"] = Status.TERMINATED

    assert await asyncio.gather(*waits) == list(reads.ends.values())


@pytest.mark.parametrize("error", [UnavailableError("away"), ZeroDivisionError("a bug")])
async def test_whatever_goes_wrong_is_told_to_who_waits(
    ends: Ends, reads: Reads, error: Exception
) -> None:
    reads.error = error
    waits = [asyncio.create_task(ends.wait(saga_id, within=None)) for saga_id in "aab"]

    done, waiting = await asyncio.wait(waits, timeout=1)

    assert not waiting
    assert {type(task.exception()) for task in done} == {type(error)}
    reads.error, reads.ends = None, {"a": Status.COMPLETED}
    assert await ends.wait("a", within=5) is Status.COMPLETED


async def test_closing_leaves_nobody_waiting_and_nothing_running(ends: Ends, reads: Reads) -> None:
    waits = [asyncio.create_task(ends.wait(saga_id, within=None)) for saga_id in "ab"]
    await reads.asked.wait()

    await ends.close()
    done, waiting = await asyncio.wait(waits, timeout=1)

    assert not waiting
    assert {type(task.exception()) for task in done} == {UnavailableError}
    assert reads.under_way == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "ends"]


async def test_one_that_stops_waiting_leaves_the_others_in_peace(ends: Ends, reads: Reads) -> None:
    waits = [asyncio.create_task(ends.wait("a", within=None)) for _ in range(2)]
    await reads.asked.wait()
    waits[0].cancel()
    with pytest.raises(TimeoutError, match="goes on"):
        await ends.wait("a", within=0.01)
    reads.ends = {"a": Status.COMPLETED}

    assert await waits[1] is Status.COMPLETED


async def test_waiting_for_what_is_no_id_is_refused_and_hurts_nobody(store: Store) -> None:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), ())
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(orchestrator.wait("no id at all"), 5)
    await orchestrator.close()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened
