"""A step that eats all memory: refused by the allocator it fails, killed by the kernel it is stuck."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator import Saga, SagaFailedError, Status
from orchestrator.bootstrap import App, open_app
from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from tests.crash.field_hospital import Process, process
from tests.crash.hungry_flows import SAGAS, hungry, modest

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(150),
    pytest.mark.skipif(sys.platform != "linux", reason="prlimit and cgroups are Linux's"),
]

LIMIT = 400 << 20
WORKER = ("orchestrator", "worker", "--sagas", "tests.crash.hungry_flows")
GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes the kernel kills when they take more than the limit."""
    for base, limits in zip(GROUPS, (LIMITS_V1, LIMITS_V2), strict=True):
        group = base / f"saga-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name in limits:
                (group / name).write_text(str(LIMIT if "swap" not in name else limits[name]))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no control group with a limit of memory can be made here")


LIMITS_V1 = {"memory.limit_in_bytes": LIMIT}
LIMITS_V2 = {"memory.max": LIMIT, "memory.swap.max": 0}


def limit(pid: int) -> None:
    """Let a process have so much more than it has, and no more."""
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    room = used * resource.getpagesize() + LIMIT
    resource.prlimit(pid, resource.RLIMIT_AS, (room, room))


async def begin(app: App, saga: Saga[int, int], value: int) -> str:
    return (await app.orchestrator.start(saga, value)).saga_id


async def modest_ones_end(app: App) -> None:
    """Whatever happens to the hungry one, others complete."""
    ids = [await begin(app, modest, n) for n in range(10)]
    ends = await asyncio.gather(*(app.orchestrator.wait(one, 60) for one in ids))
    assert set(ends) == {Status.COMPLETED}


async def test_what_the_allocator_refuses_is_a_failure_of_its_step_alone(dsn: str) -> None:
    settings = Settings(database_url=SecretStr(dsn))
    async with (
        open_app(settings, Catalogue(SAGAS)) as app,
        process(*WORKER, SAGA_DATABASE_URL=dsn) as limited,
    ):
        await modest_ones_end(app)
        limit(limited.pid)
        handle = await app.orchestrator.start(hungry, 1)
        with pytest.raises(SagaFailedError, match="MemoryError"):
            await handle.result(within=60)
        await modest_ones_end(app)
        limited.send(signal.SIGTERM)
        assert await limited.ended() == 0


async def test_one_whose_step_has_the_kernel_kill_its_workers_is_stuck_and_others_go_on(
    dsn: str, small_group: Path
) -> None:
    """Each worker that dies is started again in the same group, as a supervisor does."""
    deaths: list[int] = []
    over = asyncio.Event()

    async def supervise() -> None:
        while not over.is_set():
            async with process(*WORKER, SAGA_DATABASE_URL=dsn) as worker:
                (small_group / "cgroup.procs").write_text(str(worker.pid))
                deaths.append(await _end_or_over(worker, over))

    settings = Settings(database_url=SecretStr(dsn))
    async with open_app(settings, Catalogue(SAGAS)) as app:
        supervisor = asyncio.create_task(supervise())
        eater = await app.orchestrator.start(hungry, 1)
        await modest_ones_end(app)
        async with asyncio.timeout(120):
            while await eater.status() is not Status.STUCK:
                assert not supervisor.done()
                await asyncio.sleep(0.1)
        await modest_ones_end(app)
        over.set()
        await supervisor
    assert deaths[-1] == 0
    assert set(deaths[:-1]) == {-signal.SIGKILL}
    assert len(deaths) > 3


async def _end_or_over(worker: Process, over: asyncio.Event) -> int:
    told = asyncio.create_task(over.wait())
    ended = asyncio.create_task(worker.ended(within=140))
    await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if worker.alive:
        worker.send(signal.SIGTERM)
    return await ended
