"""Group commit: each gets its own answer, whatever becomes of its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.domain.events import Status
from orchestrator.errors import OwnershipLostError, UnavailableError, UnknownOutcomeError
from orchestrator.ports import Append, EventRow
from orchestrator.runtime.recorder import Recorder

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Silent:
    """Telemetry that listens only, or breaks."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def recorded(self, *args: Any) -> None: ...

    def attempted(self, *args: Any) -> None: ...

    def level(self, name: str, of: str, value: float) -> None:
        return

    def batch(self, kind: str, size: int, seconds: float) -> None:
        if self.broken:
            raise ZeroDivisionError("telemetry is broken")

    def count(self, name: str, by: int = 1) -> None: ...

    def gauge(self, name: str, value: float) -> None:
        return


class Disk:
    """A log that commits when the test lets it."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[Append]] = []
        self.errors: list[Exception] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        assert len({append.saga_id for append in batch}) == len(batch), "as the real one refuses"
        self.batches.append(list(batch))
        await self.go.wait()
        if self.errors:
            raise self.errors.pop(0)
        return {append.saga_id: append.head for append in batch}

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        raise AssertionError("nobody reads here")

    def began(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.batches) >= count


def append(saga_id: str, head: int = 0, data: str = "{}") -> Append:
    row = EventRow(saga_id, head + 1, "StepSucceeded", "0", 1, 1, data, "{}", NOON, b"")
    return Append(saga_id, "me", 1, head, (row,), Status.RUNNING, None, "me", 0, if_inbox=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_everybody_who_is_ready_goes_into_one_batch_and_gets_its_own_answer() -> None:
    disk = Disk()
    recorder = Recorder(disk, Silent())

    answers = await asyncio.gather(*(recorder.append(append(str(n), n)) for n in range(50)))

    assert answers == list(range(50))
    assert [len(batch) for batch in disk.batches] == [50]


async def test_two_appends_of_one_instance_go_into_two_batches_in_order() -> None:
    disk = Disk(held=True)
    recorder = Recorder(disk, Silent())
    blocker = asyncio.create_task(recorder.append(append("blocker")))
    await until(disk.began(1))
    twice = [asyncio.create_task(recorder.append(append("a", head))) for head in (4, 5)]
    neighbour = asyncio.create_task(recorder.append(append("b", 7)))
    await asyncio.sleep(0)
    disk.go.set()

    assert await asyncio.gather(blocker, *twice, neighbour) == [0, 4, 5, 7]
    assert [[(a.saga_id, a.head) for a in batch] for batch in disk.batches[1:]] == [
        [("a", 4), ("b", 7)],
        [("a", 5)],
    ]


async def test_an_append_that_nobody_waits_for_any_more_is_never_begun() -> None:
    disk = Disk(held=True)
    recorder = Recorder(disk, Silent(), limit=1)
    first = asyncio.create_task(recorder.append(append("first")))
    await until(disk.began(1))
    late = [asyncio.create_task(recorder.append(append(str(n)))) for n in range(5)]
    await asyncio.sleep(0)
    for task in late:
        task.cancel()
    await asyncio.wait(late)
    disk.go.set()

    await recorder.close()

    assert await first == 0
    assert len(disk.batches) == 1


async def test_a_batch_is_bounded_in_bytes_as_well_as_in_number() -> None:
    disk = Disk()
    recorder = Recorder(disk, Silent(), limit_bytes=1000)
    big = [append(str(n), data='"' + "x" * 400 + '"') for n in range(5)]

    await asyncio.gather(
        *map(recorder.append, big), recorder.append(append("over", data="9" * 5000))
    )

    assert [len(batch) for batch in disk.batches] == [2, 2, 1, 1]


async def test_a_refused_append_does_not_touch_its_neighbours() -> None:
    class Fencing(Disk):
        async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
            written = await super().append(batch)
            return {saga_id: seq for saga_id, seq in written.items() if saga_id != "fenced"}

    recorder = Recorder(Fencing(), Silent())
    good, fenced = await asyncio.gather(
        recorder.append(append("good", 3)), recorder.append(append("fenced")),
        return_exceptions=True,
    )  # fmt: skip

    assert good == 3
    assert isinstance(fenced, OwnershipLostError)


@pytest.mark.parametrize(
    "error", [UnavailableError("away"), UnknownOutcomeError("who knows"), ZeroDivisionError("bug")]
)
async def test_everybody_in_a_batch_that_failed_gets_an_error_of_its_own(error: Exception) -> None:
    disk = Disk()
    disk.errors.append(error)
    recorder = Recorder(disk, Silent())

    found = await asyncio.gather(
        *(recorder.append(append(str(n))) for n in range(10)), return_exceptions=True
    )

    assert {type(each) for each in found} == {type(error)}
    assert len({id(each) for each in found}) == 10
    assert await recorder.append(append("next", 2)) == 2


async def test_a_writer_that_is_cancelled_leaves_nobody_waiting() -> None:
    disk = Disk(held=True)
    recorder = Recorder(disk, Silent(), limit=1)
    sent = asyncio.create_task(recorder.append(append("sent")))
    await until(disk.began(1))
    queued = asyncio.create_task(recorder.append(append("queued")))
    await asyncio.sleep(0)
    [writer] = [task for task in asyncio.all_tasks() if "group-commit" in task.get_name()]
    writer.cancel()

    await asyncio.wait({sent, queued}, timeout=1)

    assert isinstance(sent.exception(), UnknownOutcomeError)
    assert type(queued.exception()) is UnavailableError, "it was never sent"
    await asyncio.wait({writer})


async def test_broken_telemetry_leaves_nobody_waiting() -> None:
    disk = Disk(held=True)
    recorder = Recorder(disk, Silent(broken=True), limit=1)
    appends = [asyncio.create_task(recorder.append(append(str(n), n))) for n in range(3)]
    await until(disk.began(1))
    disk.go.set()

    done, waiting = await asyncio.wait(appends, timeout=1)

    assert not waiting
    assert sorted(task.result() for task in done) == [0, 1, 2]
