"""A disk that is really full: refused and said, nothing acknowledged is lost, it works again with room."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator import Handle, Saga, Status, UnavailableError, WorkflowContext, step
from orchestrator.bootstrap import open_app, work
from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from tests.crash.field_hospital import until
from tests.servers import DurableServer, migrate, open_dir

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

SIZE = "180m"


@step
async def keep(text: str, ctx: WorkflowContext) -> int:
    return len(text)


flow = Saga("flow", version=1, body=keep)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, with little room."""
    with open_dir(durable=True) as place:
        path = place / "disk"
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "saga-test", str(path)]
        if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
            pytest.skip("a file system cannot be mounted here")
        try:
            yield path
        finally:
            subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> Path:
    """Take all room that is left; the file that has it."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    continue
    return ballast


async def test_on_a_full_disk_nothing_acknowledged_is_lost_and_it_recovers(
    small_disk: Path,
) -> None:
    server = DurableServer(small_disk)
    try:
        await asyncio.to_thread(migrate, server.dsn)
        settings = Settings(database_url=SecretStr(server.dsn))
        async with (
            open_app(settings, Catalogue((flow,))) as app,
            work([flow], database_url=server.dsn),
        ):
            known: list[Handle[int]] = []
            refused: list[UnavailableError] = []
            payload = os.urandom(60_000).hex()

            async def begin() -> None:
                try:
                    known.append(await app.orchestrator.start(flow, payload))
                except UnavailableError as error:
                    refused.append(error)

            for _ in range(5):
                await begin()
            assert refused == []
            ballast = await asyncio.to_thread(fill, small_disk)
            for _ in range(300):
                await begin()
                if len(refused) >= 3:
                    break
            assert refused, "the disk was never full"
            before = len(known)

            ballast.unlink()

            async def works() -> bool:
                await begin()
                return len(known) > before

            await until(works, "a start that is accepted again", within=30)
            # In the log of Postgres there may have been no room even to say no: it then came back.
            ends = [await app.orchestrator.wait(handle.saga_id, 40) for handle in known]
            assert set(ends) == {Status.COMPLETED}
            for handle in known:
                assert await app.orchestrator.verify(handle.saga_id) > 0
    finally:
        server.stop()
