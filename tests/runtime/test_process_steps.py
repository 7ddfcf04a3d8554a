"""Steps in processes of their own, when such a process is killed."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from orchestrator import Attempted, Completed, Saga, Status, WorkflowContext, step
from orchestrator.domain.events import StepInDoubt
from tests.crash.field_hospital import until
from tests.runtime.stage import Stage, types


@step(executor="process", retries=1)
def crunch(folder: str, ctx: WorkflowContext) -> str:
    return _crunch(folder, ctx)


@step(executor="process")
def crunch_once(folder: str, ctx: WorkflowContext) -> str:
    return _crunch(folder, ctx)


@crunch_once.compensation_on_doubt
async def forget(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
    _note(tried.input, "forgotten", f"{tried.output} {tried.key}")


@step
def prepare(folder: str, ctx: WorkflowContext) -> str:
    return folder


@prepare.compensation
async def tidy(done: Completed[str, str], ctx: WorkflowContext) -> None:
    _note(done.input, "tidied", "")


def _note(folder: str, name: str, text: str) -> None:
    Path(folder, name).write_text(text)


def _crunch(folder: str, ctx: WorkflowContext) -> str:
    """In a process of the pool: the first call says where it runs, and goes on until it is killed."""
    place = Path(folder, ctx.saga_id)
    if not place.exists():
        Path(f"{place}.new").write_text(f"{os.getpid()} {ctx.idempotency_key}")
        Path(f"{place}.new").rename(place)
        threading.Event().wait(60)
    pid, key = place.read_text().split()
    assert key == ctx.idempotency_key
    assert int(pid) != os.getpid()
    return f"attempt {ctx.attempt}"


@step(executor="process", timeout=1.5)
def hang(folder: str, ctx: WorkflowContext) -> str:
    Path(folder, f"{os.getpid()}.hangs").touch()
    threading.Event().wait(60)
    return folder


@step(executor="process", timeout=20)
def think(folder: str, ctx: WorkflowContext) -> str:
    return "done"


hanging = Saga("hanging", 1, hang.without_undo("a test"))
thinking = Saga("thinking", 1, think.without_undo("a test"))
retried = Saga("retried", 1, prepare >> crunch)
given_up = Saga("given-up", 1, prepare >> crunch_once)


async def test_a_step_whose_process_is_killed_is_in_doubt_and_runs_again_in_another_process(
    on_stage: Stage, tmp_path: Path
) -> None:
    async with on_stage.worker(retried):
        handle = await on_stage.start(retried, str(tmp_path))
        await _kill(tmp_path / handle.saga_id)
        assert await handle.result(within=20) == "attempt 2"
    history = [entry.event async for entry in handle.history()]
    [doubt] = [event for event in history if isinstance(event, StepInDoubt)]
    assert doubt.failure.type == "ConnectionResetError"
    assert "the process that ran crunch died" in doubt.failure.message
    assert not doubt.failure.permanent


async def test_a_step_whose_process_is_killed_is_undone_where_no_retry_is_left(
    on_stage: Stage, tmp_path: Path
) -> None:
    async with on_stage.worker(given_up):
        handle = await on_stage.start(given_up, str(tmp_path))
        await _kill(tmp_path / handle.saga_id)
        assert await on_stage.orchestrator.wait(handle.saga_id, 20) is Status.COMPENSATED
    assert _forgotten(tmp_path) == f"None {handle.saga_id}/given-up/1"
    assert (await types(handle))["StepInDoubt"] == 1


async def test_processes_that_hang_are_ended_and_stand_in_nobodys_way(
    on_stage: Stage, tmp_path: Path
) -> None:
    count = (os.cpu_count() or 1) + 1
    async with on_stage.worker(hanging, thinking):
        handles = [await on_stage.start(hanging, str(tmp_path)) for _ in range(count)]
        for handle in handles:
            assert await on_stage.orchestrator.wait(handle.saga_id, 20) is Status.COMPENSATED
        handle = await on_stage.start(thinking, str(tmp_path))
        assert await handle.result(within=20) == "done"

        async def gone() -> bool:
            return not _hanging(tmp_path)

        await until(gone, "the end of what hangs")


def _hanging(folder: Path) -> list[int]:
    """The processes that began to hang and are still there."""
    return [pid for path in folder.glob("*.hangs") if _is_alive(pid := int(path.stem))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _forgotten(folder: Path) -> str:
    """What the undo of the doubtful step was given; the undo of the one before comes after it."""
    assert (folder / "tidied").exists()
    return (folder / "forgotten").read_text()


async def _kill(place: Path) -> None:
    """Wait until the step says where it runs, and kill that process."""

    async def begun() -> bool:
        return _pid(place) > 0

    await until(begun, "a step in a process of its own")
    os.kill(_pid(place), signal.SIGKILL)


def _pid(place: Path) -> int:
    return int(place.read_text().split()[0]) if place.exists() else 0
