"""The clock of a real server jumps ten minutes ahead, and back: nothing twice, nothing stands still."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from orchestrator import Saga, Status, WorkerSettings, WorkflowContext, sleep, step
from orchestrator.adapters.embedded_cluster import EmbeddedPostgres
from orchestrator.bootstrap import open_app, work
from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from tests.packages import NoPackageError, unpacked
from tests.servers import FAST_UNSAFE, migrate, open_dir

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

JUMP = 600
INSTALLED = Path("/usr/lib")
LIBRARY = "libfaketime.so.1"


@dataclass
class Clock:
    """A server's clock."""

    dsn: str
    _file: Path

    async def set(self, seconds: int) -> None:
        """Let it be so far from the truth."""
        self._file.write_text(f"{seconds:+d}\n")
        side = await asyncpg.connect(self.dsn)
        try:
            asked = "SELECT extract(epoch FROM clock_timestamp())::float8 - $1::float8"
            off = await side.fetchval(asked, time.time())
        finally:
            await side.close()
        assert abs(off - seconds) < 5, f"the clock is {off} s off, not {seconds}"


def library() -> Path:
    """libfaketime, of this machine or from its package."""
    for place in (INSTALLED, None):
        try:
            root = place or unpacked("libfaketime")
        except NoPackageError as reason:
            pytest.skip(f"there is no libfaketime: {reason}")
        if found := sorted(root.glob(f"**/faketime/{LIBRARY}")):
            return found[0]
    pytest.skip(f"there is no {LIBRARY}")


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A migrated server whose clock can be set."""
    preload = library()
    with open_dir() as path:
        file = path / "offset"
        file.write_text("+0\n")
        file.chmod(0o644)
        shutil.copy2(preload, path / LIBRARY)
        first = EmbeddedPostgres(path / "state", user="postgres", settings=FAST_UNSAFE)
        with first:
            migrate(first.dsn())
            programs = Path(f"/proc/{first.pid}/exe").resolve().parent
        faked = _programs(path, programs, file)
        server = EmbeddedPostgres(
            path / "state", user="postgres", settings=FAST_UNSAFE, programs=faked
        )
        with server:
            yield Clock(server.dsn(), file)


def _programs(path: Path, real: Path, file: Path) -> Path:
    """The programs of the server, the server itself with the library before it."""
    folder = path / "bin"
    folder.mkdir()
    for program in real.iterdir():
        (folder / program.name).symlink_to(program)
    (folder / "postgres").unlink()
    (folder / "postgres").write_text(
        f"#!/bin/sh\nexec env LD_PRELOAD={path / LIBRARY} FAKETIME_TIMESTAMP_FILE={file} "
        "FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 "
        f'{real / "postgres"} "$@"\n'
    )
    (folder / "postgres").chmod(0o755)
    return folder


_calls: Counter[str] = Counter()


@step
async def call(n: int, ctx: WorkflowContext) -> int:
    _calls[ctx.idempotency_key] += 1
    await asyncio.sleep(0.05)
    return n + 1


flow = Saga(
    "flow",
    version=1,
    body=call >> sleep(timedelta(seconds=1)) >> call.named("again") >> call.named("last"),
)
QUICK = WorkerSettings(
    ttl=3, renew_every=0.2, command_timeout=0.4, margin=0.5, watch_every=0.2, poll_every=0.05,
)  # fmt: skip


async def test_jumps_of_the_databases_clock_fire_no_timer_twice_and_lose_nothing(
    clock: Clock,
) -> None:
    settings = Settings(database_url=SecretStr(clock.dsn))
    async with (
        open_app(settings, Catalogue((flow,))) as app,
        work([flow], database_url=clock.dsn, settings=QUICK),
        work([flow], database_url=clock.dsn, settings=QUICK),
    ):
        handles = []
        for jump in (0, JUMP, 0, JUMP, -JUMP, 0):
            await clock.set(jump)
            for n in range(5):
                handles.append(await app.orchestrator.start(flow, n))
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.7)
        # What was begun ahead of time is due ten minutes after: the clock gets there again.
        await clock.set(JUMP)
        ends = await asyncio.gather(*(app.orchestrator.wait(one.saga_id, 40) for one in handles))
        assert set(ends) == {Status.COMPLETED}
        for handle in handles:
            entries = [entry async for entry in handle.history()]
            assert await app.orchestrator.verify(handle.saga_id) == len(entries)
            types = Counter(entry.type for entry in entries)
            assert types["TimerSet"] == types["TimerFired"] == 1
            assert types["StepSucceeded"] == 3
            epochs = [entry.row.epoch for entry in entries]
            assert epochs == sorted(epochs)
        assert sum(_calls.values()) >= 3 * len(handles)
